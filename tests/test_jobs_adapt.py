"""jobs/adapt.py from the command line to a refusal that publishes nothing.

tests/test_nightly_story.py tests an adaptation that is published.
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


def summary_of(output: str) -> dict[str, Any]:
    """The summary that the last line of a job's output names; it lies in the folder of the run."""
    path = Path(output.splitlines()[-1].removeprefix("summary: "))
    summary = json.loads(path.read_text())
    assert path.parent.name == summary["run"]
    return summary


@pytest.mark.slow
def test_a_target_without_fundus_photographs_is_refused_and_nothing_is_published(
    ray_local: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The precropped pictures are random blocks; the gate gives its reasons."""
    train_here(monkeypatch)
    strange = tmp_path / "strange"
    strange.mkdir()
    draw = np.random.default_rng(0)
    for number in range(17):  # one more than a slice of batch norm holds
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
def test_target_labels_do_not_influence_the_adaptation(
    ray_local: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """True masks, noise and unreadable files give the same output and the same weights;
    tests/test_training_targets.py checks that they give the same target."""
    target = tmp_path / "target"
    target.mkdir()
    outcomes = []
    for kind in ("true", "noise", "unreadable"):
        words = arguments(tmp_path / kind, relabelled(target, kind), "sampling=as-target")
        code = job("adapt").main(words)
        output = capsys.readouterr().out.replace(str(tmp_path / kind), "")
        [state] = (tmp_path / kind / "runs").glob("*/checkpoint_*/state.pt")
        average = torch.load(state, weights_only=True)["learner"]["average"]
        weights = {name: value.tolist() for name, value in average.items()}
        outcomes.append((code, output, weights))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert "target consistency" in outcomes[0][1]


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
def test_a_bad_configuration_exits_with_2_and_one_sentence(
    ray_local: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    sentence: str,
) -> None:
    args = arguments(tmp_path, TARGET) + words
    assert job("adapt").main(args) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
