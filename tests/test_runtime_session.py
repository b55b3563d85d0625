"""Which Ray a job joins or starts; what Ray could not use is refused before Ray starts."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import job_files
import pytest
import ray
from ray._common.usage.usage_lib import usage_stats_enabled
from ray._private.utils import validate_socket_filepath

from fundus.errors import ConfigurationError
from fundus.runtime import session

BUNDLE = str(Path(__file__).parent.parent / "fundus" / "bundles" / "default")


@pytest.fixture(params=["TMPDIR", "RAY_TMPDIR"])
def variable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("TMPDIR", "RAY_TMPDIR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return str(request.param)


def longest() -> int:
    """The most bytes in the path of a temporary folder with which Ray accepts its socket paths."""
    session_name = time.strftime("session_%Y-%m-%d_%H-%M-%S_123456_") + str(os.getpid())
    for length in range(1, 107):
        path = Path("/" + "x" * (length - 1), "ray", session_name, "sockets", "plasma_store")
        try:
            validate_socket_filepath(str(path))
        except OSError:
            return length - 1
    raise AssertionError("Ray takes any path")


def test_the_longest_path_is_that_of_ray(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "/" + "x" * (longest() - 1))
    session.check_temporary_folder()
    monkeypatch.setenv(variable, "/" + "é" * (longest() // 2 + 1))
    with pytest.raises(ConfigurationError, match=f"^{variable} is a path of"):
        session.check_temporary_folder()


@pytest.mark.parametrize("chosen", [None, "1"])
def test_ray_sends_no_usage_statistics_unless_the_user_chooses_to(
    chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # First set, then deleted, so that monkeypatch also undoes what the session sets.
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    if chosen is None:
        monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    seen = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", lambda *_, **__: seen.append(usage_stats_enabled()))
    with session.ray_session():
        pass
    assert seen == [chosen == "1"]


@pytest.mark.parametrize("job", ["screen", "train", "adapt", "demo"])
def test_a_job_names_the_folder_in_one_sentence(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * 89)
    monkeypatch.chdir(tmp_path)
    sets = "synthetic:?camera=clinic&count=2&seed=1"
    arguments = {
        "screen": ["--archive", str(tmp_path), "--results", str(tmp_path / "results")],
        "train": ["segmenter", "--source", sets, "--bundle", "mine"],
        "adapt": ["--bundle", BUNDLE, "--source", sets, "--target", sets, "--to", "adapted"],
        "demo": ["--count", "1"],
    }[job]
    assert job_files.load(job).main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{job}: RAY_TMPDIR is a path of 90 bytes") and error.count("\n") == 1


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with so short a path that Ray's sockets can be below it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_without_an_address_a_killed_cluster_is_not_joined(short_folder: Path) -> None:
    """Ray leaves the address of the last cluster in a file, also when the cluster was killed."""
    (short_folder / "ray").mkdir()
    (short_folder / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    environment = {name: text for name, text in os.environ.items() if name != "RAY_ADDRESS"}
    program = (
        "import ray\nfrom fundus.runtime.session import ray_session\n"
        "with ray_session():\n    print(len(ray.nodes()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"RAY_TMPDIR": str(short_folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


@pytest.mark.parametrize(
    ("address", "facts"),
    [
        ("127.0.0.1:{closed}", ["no Ray cluster answers", "127.0.0.1:{closed}", "unset"]),
        ("ray://127.0.0.1:{closed}", ["no Ray cluster answers", "unset"]),
        ("nowhere.invalid:6379", ["no Ray cluster answers", "nowhere.invalid:6379"]),
        ("head:port", ["no Ray cluster answers", "head:port"]),
        ("http://127.0.0.1:8265", ["`ray job submit`", "HOST:PORT"]),
    ],
)
def test_an_address_without_a_cluster_is_named(
    address: str, facts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = unused.getsockname()[1]
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setenv("RAY_ADDRESS", address.format(closed=closed))
        with pytest.raises(ConfigurationError) as refused, session.ray_session():
            pass
    assert [one for one in facts if one.format(closed=closed) not in str(refused.value)] == []
