"""deploy/nightly.py with a stand-in for the cluster; tests/test_cluster_jobs.py has a real one."""

import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from ray.job_submission import JobStatus

FILE = Path(__file__).parent.parent / "deploy/nightly.py"
WORDS = ["--night", "2027-01-31", "--archive", "a", "--results", "r"]


class Cluster:
    """Remembers the submitted jobs; each prints a line and exits with 3."""

    jobs: dict[str, str]
    listed = True
    """Whether `list_jobs` names them; False as if another call submitted in between."""
    lost = False
    """Whether the connection is lost while a job is followed."""

    def __init__(self) -> None:
        self.jobs = {}

    def list_jobs(self) -> list[SimpleNamespace]:
        names = self.jobs if self.listed else []
        return [SimpleNamespace(submission_id=name) for name in names]

    def submit_job(self, *, entrypoint: str, submission_id: str) -> None:
        if submission_id in self.jobs:
            raise RuntimeError(f"Job with submission_id {submission_id} already exists.")
        self.jobs[submission_id] = entrypoint

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        if name not in self.jobs:
            raise RuntimeError(f"Job {name} does not exist")
        yield "a line\n"
        if self.lost:
            raise RuntimeError("WebSocket connection closed unexpectedly")

    def get_job_status(self, name: str) -> JobStatus:
        return JobStatus.FAILED

    def get_job_info(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(driver_exit_code=3)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def nightly(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("nightly", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "JobSubmissionClient", lambda: cluster)
    return module


def test_a_night_can_be_followed_again_after_a_lost_connection(
    nightly: ModuleType, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.lost = True
    assert nightly.main(WORDS) == 7
    cluster.lost = False
    assert nightly.main(WORDS) == 6
    capsys.readouterr()
    assert nightly.main(["--follow", *WORDS]) == 3
    assert capsys.readouterr().out == "a line\n"
    assert cluster.jobs == {"screen-2027-01-31": "jobs/screen.py --archive a --results r"}


def test_a_second_call_is_refused_even_at_the_same_moment(
    nightly: ModuleType, cluster: Cluster
) -> None:
    assert nightly.main(WORDS) == 3
    cluster.listed = False
    assert nightly.main(WORDS) == 6


def test_a_second_try_of_a_night_is_another_submission(
    nightly: ModuleType, cluster: Cluster
) -> None:
    assert nightly.main(WORDS) == 3
    assert nightly.main(["--try", "2", *WORDS]) == 3
    assert list(cluster.jobs) == ["screen-2027-01-31", "screen-2027-01-31-2"]


def test_a_night_that_nobody_submitted_cannot_be_followed(nightly: ModuleType) -> None:
    assert nightly.main(["--follow", *WORDS]) == 7


@pytest.mark.parametrize("night", ["x", "2027-02-30", "2027-01-31T12:00"])
def test_a_night_that_is_no_date_ends_with_2_and_one_sentence(
    nightly: ModuleType, cluster: Cluster, night: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nightly.main(["--night", night]) == 2
    assert capsys.readouterr().err == f"nightly: --night {night}: give a date such as 2027-01-31\n"
    assert not cluster.jobs
