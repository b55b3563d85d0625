"""The same command goes on where a killed one ended, and ends with the very same weights."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fundus.datasets.batches import disc_crops
from fundus.datasets.public import open_set
from fundus.models import bundle as bundles
from fundus.models.networks import DeepLabConfig, Discriminator, build
from fundus.training.adaptation import AdaptationLearner
from fundus.training.loop import run_epochs, seed_generators
from fundus.training.recipes import AdaptationRecipe, Recipe
from fundus.training.source import SourceLearner

ROOT = Path(__file__).parent.parent
SOURCE = "synthetic:?camera=clinic&count=6&seed=1"


def source_learner() -> SourceLearner:
    recipe = Recipe(
        "test", DeepLabConfig(aspp_channels=8), side=32, epochs=3, batch=4, precision="float32"
    )
    crops = disc_crops(open_set(SOURCE), 32, roi_scale=1.7)
    seed_generators(0)
    return SourceLearner(build(recipe.network), recipe, crops, crops)


def adversarial_learner() -> AdaptationLearner:
    crops = disc_crops(open_set(SOURCE), 32, roi_scale=1.7)
    recipe = AdaptationRecipe("test", batch=3, precision="float32", schedule="step")
    seed_generators(0)
    segmenter = build(DeepLabConfig(aspp_channels=8))
    return AdaptationLearner(segmenter, Discriminator(patch=True), recipe, crops, crops, crops)


@pytest.mark.parametrize("make", [source_learner, adversarial_learner])
def test_a_resumed_training_equals_an_undisturbed_one(make: type, tmp_path: Path) -> None:
    """Networks, both optimisers, schedules and all that is drawn, through a file as in a run."""
    torch.use_deterministic_algorithms(True)
    undisturbed = make()
    run_epochs(undisturbed, 3)
    run_epochs(make(), 2, after_epoch=lambda state: torch.save(state, tmp_path / "state.pt"))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = make()
    history = run_epochs(resumed, 3, state=state)
    torch.use_deterministic_algorithms(False)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    for name, part in undisturbed.stateful.items():
        again = resumed.stateful[name].state_dict()
        assert _flat(part.state_dict()) == _flat(again), name


@pytest.mark.slow
def test_kill_9_of_a_training_and_the_same_command_again(tmp_path: Path) -> None:
    """SIGKILL to everything after the first checkpoint: the second run does only what is left."""
    command = [
        sys.executable,
        str(ROOT / "jobs" / "train.py"),
        *("segmenter", "--source", SOURCE, "--from-scratch"),
        *("--bundle", str(tmp_path / "bundle"), "--storage", str(tmp_path / "runs")),
        *("--change", "side=32", "--change", "epochs=40", "--change", "network.aspp_channels=8"),
    ]
    with (tmp_path / "first.log").open("wb") as out:
        first = subprocess.Popen(
            command, cwd=tmp_path, stdout=out, stderr=out, start_new_session=True
        )
        _wait_for(lambda: list(tmp_path.glob("runs/*/checkpoint_*/state.pt")), seconds=90)
        _kill_tree(first.pid)
        first.wait()
    assert not (tmp_path / "bundle" / "bundle.json").exists(), "killed too late to show anything"
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stdout + second.stderr
    output = second.stdout + second.stderr
    assert "epoch 40/40" in output
    assert "epoch 1/40 " not in output, "the second run began anew"
    assert len(list(tmp_path.glob("runs/source_only-*"))) == 1
    table = (tmp_path / "bundle" / "source_only.curves.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["epoch", *map(str, range(1, 41))]
    assert (tmp_path / "bundle" / "source_only.curves.png").stat().st_size > 1000
    assert bundles.load(tmp_path / "bundle").networks["source_only"].scores["epoch"] == 40


def _wait_for(happened: object, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def _kill_tree(pid: int) -> None:
    """SIGKILL a driver, then whatever Ray processes it had started."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True)
    children: dict[int, list[int]] = {}
    for line in listed.stdout.splitlines()[1:]:
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    doomed, queue = [], [pid]
    while queue:
        doomed.append(queue.pop())
        queue += children.get(doomed[-1], [])
    for each in doomed:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _flat(state: object) -> object:
    if isinstance(state, torch.Tensor):
        return state.tolist()
    if isinstance(state, dict):
        return {k: _flat(v) for k, v in state.items()}
    if isinstance(state, list | tuple):
        return [_flat(v) for v in state]
    return state
