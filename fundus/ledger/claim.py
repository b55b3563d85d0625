"""One run at a time writes into a results place: the claim, its heartbeat, and taking it over."""

import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fundus.storage.places import Place
from fundus.storage.retry import StorageFailed

log = logging.getLogger(__name__)

NAME = "claim.json"
LEASE_S = 120.0
"""A claim that was not renewed for so long, by the storage's clock, is a dead run's."""
BEAT_S = 20.0


class ClaimHeld(RuntimeError):
    """Another run holds the results place; the message says who, in one sentence."""


@dataclass(frozen=True)
class Holder:
    """Who holds a claim; the content of `claim.json`."""

    owner: str = field(default_factory=lambda: secrets.token_hex(16))
    """Drawn anew for every process: tells our own writing from another's when a reply is lost."""
    host: str = field(default_factory=socket.gethostname)
    boot: str = field(default_factory=lambda: _boot())
    """The kernel's boot id: a process id means something on this boot of this host alone."""
    pids: str = field(default_factory=lambda: _pids())
    """The kernel's name for the process ids seen here: containers on one host may have its name
    and boot, and each ids of its own."""
    pid: int = field(default_factory=os.getpid)
    started: str = field(default_factory=lambda: _started(os.getpid()) or "")
    """When the process began, in the kernel's ticks: process ids come back."""
    since: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}")
    beats: int = 0
    """Counts the renewals, so that each is a change."""

    def gone(self) -> bool:
        """Whether it was a process that could be seen from here, and is not there any more."""
        if (self.host, self.boot, self.pids) != (socket.gethostname(), _boot(), _pids()):
            return False
        return _started(self.pid) != self.started

    def described(self) -> str:
        """For a sentence."""
        return f"process {self.pid} on {self.host}, since {self.since}"

    def dumped(self) -> bytes:
        """JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


def holder(place: Place) -> Holder | None:
    """Who holds the place now, dead or alive; None where nobody does."""
    found = place.read(NAME)
    return Holder(**json.loads(found[0])) if found else None


@contextmanager
def claimed(place: Place, *, take_over: bool = False) -> Iterator["Claim"]:
    """Hold the place until the block ends, renewed in the background; ClaimHeld if another does.

    A dead run's claim is taken over: its process is gone from this machine, or it was not renewed
    for `LEASE_S`. `take_over` takes it from whoever has it.
    """
    claim = Claim(place)
    claim.acquire(take_over=take_over)
    beating = threading.Thread(target=claim.beat, name="claim", daemon=True)
    beating.start()
    try:
        yield claim
    finally:
        claim.stopped.set()
        beating.join()
        claim.release()


class Claim:
    """A claim on one place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.holder = Holder()
        self.etag = ""
        self.lost = False
        """Another run has taken the claim: this one must not publish."""
        self.stopped = threading.Event()

    def acquire(self, *, take_over: bool = False) -> None:
        """Write the claim, or raise ClaimHeld."""
        ours = self.holder.dumped()
        etag = self.place.put_if_absent(NAME, ours)
        if etag is None:
            found = self.place.read(NAME)
            if found is None:  # given back just now
                etag = self.place.put_if_absent(NAME, ours)
            else:
                other = Holder(**json.loads(found[0]))
                if not (take_over or other.gone() or self._expired()):
                    raise ClaimHeld(_sentence(self.place, other))
                log.info("taking over the claim of %s", other.described())
                etag = self.place.put_if_match(NAME, ours, found[1])
        if etag is None:
            raise ClaimHeld(_sentence(self.place, holder(self.place)))
        self.etag = etag

    def beat(self) -> None:
        """Renew until stopped or lost. A storage that fails is asked again at the next beat."""
        while not self.stopped.wait(BEAT_S):
            try:
                self.renew()
            except (StorageFailed, OSError) as error:
                log.warning("the claim could not be renewed (%s)", type(error).__name__)

    def renew(self) -> None:
        """Write the claim anew, or find it lost."""
        following = Holder(**asdict(self.holder) | {"beats": self.holder.beats + 1})
        etag = self.place.put_if_match(NAME, following.dumped(), self.etag)
        if etag is None:
            found = holder(self.place)
            self.lost = found is None or found.owner != self.holder.owner
            if self.lost:
                self.stopped.set()
            return
        self.holder, self.etag = following, etag

    def check(self) -> None:
        """ClaimHeld when another run has taken the place: called before anything is published."""
        found = holder(self.place)
        if self.lost or found is None or found.owner != self.holder.owner:
            self.lost = True
            raise ClaimHeld(_sentence(self.place, found))

    def release(self) -> None:
        """Give the place back, if it is still ours."""
        found = holder(self.place)
        if found is not None and found.owner == self.holder.owner:
            self.place.delete(NAME)

    def _expired(self) -> bool:
        age = self.place.age_s(NAME)
        return age is not None and age > LEASE_S


def _sentence(place: Place, other: Holder | None) -> str:
    who = other.described() if other else "another run"
    return (
        f"{place.uri} is held by {who}: wait for it to end, or give --take-over if you know that it"
        " is dead"
    )


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux: the host's name has to do
        return ""


def _pids() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        return ""


def _started(pid: int) -> str | None:
    """The start time of a running process, "" where the system does not tell; None: not there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return None if fields[0] == "Z" else fields[19]
