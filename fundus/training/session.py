"""How a training job meets Ray: its arguments, and a local Ray where no cluster is given."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from fundus.training.loop import Workers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say where a training runs."""
    parser.add_argument("--workers", type=int, default=1, help="data-parallel workers")
    parser.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    parser.add_argument("--cpus", type=float, default=1, help="CPUs for each worker")
    parser.add_argument("--storage", type=Path, default=Path("runs"), help="where checkpoints lie")


def workers(given: argparse.Namespace) -> Workers:
    """The workers that the arguments ask for."""
    return Workers(count=given.workers, gpu=given.gpu, cpus=given.cpus)


@contextmanager
def ray_session() -> Iterator[None]:
    """A running Ray: the cluster that the environment names, or one on this machine, closed after.

    A Ray that is running already in this process is used and left running.
    """
    if ray.is_initialized():
        yield
        return
    # Without the dashboard (on 127.0.0.1 alone) Ray Train logs a failed query each second.
    ray.init(log_to_driver=True)
    try:
        yield
    finally:
        ray.shutdown()
