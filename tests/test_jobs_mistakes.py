"""Every foreseeable mistake ends in one sentence that states what is wrong and what to do."""

import errno
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import cv2
import job_files
import numpy as np
import pytest
import ray
from fault_proxy import FaultProxy
from ray.exceptions import RayTaskError
from s3_server import Server
from test_models_bundle import tiny_bundle
from training_here import train_here

from fundus.errors import ConfigurationError, UnusablePlace, full_disk_explained
from fundus.ledger.claim import claimed
from fundus.models import bundle as bundles
from fundus.runtime.session import ray_session
from fundus.storage.places import open_place
from fundus.training import runs

Main = Callable[[list[str]], int]


@pytest.fixture
def screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Main:
    """jobs/screen.py in a folder with an archive and a bundle, without Ray."""
    monkeypatch.chdir(tmp_path)
    for name in ("archive", "nothing"):
        (tmp_path / name).mkdir()
    (tmp_path / "archive" / "eye.jpg").write_bytes(b"no picture")
    (tmp_path / "file").touch()
    bundles.save(tiny_bundle(), tmp_path / "b")
    job = job_files.load("screen")
    monkeypatch.setattr(job, "ray_session", nullcontext)

    def main(words: list[str]) -> int:
        return job.main(["--bundle", "b", "--archive", "archive", *words])

    main.job = job  # type: ignore[attr-defined]
    return main


MISTAKES = {
    "no such archive": (["--archive", "nowhere", "--results", "r"], ["nowhere"]),
    "empty archive": (["--archive", "nothing", "--results", "r"], ["nothing", "--archive"]),
    "no such list": (["--archive", "@list.txt", "--results", "r"], ["list.txt"]),
    "results in a file": (["--results", "file"], ["file", "not a folder"]),
    "results of an unknown kind": (["--results", "gs://b/r"], ["gs://", "s3://"]),
    "no such bundle": (["--bundle", "nowhere", "--results", "r"], ["nowhere", "bundle.json"]),
    "a share above 1": (["--results", "r", "--max-failure-rate", "5"], ["5", "0 to 1"]),
    "no such site file": (["--site", "nowhere.toml"], ["nowhere.toml", "no such file"]),
    "no results given": ([], ["--results", "site.toml"]),
}


@pytest.mark.parametrize(("words", "facts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_exits_with_2_and_one_sentence(
    screen: Main, capsys: pytest.CaptureFixture[str], words: list[str], facts: list[str]
) -> None:
    assert screen(words) == 2
    assert_one_sentence(capsys, facts)


@pytest.mark.s3
def test_a_missing_bucket_is_named(
    screen: Main, s3: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert screen(["--results", "s3://no-such-bucket/r"]) == 2
    assert_one_sentence(capsys, ["no-such-bucket", "the bucket does not exist"])
    assert screen(["--archive", "s3://no-such-bucket/a", "--results", "r"]) == 2
    assert_one_sentence(capsys, ["no-such-bucket", "the bucket does not exist"])


@pytest.mark.s3
def test_a_server_without_conditional_writes_is_refused_before_screening_starts(
    screen: Main,
    s3: Server,
    bucket: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise two runs would work all night, each believing that it holds the results."""
    with FaultProxy(s3.endpoint, strip=("If-None-Match", s3.key, s3.secret)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        assert screen(["--results", f"s3://{bucket}/r"]) == 2
    assert_one_sentence(capsys, [f"s3://{bucket}/r", "If-None-Match", "give --results a location"])
    assert s3.client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_missing_credentials_are_reported(
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


def test_results_that_another_run_holds_exit_with_5(
    screen: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with claimed(open_place(str(tmp_path / "r"))):
        assert screen(["--results", "r"]) == 5
    assert_one_sentence(capsys, [str(os.getpid())])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported_here_and_from_a_worker(number: int) -> None:
    full = OSError(number, os.strerror(number), "/results/rows")
    for error in (full, RayTaskError("write", "traceback", full).as_instanceof_cause()):
        facts = r"/results/rows.*TMPDIR.*same command"
        with pytest.raises(UnusablePlace, match=facts), full_disk_explained():
            raise error
    with pytest.raises(PermissionError), full_disk_explained():
        raise PermissionError(errno.EACCES, "no")


def test_another_error_from_a_worker_passes_unchanged() -> None:
    """Raised as `fundus.runtime.workers.on_a_worker` does: each error is the cause of the other."""
    failed = RayTaskError("read", "traceback", ConfigurationError("no such set"))
    with pytest.raises(ConfigurationError, match="no such set"), full_disk_explained():
        raise failed.cause from failed


def test_a_target_of_one_picture_is_refused_before_any_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundles.save(tiny_bundle(), tmp_path / "b")
    Path("target").mkdir()
    eye = np.full((64, 64, 3), 90, np.uint8)
    assert cv2.imwrite("target/eye.png", cv2.circle(eye, (32, 32), 20, (90, 120, 200), -1))
    train_here(monkeypatch)
    monkeypatch.setattr(runs, "described_sets", lambda specs: ())
    job = job_files.load("adapt")
    monkeypatch.setattr(job, "ray_session", lambda **_: nullcontext())
    monkeypatch.setattr(job, "reachable", lambda: {"CPU": 1.0})
    words = ["--bundle", "b", "--source", "synthetic:", "--target", "folder:target"]
    assert job.main([*words, "--precropped"]) == 2
    assert_one_sentence(capsys, ["1 usable picture", "2 or more", "--target"], job="adapt")


def test_a_temporary_folder_with_too_long_a_path_is_named(
    screen: Main, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray puts its sockets there; the check comes before Ray starts."""
    monkeypatch.setattr(screen.job, "ray_session", ray_session)  # type: ignore[attr-defined]
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for name in ("RAY_TMPDIR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp/" + 90 * "x")
    assert screen(["--results", "r"]) == 2
    assert_one_sentence(capsys, ["TMPDIR", "95 bytes", "shorter"])


def assert_one_sentence(
    capsys: pytest.CaptureFixture[str], facts: list[str], job: str = "screen"
) -> None:
    error = capsys.readouterr().err
    assert error.startswith(f"{job}: ") and error.count("\n") == 1
    assert [fact for fact in facts if fact not in error] == [], error
