"""The workers of a training: their number, their resources, and whether the cluster has room."""

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
    """Number and resources of the workers of a training."""

    least: int = 1
    """Data-parallel workers that a training needs to start."""
    most: int = 1
    """Data-parallel workers that it uses if there are machines for them. A training that loses
    some continues with the rest from its last checkpoint."""
    gpu: bool = False
    """One GPU per worker. Not run on a GPU yet."""
    cpus: float = 1
    """CPUs reserved per worker."""
    failures: int = 3
    """Crashes of workers after which the training gives up. Announced losses of machines do not
    count."""

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ConfigurationError(
                f"{self.least} to {self.most} workers: give 1 or more, the lower number first"
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `workers` reads, and --storage."""
    parser.add_argument("--workers", default="1", help="data-parallel workers: 4, or 1-4")
    parser.add_argument("--gpu", action="store_true", help="one GPU per worker")
    parser.add_argument("--cpus", type=float, default=1, help="CPUs per worker")
    parser.add_argument("--storage", help="folder or s3:// URI of checkpoints; default: runs")


def workers(args: argparse.Namespace) -> Workers:
    """The workers of parsed arguments; ConfigurationError if --workers cannot be read."""
    least, dash, most = args.workers.partition("-")
    if not (least.isdecimal() and (most.isdecimal() if dash else True)):
        raise ConfigurationError(f"--workers {args.workers}: give a number, or a range such as 1-4")
    return Workers(int(least), int(most or least), gpu=args.gpu, cpus=args.cpus)


def check_room(workers: Workers, resources: Mapping[str, float]) -> None:
    """Check that the least number of workers fits into the cluster.

    Without this check a training would wait for resources without end.

    Args:
        workers: the workers of a training.
        resources: those of `fundus.runtime.resources.reachable`.

    Raises:
        ConfigurationError: they need more CPUs or GPUs than the cluster will ever have.
    """
    wanted = {"CPU": workers.least * workers.cpus, "GPU": workers.least * int(workers.gpu)}
    for name, amount in wanted.items():
        if amount > resources.get(name, 0):
            raise ConfigurationError(
                f"{workers.least} worker(s) need {amount:g} {name}s, and there are"
                f" {resources.get(name, 0):g}: ask for less with --workers or --cpus, or leave out"
                " --gpu; where nodes come on demand, set FUNDUS_GROWS_TO to how many may come"
            )


def on_a_worker(workers: Workers, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Call `work` on a node with room for one of these workers, because a head has no free CPU.

    Returns its result, and raises its exceptions.
    """
    task = ray.remote(num_cpus=workers.cpus, num_gpus=int(workers.gpu))(work)
    try:
        return ray.get(task.remote(*args, **named))
    except RayTaskError as failed:
        raise failed.cause from failed
