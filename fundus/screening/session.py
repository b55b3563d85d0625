"""How a screening job meets Ray: the cluster that the environment names, or a local one."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray


@contextmanager
def ray_session() -> Iterator[None]:
    """A running Ray, closed after; one that this process has already is used and left running."""
    if ray.is_initialized():
        yield
        return
    # Ray Data's actor pools set off an "E" line of the core worker at every start (ray#53727).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray.init(logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
