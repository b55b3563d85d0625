"""jobs/adapt.py from the command line to a refusal that changes nothing.

tests/test_nightly_story.py has the adaptation that is published.
"""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from test_training_targets import relabelled
from training_here import train_here

from fundus.models import bundle as bundles

ROOT = Path(__file__).parent.parent
SOURCE = "synthetic:?camera=clinic&count=8&seed=1"
TARGET = "synthetic:?camera=hospital&count=8&seed=2"


def job(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"job_{name}", ROOT / "jobs" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(tmp_path: Path, target: str, *changes: str) -> list[str]:
    words = ["--bundle", str(bundles.default_folder()), "--to", str(tmp_path / "adapted")]
    words += ["--source", SOURCE, "--target", target, "--storage", str(tmp_path / "runs")]
    for change in ("epochs=1", "batch=4", *changes):
        words += ["--change", change]
    return words


def summary_of(printed: str) -> dict[str, Any]:
    """The summary that a job's last line names; it is in the folder of its run."""
    path = Path(printed.splitlines()[-1].removeprefix("summary: "))
    summary = json.loads(path.read_text())
    assert path.parent.name == summary["run"]
    return summary


@pytest.mark.slow
def test_a_target_of_no_fundus_photographs_is_refused_and_nothing_touched(
    ray_local: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Stripes and blocks as disc crops: the gate gives its reasons, and the bundle stays."""
    train_here(monkeypatch)
    strange = tmp_path / "strange"
    strange.mkdir()
    draw = np.random.default_rng(0)
    for number in range(17):  # one more than the slices of batch norm hold
        small = draw.integers(0, 255, (5 + number, 9, 3), np.uint8)
        picture = cv2.resize(small, (128, 128), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(strange / f"{number}.png"), picture)
    words = [*arguments(tmp_path, f"folder:{strange}"), "--precropped"]
    assert job("adapt").main(words) == job("adapt").REFUSED == 4
    out = capsys.readouterr().out
    assert "FAILED: plausible shapes" in out
    assert "not published" in out
    summary = summary_of(out)
    assert (summary["exit_code"], summary["published"]) == (4, False)
    assert summary["bundle"] == bundles.load(bundles.default_folder()).digest
    failed = {check["name"] for check in summary["checks"] if not check["passed"]}
    assert "plausible shapes" in failed and all("adapted" in c for c in summary["checks"])
    assert not (tmp_path / "adapted").exists()
    report = (tmp_path / "runs" / summary["run"] / "report.html").read_text()
    assert "Not published, because of" in report and "plausible shapes" in report


@pytest.mark.slow
def test_garbage_target_labels_choose_nothing(
    ray_local: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same gate, figures and weights whether the target's masks are true, noise or no masks;
    tests/test_training_targets.py says the same of the target itself."""
    target = tmp_path / "target"
    target.mkdir()
    came_out = []
    for kind in ("true", "noise", "unreadable"):
        words = arguments(tmp_path / kind, relabelled(target, kind), "sampling=as-target")
        code = job("adapt").main(words)
        said = capsys.readouterr().out.replace(str(tmp_path / kind), "")
        [state] = (tmp_path / kind / "runs").glob("*/checkpoint_*/state.pt")
        average = torch.load(state, weights_only=True)["learner"]["average"]
        weights = {name: value.tolist() for name, value in average.items()}
        came_out.append((code, said, weights))
    assert came_out[0] == came_out[1] == came_out[2]
    assert "target consistency" in came_out[0][1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--change", "epoch=3"], "AdaptationRecipe has name, method"),
        (["--change", "epochs=many"], "'many' is not of the same type as"),
        (["--change", "sampling=odd"], "sampling is 'odd'; give one of as-is"),
        (["--workers", "0"], "0 to 0 workers"),
        (["--workers", "4-1"], "4 to 1 workers"),
        (["--workers", "some"], "--workers some: give a number, or a range"),
        (["--workers", "99-100", "--change", "batch=100"], "99 worker(s) need 99 CPUs"),
        (["--recipe", "paper", "--change", "batch=1", "--workers", "1-2"], "a batch of 1 cannot"),
        (["--gpu"], "1 worker(s) need 1 GPUs, and there are 0: ask for less"),
        (["--source", "refuge:/nowhere"], "/nowhere"),
    ],
)
def test_a_bad_configuration_is_one_sentence_and_code_2(
    ray_local: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    sentence: str,
) -> None:
    given = arguments(tmp_path, TARGET) + words
    assert job("adapt").main(given) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
