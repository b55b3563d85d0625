"""Settings of the memory allocator, which do nothing without glibc."""

import ctypes
import os

MMAP_THRESHOLD, TRIM_THRESHOLD, ARENA_MAX = -3, -1, -8
"""Parameters of glibc's mallopt (malloc.h)."""
LARGE, KEPT = 32 << 20, 256 << 20
"""Bytes of an array from which memory is taken from the system for it alone, the most that glibc
allows; free bytes that a process keeps."""
ARENAS = 2
"""Pools of memory per process."""


def keep_memory() -> None:
    """Keep the memory of freed pictures in this process for the next ones.

    By default glibc returns it to the system. The page faults of the next picture then cost a tenth
    of the time of reading and measuring (docs/performance.md).
    """
    _set(MMAP_THRESHOLD, LARGE)
    _set(TRIM_THRESHOLD, KEPT)


def share_memory() -> None:
    """Let the threads of this process, and of those that it starts, share few pools of memory.

    By default up to eight per core. Ray's processes have many threads, and would grow during a run
    as one thread after the other fills a pool. MALLOC_ARENA_MAX of the user wins.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        os.environ["MALLOC_ARENA_MAX"] = str(ARENAS)
        _set(ARENA_MAX, ARENAS)


def _set(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(parameter, value)
