"""The loop that all trainings share: epochs, checkpoints, resume, progress, with or without Ray.

A learner (fundus.training.source, .adaptation) provides `stateful` parts, `batches(epoch)`,
`step(batch)`, `validate()` and a `seed`; the loop provides everything else.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import ray
import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model
from torch import nn

from fundus.runtime import logs
from fundus.runtime.workers import Workers
from fundus.storage.places import open_place

log = logging.getLogger(__name__)

Row = dict[str, float]
"""The figures of one epoch: epoch, seconds, mean losses, validation scores."""


class Learner(Protocol):
    """The interface of what is trained."""

    stateful: Mapping[str, Any]
    """The content of a checkpoint: networks, optimisers, schedules, by name."""
    seed: int
    """Determines, with epoch and rank, all random draws."""

    def batches(self, epoch: int) -> Iterable[Any]:
        """This rank's batches of an epoch, drawn from (seed, epoch, rank) and torch's generator."""

    def step(self, batch: Any) -> dict[str, float]:
        """Take one optimiser step; return its named losses."""

    def validate(self) -> dict[str, float]:
        """Scores that need no target label."""


PREEMPTION_EVERY = 5
"""Steps between two checks for an announced preemption. Each check waits for all ranks."""

KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_MAX_": "0"}
"""By default glibc returns the memory of large tensors to the system after each step. On a CPU the
page faults took half of the time."""


def fit(
    make_learner: Callable[[], Learner],
    epochs: int,
    *,
    name: str,
    storage: Path | str,
    workers: Workers,
) -> tuple[dict[str, Any], list[Row]]:
    """Train with Ray Train to the last epoch.

    A call with the same name and storage resumes from the last checkpoint, whatever ended the run
    before. A crash costs at most the epoch in progress; an announced preemption costs at most
    `PREEMPTION_EVERY` steps.

    Args:
        make_learner: makes the learner; called on each worker.
        epochs: number of epochs.
        name: of the run; its checkpoints are in the folder of this name.
        storage: a folder that every machine mounts, or an s3:// URI.
        workers: number and kind of workers.

    Returns:
        The final state of the learner's `stateful` parts, and the figures of every epoch.
    """
    filesystem, folder = open_place(str(storage)).arrow()
    span = (workers.least, workers.most)
    fixed = workers.least == workers.most
    trainer = TorchTrainer(
        _worker,
        # A reference, so that Ray's controller need not import the modules of the learner.
        train_loop_config={"make_learner": ray.put(make_learner), "epochs": epochs},
        scaling_config=ScalingConfig(
            num_workers=workers.most if fixed else span,  # type: ignore[arg-type]
            use_gpu=workers.gpu,
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": 1} if workers.gpu else {}),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=folder,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=workers.failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            worker_runtime_env={"env_vars": KEEP_MEMORY | logs.name_run(name)},  # type: ignore[call-arg]
        ),
    )
    checkpoint = trainer.fit().checkpoint
    if checkpoint is None:
        raise RuntimeError(f"the training {name} left no checkpoint in {storage}")
    state = _read(checkpoint)
    return state["learner"], state["history"]


def run_epochs(
    learner: Learner,
    epochs: int,
    *,
    rank: int = 0,
    state: dict[str, Any] | None = None,
    after_epoch: Callable[[dict[str, Any]], None] = lambda state: None,
    preempted: Callable[[], bool] = lambda: False,
) -> list[Row]:
    """Train a learner to the last epoch.

    Each epoch begins with generators seeded from (seed, epoch, rank), and checkpoints are written
    between epochs, so a resumed run equals an uninterrupted one to the bit. The exception is a
    preemption, for which a checkpoint is also written within an epoch: the steps after it draw
    other random numbers.

    Args:
        learner: the learner.
        epochs: number of epochs.
        rank: this worker's number.
        state: of a checkpoint; None to start anew.
        after_epoch: called with the state after each epoch, and once within an epoch on preemption,
            with the number of its steps as `step`.
        preempted: returns whether this machine is about to be taken away.

    Returns:
        The figures of all epochs.
    """
    history: list[Row] = []
    if state is not None:
        for part, values in state["learner"].items():
            learner.stateful[part].load_state_dict(values)
        history = state["history"]
    skipped = state.get("step", 0) if state else 0
    saved = False

    def checkpoint(step: int = 0) -> None:
        parts = {k: part.state_dict() for k, part in learner.stateful.items()}
        after_epoch({"learner": parts, "history": history, "step": step})

    def between_steps(step: int) -> None:
        nonlocal saved
        if step % PREEMPTION_EVERY == 0 and preempted() and not saved:
            log.info(
                "this machine will be taken away: writing a checkpoint after step %d of the epoch",
                step,
            )
            checkpoint(step)
            saved = True

    for epoch in range(len(history), epochs):
        seed_generators(learner.seed, epoch, rank, *([skipped] if skipped else []))
        row = _one_epoch(learner, epoch, skipped, between_steps)
        history, skipped = [*history, row], 0
        log.info("%s", progress(history, epochs))
        checkpoint()
    return history


def progress(history: list[Row], epochs: int) -> str:
    """One line of progress: epoch, figures, seconds, and the estimated time left."""
    row = history[-1]
    left = float(np.mean([r["seconds"] for r in history])) * (epochs - len(history))
    figures = "  ".join(f"{k} {v:.4f}" for k, v in row.items() if k not in ("epoch", "seconds"))
    return f"epoch {len(history)}/{epochs}  {figures}  {row['seconds']:.0f} s, {_clock(left)} left"


def seed_generators(*numbers: int) -> None:
    """Seed torch's generator, from which augmentation and dropout draw, by several numbers."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


def synchronised(network: nn.Module) -> nn.Module:
    """Prepare a network for this worker: device, data-parallel wrapper, batch norm over all GPUs.

    PyTorch's SyncBatchNorm has no CPU kernel. On CPUs each worker normalises by its own part of the
    batch. The running statistics are those of the first worker, which the data-parallel wrapper
    sends to all others before each step.
    """
    context = ray.train.get_context()
    if torch.cuda.is_available() and context.get_world_size() > 1:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return prepare_model(network)


def _worker(config: dict[str, Any]) -> None:
    rank = ray.train.get_context().get_world_rank()
    if rank == 0:
        logs.show()
    else:
        logging.getLogger("fundus").setLevel(logging.WARNING)
    learner = ray.get(config["make_learner"])()
    found = ray.train.get_checkpoint()
    state = _read(found) if found else None
    if state and len(state["history"]) >= config["epochs"]:
        ray.train.report(state["history"][-1], checkpoint=found)
        return
    run_epochs(
        learner, config["epochs"], rank=rank, state=state, after_epoch=_report, preempted=_preempted
    )


def _preempted() -> bool:
    """Whether a machine of this training will be taken away. A barrier: every rank must call it."""
    return ray.train.get_preemption_info() is not None


def _report(state: dict[str, Any]) -> None:
    """Report an epoch, or a part of one, to Ray Train; the first rank attaches the checkpoint."""
    figures = state["history"][-1] if state["history"] else {"epoch": 0.0}
    if ray.train.get_context().get_world_rank():
        ray.train.report(figures)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / "state.pt")
        ray.train.report(figures, checkpoint=Checkpoint.from_directory(folder))


def _read(checkpoint: Checkpoint) -> dict[str, Any]:
    with checkpoint.as_directory() as folder:
        return torch.load(Path(folder) / "state.pt", map_location="cpu", weights_only=True)


def _one_epoch(
    learner: Learner, epoch: int, skipped: int, between_steps: Callable[[int], None]
) -> Row:
    """Run one epoch, without its first `skipped` steps."""
    start = time.perf_counter()
    losses: dict[str, list[float]] = {}
    for step, batch in enumerate(learner.batches(epoch)):
        if step < skipped:
            continue
        between_steps(step)
        for name, value in learner.step(batch).items():
            losses.setdefault(name, []).append(value)
    means = {name: float(np.mean(values)) for name, values in losses.items()}
    scores = learner.validate()
    return {"epoch": epoch + 1} | means | scores | {"seconds": time.perf_counter() - start}


def _clock(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
