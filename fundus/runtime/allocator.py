"""Settings of the memory allocator."""

import ctypes

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's mallopt (malloc.h)."""
LARGE, KEPT = 32 << 20, 256 << 20
"""Bytes of an array from which memory is taken from the system for it alone, the most that glibc
allows; free bytes that a process keeps."""


def keep_memory() -> None:
    """Keep the memory of freed pictures in this process for the next ones.

    By default glibc returns it to the system. The page faults of the next picture then cost a tenth
    of the time of reading and measuring (docs/performance.md). Does nothing without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(MMAP_THRESHOLD, LARGE)
        mallopt(TRIM_THRESHOLD, KEPT)
