"""Settings of glibc's memory allocator for the processes of a local Ray."""

import os

SETTINGS = {
    # Two pools of memory per process. By default there are up to eight per core, and Ray's
    # processes, which have many threads, grow during a run as one thread after the other fills one.
    "MALLOC_ARENA_MAX": "2",
    # Memory of up to 32 MiB comes from these pools, and up to 256 MiB stay there when it is freed.
    # By default glibc returns the memory of each picture to the system; the next picture
    # then waits for page faults (docs/performance.md).
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
"""Variables that glibc reads when a process starts (mallopt(3))."""


def set_for_children() -> None:
    """Set the variables, unless the user has, for the processes that this one will start."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
