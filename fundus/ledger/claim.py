"""One run at a time works on a results location, so that no night's work is done twice.

The claim only saves work. Correctness is up to the table: even if two runs publish at once, one row
per picture remains.
"""

import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from fundus.storage.places import Place
from fundus.storage.retry import StorageFailed

log = logging.getLogger(__name__)

NAME = "claim.json"
LEASE_S = 120.0
"""A claim that was not renewed for this long, by the storage's clock, belongs to a dead run."""
BEAT_S = 20.0
"""Seconds between two renewals."""
CLOCK_S = 5.0
"""Seconds by which the start of a process may seem to move when the system's clock is set."""


class ClaimHeld(RuntimeError):
    """Another run holds the results location; the message names its process in one sentence."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a results location; the content of `claim.json`."""

    owner: str = field(default_factory=lambda: secrets.token_hex(16))
    host: str = field(default_factory=socket.gethostname)
    pids: str = field(default_factory=lambda: _pids())
    """The kernel's name of this process's PID namespace: containers may share the name of their
    host, but each has its own process ids."""
    pid: int = field(default_factory=os.getpid)
    started: float = field(default_factory=lambda: psutil.Process().create_time())
    """Tells this process from a later one with the same id."""
    since: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}")

    def gone(self) -> bool:
        """Whether the process would be visible from here and no longer exists."""
        if (self.host, self.pids) != (socket.gethostname(), _pids()):
            return False
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < CLOCK_S
            return not same or process.status() == psutil.STATUS_ZOMBIE
        return True

    def described(self) -> str:
        """The process, for a message."""
        return f"process {self.pid} on {self.host}, since {self.since}"

    def dumped(self) -> bytes:
        """The content of `claim.json`."""
        return json.dumps(asdict(self)).encode() + b"\n"


def holder(place: Place) -> Holder | None:
    """The process that holds the location now, dead or alive; None if there is no claim."""
    found = place.read(NAME)
    return Holder(**json.loads(found[0])) if found else None


@contextmanager
def claimed(place: Place, *, take_over: bool = False) -> Iterator["Claim"]:
    """Hold a results location until the block ends; a thread renews the claim.

    The claim of a dead run is taken over. A run is dead if its process has ended on this machine,
    or if its claim was not renewed for `LEASE_S`.

    Args:
        place: the results location.
        take_over: take the claim even from a run that seems alive.

    Raises:
        ClaimHeld: another run holds the location.
    """
    claim = Claim(place)
    claim.acquire(take_over=take_over)
    ended = threading.Event()
    beating = threading.Thread(target=claim.beat, args=(ended,), name="claim", daemon=True)
    beating.start()
    try:
        yield claim
    finally:
        ended.set()
        beating.join()
        if claim.ours():
            place.delete(NAME)


class Claim:
    """This process's claim on one results location."""

    def __init__(self, place: Place) -> None:
        self.place, self.holder = place, Holder()
        self.etag: str | None = None

    def acquire(self, *, take_over: bool = False) -> None:
        """Write the claim, or raise ClaimHeld."""
        self.etag = self.place.put_if_absent(NAME, self.holder.dumped())
        found = None if self.etag else self.place.read(NAME)
        if found:
            other = Holder(**json.loads(found[0]))
            if take_over or other.gone() or (self.place.age_s(NAME) or 0) > LEASE_S:
                log.info("taking over the claim of %s", other.described())
                self.etag = self.place.put_if_match(NAME, self.holder.dumped(), found[1])
        self.check()

    def beat(self, ended: threading.Event) -> None:
        """Renew the claim until `ended` is set or another run has taken it.

        If the storage fails, the next beat tries again.
        """
        while self.etag and not ended.wait(BEAT_S):
            try:
                self.etag = self.place.put_if_match(NAME, self.holder.dumped(), self.etag)
            except (StorageFailed, OSError) as error:
                log.warning("the claim could not be renewed (%s)", type(error).__name__)

    def ours(self) -> bool:
        """Whether this process still holds the claim."""
        return holder(self.place) == self.holder

    def check(self) -> None:
        """Raise ClaimHeld if another run has the claim: before work, and before publishing."""
        found = holder(self.place)
        if found != self.holder:
            raise ClaimHeld(
                f"{self.place.uri} is held by {found.described() if found else 'another run'}: wait"
                " for that run to end, or give --take-over if you know that it is dead"
            )


def _pids() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        return ""
