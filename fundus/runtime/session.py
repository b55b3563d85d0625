"""How a job meets Ray: the cluster that the environment names, or a local one, closed after."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from fundus.runtime import logs


@contextmanager
def ray_session(*, level: int = logging.ERROR) -> Iterator[None]:
    """A running Ray, closed after; one that this process has already is used and left running.

    level: the lowest level that Ray's own log prints; Ray Train reports progress at INFO.
    """
    if ray.is_initialized():
        yield
        return
    # With the dashboard (on 127.0.0.1 alone): without it Ray Train logs a failed query each second.
    ray.init(logging_level=level, **logs.ray_options())
    try:
        yield
    finally:
        ray.shutdown()
