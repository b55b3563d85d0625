"""Every mistake that can be foreseen ends in one sentence that names the thing and what to do."""

import errno
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import job_files
import pytest
from ray.exceptions import RayTaskError
from test_models_bundle import tiny_bundle

from fundus.errors import ConfigurationError, UnusablePlace, full_disk_explained
from fundus.ledger.claim import claimed
from fundus.models import bundle as bundles
from fundus.storage.places import open_place

Main = Callable[[list[str]], int]


@pytest.fixture
def screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Main:
    """jobs/screen.py in a folder with an archive and a bundle, without a Ray."""
    monkeypatch.chdir(tmp_path)
    for name in ("archive", "nothing"):
        (tmp_path / name).mkdir()
    (tmp_path / "archive" / "eye.jpg").write_bytes(b"no picture")
    (tmp_path / "file").touch()
    bundles.save(tiny_bundle(), tmp_path / "b")
    job = job_files.load("screen")
    monkeypatch.setattr(job, "ray_session", nullcontext)
    return lambda words: job.main(["--bundle", "b", "--archive", "archive", *words])


MISTAKES = {
    "no such archive": (["--archive", "nowhere", "--results", "r"], ["nowhere"]),
    "empty archive": (["--archive", "nothing", "--results", "r"], ["nothing", "--archive"]),
    "no such list": (["--archive", "@list.txt", "--results", "r"], ["list.txt"]),
    "results in a file": (["--results", "file"], ["file", "not a folder"]),
    "results of a kind that cannot be": (["--results", "gs://b/r"], ["gs://", "s3://"]),
    "no such bundle": (["--bundle", "nowhere", "--results", "r"], ["nowhere", "bundle.json"]),
    "a share beyond 1": (["--results", "r", "--max-failure-rate", "5"], ["5", "0 to 1"]),
    "nothing given": (["--site", "nowhere.toml"], ["nowhere.toml", "no such file"]),
    "no results given": ([], ["--results", "site.toml"]),
}


@pytest.mark.parametrize(("words", "facts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(
    screen: Main, capsys: pytest.CaptureFixture[str], words: list[str], facts: list[str]
) -> None:
    assert screen(words) == 2
    assert_one_sentence(capsys, facts)


@pytest.mark.s3
def test_a_bucket_that_is_not_there_is_named(
    screen: Main, s3: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert screen(["--results", "s3://no-such-bucket/r"]) == 2
    assert_one_sentence(capsys, ["no-such-bucket", "the bucket does not exist"])
    assert screen(["--archive", "s3://no-such-bucket/a", "--results", "r"]) == 2
    assert_one_sentence(capsys, ["no-such-bucket", "the bucket does not exist"])


def test_missing_credentials_are_said(
    screen: Main,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert screen(["--results", "s3://bucket/r"]) == 2
    assert_one_sentence(capsys, ["s3://bucket", "credentials"])


def test_results_that_another_run_holds_have_an_exit_code_of_their_own(
    screen: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with claimed(open_place(str(tmp_path / "r"))):
        assert screen(["--results", "r"]) == 5
    assert_one_sentence(capsys, [str(os.getpid())])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_here_and_from_a_worker(number: int) -> None:
    full = OSError(number, os.strerror(number), "/results/rows")
    for error in (full, RayTaskError("write", "traceback", full).as_instanceof_cause()):
        facts = r"/results/rows.*TMPDIR.*same command"
        with pytest.raises(UnusablePlace, match=facts), full_disk_explained():
            raise error
    with pytest.raises(PermissionError), full_disk_explained():
        raise PermissionError(errno.EACCES, "no")


def test_another_error_from_a_worker_passes_unchanged() -> None:
    """Raised as `fundus.runtime.workers.on_a_worker` does: each error is the other's cause."""
    failed = RayTaskError("read", "traceback", ConfigurationError("no such set"))
    with pytest.raises(ConfigurationError, match="no such set"), full_disk_explained():
        raise failed.cause from failed


def assert_one_sentence(capsys: pytest.CaptureFixture[str], facts: list[str]) -> None:
    error = capsys.readouterr().err
    assert error.startswith("screen: ") and error.count("\n") == 1
    assert [fact for fact in facts if fact not in error] == [], error
