"""How a job meets Ray: the cluster that the environment names, or a local one, closed after."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from fundus.errors import ConfigurationError
from fundus.runtime import logs

LONGEST_SOCKET = 107
"""Bytes of a socket's path that Linux takes."""
SOCKET = "/ray/session_2027-01-01_00-00-00_000000_{}/sockets/plasma_store"
"""Ray's longest socket below the folder for temporary files, with the process id in its name."""


@contextmanager
def ray_session(*, level: int = logging.ERROR) -> Iterator[None]:
    """A running Ray, closed after; one that this process has already is used and left running.

    level: the lowest level that Ray's own log prints; Ray Train reports progress at INFO.
    Raises ConfigurationError where a local Ray would have to start in a folder for temporary files
    whose path is too long.
    """
    if ray.is_initialized():
        yield
        return
    if not os.environ.get("RAY_ADDRESS"):
        check_temporary_folder()
    # With the dashboard (on 127.0.0.1 alone): without it Ray Train logs a failed query each second.
    ray.init(logging_level=level, **logs.ray_options())
    try:
        yield
    finally:
        ray.shutdown()


def check_temporary_folder() -> None:
    """ConfigurationError where the paths of Ray's sockets would be longer than Linux allows."""
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder = os.environ.get(name, "/tmp")
    most = LONGEST_SOCKET - len(SOCKET.format(os.getpid()))
    length = len(os.fsencode(folder.rstrip("/")))
    if length > most:
        raise ConfigurationError(
            f"{name} is a path of {length} bytes, and Ray's sockets below it need one of at most"
            f" {most}: set {name} to a shorter one, such as /tmp"
        )
