"""The same command continues a killed training, and ends with exactly the same weights."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch

from fundus.datasets.batches import disc_crops
from fundus.datasets.public import open_set
from fundus.models import bundle as bundles
from fundus.models.networks import DeepLabConfig, Discriminator, build
from fundus.models.thresholds import Thresholds
from fundus.training import loop
from fundus.training.adaptation import AdaptationLearner
from fundus.training.loop import run_epochs, seed_generators
from fundus.training.recipes import AdaptationRecipe, Recipe
from fundus.training.source import Batch, SourceLearner

ROOT = Path(__file__).parent.parent
SOURCE = "synthetic:?camera=clinic&count=8&seed=1"
ALONE = os.environ | {"RAY_ADDRESS": "local"}
"""The training starts a Ray of its own, even if another cluster runs on this machine."""


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
    discriminator = Discriminator(patch=True)
    return AdaptationLearner(
        segmenter, discriminator, recipe, crops, crops, crops, thresholds=Thresholds()
    )


@pytest.mark.parametrize("make", [source_learner, adversarial_learner])
def test_a_resumed_training_equals_an_undisturbed_one(make: type, tmp_path: Path) -> None:
    """Networks, both optimisers, schedules and random states, restored from a file as in a run."""
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
        assert _same(part.state_dict(), again), name


def command(folder: Path, epochs: int) -> list[str]:
    """A tiny training from the command line."""
    return [
        sys.executable,
        str(ROOT / "jobs" / "train.py"),
        *("segmenter", "--source", SOURCE, "--from-scratch"),
        *("--bundle", str(folder / "bundle"), "--storage", str(folder / "runs")),
        *("--change", "side=32", "--change", f"epochs={epochs}"),
        *("--change", "network.aspp_channels=8"),
    ]


@pytest.fixture
def under_way(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running training of 40 epochs in its own process, with a checkpoint that Ray knows of.

    Ray learns of a checkpoint a moment after its files exist: a few of these epochs of a tenth of a
    second may be lost, but at most the last of real ones.
    """
    with (tmp_path / "first.log").open("wb") as out:
        running = subprocess.Popen(
            command(tmp_path, 40), cwd=tmp_path, stdout=out, stderr=out, env=ALONE
        )
        deadline = time.monotonic() + 180
        while not list(tmp_path.glob("runs/*/checkpoint_manager_snapshot.json")):
            log = (tmp_path / "first.log").read_text()
            assert running.poll() is None and time.monotonic() < deadline, log
            time.sleep(0.05)
        yield running
        _kill(_tree(running.pid))
        running.wait()


def test_an_announced_loss_leaves_a_checkpoint_in_the_middle_of_an_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One only, even if the loss is announced again; a resumed run does the remaining steps."""
    monkeypatch.setattr(loop, "PREEMPTION_EVERY", 1)
    states: list[dict] = []
    asked = iter([False, False, False, True, True, True])  # two steps per epoch
    run_epochs(source_learner(), 3, after_epoch=states.append, preempted=lambda: next(asked))
    assert [(len(s["history"]), s["step"]) for s in states] == [(1, 0), (1, 1), (2, 0), (3, 0)]
    resumed, done = source_learner(), []
    step = resumed.step

    def counted(batch: tuple[Batch, tuple[str, ...]]) -> dict[str, float]:
        done.append(len(batch[1]))
        return step(batch)

    monkeypatch.setattr(resumed, "step", counted)
    assert len(run_epochs(resumed, 2, state=states[1])) == 2
    assert done == [4]


@pytest.mark.slow
def test_the_same_command_continues_a_training_after_sigkill(
    under_way: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """All its processes are killed; the second run does only the remaining epochs."""
    _kill(_tree(under_way.pid))
    under_way.wait()
    assert not (tmp_path / "bundle" / "bundle.json").exists(), "killed too late to show anything"
    second = subprocess.run(
        command(tmp_path, 40), cwd=tmp_path, capture_output=True, text=True, check=False, env=ALONE
    )
    output = second.stdout + second.stderr
    assert second.returncode == 0, output
    assert "epoch 40/40" in output
    assert "epoch 1/40 " not in output, "the second run began anew"
    assert len(list(tmp_path.glob("runs/source_only-*"))) == 1
    table = (tmp_path / "bundle" / "source_only.curves.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["epoch", *map(str, range(1, 41))]
    assert (tmp_path / "bundle" / "source_only.curves.png").stat().st_size > 1000
    assert bundles.load(tmp_path / "bundle").networks["source_only"].scores["epoch"] == 40


@pytest.mark.slow
def test_the_death_of_a_worker_costs_a_few_short_epochs_at_most(
    under_way: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    workers = [pid for pid, name in _tree(under_way.pid).items() if "RayTrainWorker" in name]
    assert len(workers) == 1
    os.kill(workers[0], signal.SIGKILL)
    log = tmp_path / "first.log"
    assert under_way.wait(timeout=180) == 0, log.read_text()
    done = [int(n) for n in re.findall(r"epoch (\d+)/40 ", log.read_text())]
    assert set(done) == set(range(1, 41))
    assert len(done) <= 45, f"epochs were done twice: {done}"


def _tree(pid: int) -> dict[int, str]:
    """A process and all its descendants, with their command lines."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    names, parents = {}, {}
    for line in listed.splitlines():
        child, parent, name = line.split(maxsplit=2)
        names[int(child)], parents[int(child)] = name, int(parent)
    found = {pid: names.get(pid, "")}
    for _ in range(8):  # deeper than Ray nests
        found |= {child: names[child] for child, parent in parents.items() if parent in found}
    return found


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _same(one: object, other: object) -> bool:
    """Whether two states are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(_same(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and all(
            _same(*pair) for pair in zip(one, other, strict=True)
        )
    return one == other
