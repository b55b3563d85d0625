"""How a screening job meets Ray: the cluster that the environment names, or a local one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from fundus.screening import logs


@contextmanager
def ray_session() -> Iterator[None]:
    """A running Ray, closed after; one that this process has already is used and left running."""
    if ray.is_initialized():
        yield
        return
    ray.init(logging_level=logging.ERROR, **logs.ray_options())
    try:
        yield
    finally:
        ray.shutdown()
