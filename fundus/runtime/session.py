"""Ray for a job: the cluster that the environment names, or a local Ray, closed at the end."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from fundus.errors import ConfigurationError
from fundus.runtime import logs, noise

USAGE_STATISTICS = "RAY_USAGE_STATS_ENABLED"
"""Ray sends usage statistics unless this variable is 0; here it is 0 unless the user sets it."""
LONGEST_SOCKET = 107
"""Most bytes of a socket's path on Linux."""
SOCKET = "/ray/session_2027-01-01_00-00-00_000000_{}/sockets/plasma_store"
"""Ray's longest socket below the folder for temporary files, with the process id in its name."""


@contextmanager
def ray_session(*, level: int = logging.ERROR, dashboard: bool = False) -> Iterator[None]:
    """Provide a running Ray, and close it at the end, unless this process already had one.

    Args:
        level: the lowest level that Ray's own log prints; Ray Train reports progress at INFO.
        dashboard: a local Ray has a dashboard, on 127.0.0.1. Its processes take seconds to start
            and a share of small machines, but without it Ray Train logs a failed query per second.

    Raises:
        ConfigurationError: the folder for temporary files has too long a path for a local Ray.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault(USAGE_STATISTICS, "0")
    if not os.environ.get("RAY_ADDRESS"):
        check_temporary_folder()
    with noise.hidden():
        # On a cluster that RAY_ADDRESS names, its head decides.
        here = None if os.environ.get("RAY_ADDRESS") else dashboard
        ray.init(logging_level=level, include_dashboard=here, **logs.ray_options())
        try:
            yield
        finally:
            ray.shutdown()


def check_temporary_folder() -> None:
    """Raise ConfigurationError if the paths of Ray's sockets would be too long for Linux."""
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder = os.environ.get(name, "/tmp")
    most = LONGEST_SOCKET - len(SOCKET.format(os.getpid()))
    length = len(os.fsencode(folder.rstrip("/")))
    if length > most:
        raise ConfigurationError(
            f"{name} is a path of {length} bytes, and Ray's sockets below it need one of at most"
            f" {most}: set {name} to a shorter one, such as /tmp"
        )
