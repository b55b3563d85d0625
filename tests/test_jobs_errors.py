"""A user's mistake is one sentence and exit code 2; a bug keeps its traceback and exits with 1."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import job_files
import pytest

from fundus.errors import ConfigurationError


def raising(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise error

    return fail


def planted(job: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The job's `main`, whose first call raises the error."""
    module = job_files.load(job)
    if job == "demo":  # it parses its arguments before the block that handles errors
        monkeypatch.setattr(module.bundles, "load", raising(error))
    else:
        monkeypatch.setattr(module, "parse", raising(error))
    return module.main


@pytest.mark.parametrize("job", job_files.NAMES)
def test_a_bug_keeps_its_traceback(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    main = planted(job, ValueError("a bug"), monkeypatch)
    with pytest.raises(ValueError, match="a bug"):
        main([])


@pytest.mark.parametrize("job", job_files.NAMES)
def test_a_mistake_exits_with_2_and_one_sentence(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = planted(job, ConfigurationError("give another path"), monkeypatch)
    assert main([]) == 2
    assert capsys.readouterr().err == f"{job}: give another path\n"


def test_a_bug_in_a_jobs_own_process_exits_with_1() -> None:
    """No job catches a bug, so Python prints the traceback; one process stands for all jobs."""
    code = """
import os, runpy, sys
import fundus.cluster.sizing as sizing

def fail(*_):
    raise ValueError("a bug")

sizing.read_rates = fail
sys.argv = ["plan.py", "--rates", os.devnull, "--pictures", "1"]
runpy.run_path("jobs/plan.py", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=job_files.FOLDER.parent,
        env=os.environ | {"PYTHONPATH": str(job_files.FOLDER.parent)},
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr and done.stderr.endswith("ValueError: a bug\n")


@pytest.mark.parametrize("job", job_files.NAMES)
def test_every_job_prints_its_help(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        job_files.load(job).main(["--help"])
    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out
