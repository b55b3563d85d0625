"""Ray for a job: the cluster that the environment names, or a local Ray, closed at the end."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import ray

from fundus.errors import ConfigurationError
from fundus.runtime import allocator, logs, noise

LOCAL = "local"
"""The address with which Ray starts on this machine, whatever ran or still runs here."""
PATIENCE = 10.0
"""Seconds in which the head that RAY_ADDRESS names must take a connection."""
USAGE_STATISTICS = "RAY_USAGE_STATS_ENABLED"
"""Ray sends usage statistics unless this variable is 0; here it is 0 unless the user sets it."""
LONGEST_SOCKET = 107
"""Most bytes of a socket's path on Linux."""
SOCKET = "/ray/session_2027-01-01_00-00-00_000000_{}/sockets/plasma_store"
"""Ray's longest socket below the folder for temporary files, with the process id in its name."""


@contextmanager
def ray_session(*, level: int = logging.ERROR, dashboard: bool = False) -> Iterator[None]:
    """Provide a running Ray, and close it at the end, unless this process already had one.

    Without RAY_ADDRESS it is a local Ray. By itself Ray would join the cluster that was last
    started on this machine, and would wait minutes for one that was killed.

    Args:
        level: the lowest level that Ray's own log prints; Ray Train reports progress at INFO.
        dashboard: a local Ray has a dashboard, on 127.0.0.1. Its processes take seconds to start
            and a share of small machines, but without it Ray Train logs a failed query per second.

    Raises:
        ConfigurationError: no cluster answers at RAY_ADDRESS, or the folder for temporary files
            has too long a path for a local Ray.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault(USAGE_STATISTICS, "0")
    address = os.environ.get("RAY_ADDRESS") or LOCAL
    if address == LOCAL:
        check_temporary_folder()
        allocator.set_for_children()
    else:
        check_address(address)
    with noise.hidden():
        # On a cluster that RAY_ADDRESS names, its head decides.
        here = dashboard if address == LOCAL else None
        try:
            ray.init(address, logging_level=level, include_dashboard=here, **logs.ray_options())
        except ConnectionError as error:
            raise no_cluster(address) from error
        try:
            yield
        finally:
            ray.shutdown()


def check_address(address: str) -> None:
    """Raise ConfigurationError if nothing listens at `address`, or if it is that of a dashboard."""
    if address.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"RAY_ADDRESS is {address}, where `ray job submit` sends a job: submit this one,"
            " set RAY_ADDRESS to the HOST:PORT of the cluster's head, or unset it to run here"
        )
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        if parts.hostname and parts.port:
            socket.create_connection((parts.hostname, parts.port), PATIENCE).close()
    except (OSError, ValueError) as error:
        raise no_cluster(address) from error


def no_cluster(address: str) -> ConfigurationError:
    """The error for a RAY_ADDRESS at which no Ray answers."""
    return ConfigurationError(
        f"no Ray cluster answers at RAY_ADDRESS, which is {address}: start it, or unset RAY_ADDRESS"
        " to run on this machine"
    )


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
