"""One run at a time: who gets a results location, who is refused, and when a claim has expired."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from fundus.ledger import claim
from fundus.ledger.claim import Claim, ClaimHeld, Holder, claimed, holder
from fundus.storage.places import Place, open_place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return open_place(str(tmp_path / "results"))


def another(place: Place, **changed: object) -> Holder:
    """Write a claim of this machine's first process, which lives as long as the machine."""
    other = Holder(
        **asdict(Holder()) | {"pid": 1, "started": psutil.Process(1).create_time()} | changed
    )
    place.put(claim.NAME, other.dumped())
    return other


def test_a_second_run_learns_who_holds_the_place_and_the_first_releases_it(place: Place) -> None:
    with claimed(place) as first:
        assert holder(place) == first.holder
        with pytest.raises(ClaimHeld, match=f"process {os.getpid()} on .*--take-over"):
            Claim(place).acquire()
    assert holder(place) is None
    with claimed(place):
        pass


def test_a_process_of_this_machine_that_has_ended_holds_nothing(place: Place) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    another(place, pid=dead.pid, started=1.0)
    with claimed(place) as ours:
        assert holder(place) == ours.holder


def test_a_reused_process_id_is_another_process(place: Place) -> None:
    another(place, started=1.0)
    with claimed(place):
        pass


def test_a_process_of_another_pid_namespace_is_not_taken_for_ended(place: Place) -> None:
    """Docker containers may share the name of their host, but each has its own process ids."""
    assert Holder().pids.startswith("pid:") or sys.platform != "linux"
    another(place, pids="pid:[1]", started=1.0)
    with pytest.raises(ClaimHeld):
        Claim(place).acquire()


def test_a_claim_of_another_machine_expires_by_the_clock_of_the_storage(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    another(place, host="elsewhere")
    with pytest.raises(ClaimHeld, match="elsewhere"):
        Claim(place).acquire()
    monkeypatch.setattr(claim, "LEASE_S", -1)
    with claimed(place):
        pass


class Turns:
    """An event that is set after a number of waits."""

    def __init__(self, left: int) -> None:
        self.left = left

    def wait(self, _: float) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_renewed_claim_stays_ours_and_a_take_over_is_noticed(
    place: Place, tmp_path: Path
) -> None:
    first, second = Claim(place), Claim(place)
    first.acquire()
    os.utime(tmp_path / "results" / claim.NAME, (0, 0))
    assert (place.age_s(claim.NAME) or 0) > claim.LEASE_S
    first.beat(Turns(2))
    assert (place.age_s(claim.NAME) or 0) < claim.LEASE_S
    first.check()
    second.acquire(take_over=True)
    turns = Turns(5)
    first.beat(turns)
    assert first.etag is None and turns.left == 4
    with pytest.raises(ClaimHeld):
        first.check()
    assert not first.ours() and second.ours()
