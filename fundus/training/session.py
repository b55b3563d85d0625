"""How a training job meets Ray: its arguments, a local Ray where no cluster is given, and work that
is done on a worker instead of the head."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import ray
from ray.exceptions import RayTaskError

from fundus.training.loop import Workers

P = ParamSpec("P")
T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say where a training runs."""
    parser.add_argument("--workers", default="1", help="data-parallel workers: 4, or 1-4")
    parser.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    parser.add_argument("--cpus", type=float, default=1, help="CPUs for each worker")
    parser.add_argument("--storage", default="runs", help="folder or s3:// place of checkpoints")


def workers(given: argparse.Namespace) -> Workers:
    """The workers that the arguments ask for; ValueError in one sentence."""
    least, dash, most = given.workers.partition("-")
    if not (least.isdecimal() and (most.isdecimal() if dash else True)):
        raise ValueError(f"--workers {given.workers}: give a number, or a range as 1-4")
    return Workers(int(least), int(most or least), gpu=given.gpu, cpus=given.cpus)


def check_room(workers: Workers, resources: Mapping[str, float]) -> None:
    """ValueError where the fewest workers want more CPUs or GPUs than there are or will ever be.

    Without it such a training waits for them without end. `resources` are those of
    `fundus.screening.placement.reachable`.
    """
    wanted = {"CPU": workers.least * workers.cpus, "GPU": workers.least * int(workers.gpu)}
    for name, amount in wanted.items():
        if amount > resources.get(name, 0):
            raise ValueError(
                f"{workers.least} worker(s) want {amount:g} {name}s, and there are"
                f" {resources.get(name, 0):g}: ask for less by --workers, --cpus or without --gpu;"
                " where nodes come on demand, say in FUNDUS_GROWS_TO how many may come"
            )


@contextmanager
def ray_session(**options: Any) -> Iterator[None]:
    """A running Ray: the cluster that the environment names, or one on this machine, closed after.

    A Ray that is running already in this process is used and left running. `options` are those of
    `ray.init`.
    """
    if ray.is_initialized():
        yield
        return
    # Without the dashboard (on 127.0.0.1 alone) Ray Train logs a failed query each second.
    ray.init(log_to_driver=True, **options)
    try:
        yield
    finally:
        ray.shutdown()


def on_a_worker(workers: Workers, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """What `work` returns, done where one of these workers would fit: a cluster's head has no CPU
    to spare. What it raises is raised here.
    """
    task = ray.remote(num_cpus=workers.cpus, num_gpus=int(workers.gpu))(work)
    try:
        return ray.get(task.remote(*given, **named))
    except RayTaskError as failed:
        raise failed.cause from failed
