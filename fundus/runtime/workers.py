"""The workers of a training: how many there are, where they run, and whether they will ever fit."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import ray
from ray.exceptions import RayTaskError

from fundus.errors import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """Where a training runs."""

    least: int = 1
    """Data-parallel workers without which no training starts."""
    most: int = 1
    """As many as are used where there are machines for them. They come and go: a training that
    loses some goes on with the rest, from its last checkpoint."""
    gpu: bool = False
    """One GPU for each worker. Written for GPUs, not run on one yet."""
    cpus: float = 1
    """CPUs reserved for each worker."""
    failures: int = 3
    """Deaths of a worker survived before the training gives up; of a machine whose end was
    announced, any number."""

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ConfigurationError(
                f"{self.least} to {self.most} workers; give 1 or more, least first"
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say where a training runs."""
    parser.add_argument("--workers", default="1", help="data-parallel workers: 4, or 1-4")
    parser.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    parser.add_argument("--cpus", type=float, default=1, help="CPUs for each worker")
    parser.add_argument("--storage", help="default: runs; folder or s3:// place of checkpoints")


def workers(given: argparse.Namespace) -> Workers:
    """The workers that the arguments ask for; ConfigurationError in one sentence."""
    least, dash, most = given.workers.partition("-")
    if not (least.isdecimal() and (most.isdecimal() if dash else True)):
        raise ConfigurationError(f"--workers {given.workers}: give a number, or a range as 1-4")
    return Workers(int(least), int(most or least), gpu=given.gpu, cpus=given.cpus)


def check_room(workers: Workers, resources: Mapping[str, float]) -> None:
    """Refuse workers, the fewest of them, that want more CPUs or GPUs than there will ever be.

    Without it such a training waits for them without end. `resources` are those of
    `fundus.runtime.resources.reachable`.
    """
    wanted = {"CPU": workers.least * workers.cpus, "GPU": workers.least * int(workers.gpu)}
    for name, amount in wanted.items():
        if amount > resources.get(name, 0):
            raise ConfigurationError(
                f"{workers.least} worker(s) want {amount:g} {name}s, and there are"
                f" {resources.get(name, 0):g}: ask for less by --workers, --cpus or without --gpu;"
                " where nodes come on demand, say in FUNDUS_GROWS_TO how many may come"
            )


def on_a_worker(workers: Workers, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """What `work` returns, done where one of these workers would fit: a cluster's head has no CPU
    to spare. What it raises is raised here.
    """
    task = ray.remote(num_cpus=workers.cpus, num_gpus=int(workers.gpu))(work)
    try:
        return ray.get(task.remote(*given, **named))
    except RayTaskError as failed:
        raise failed.cause from failed
