"""Augmented batches of an epoch, made in processes beside the training where that pays."""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from fundus.models.engine import threads
from fundus.training.loop import seed_generators

P = TypeVar("P")
B = TypeVar("B")


def loaded(
    plans: Sequence[P],
    make: Callable[[P], B],
    *seed: int,
    processes: int | None = None,
) -> Iterable[B]:
    """Make one batch per plan, in order.

    Each batch draws from a generator of its own, so that it is the same for any number of
    processes.

    Args:
        plans: what each batch is made of, for example indices.
        make: makes a batch, of tensors, from its plan; draws from torch's global generator.
        seed: numbers that determine the draws, with the place of the batch.
        processes: that make batches ahead of the training; None for the CPUs that this worker has
            beside the one that trains, if it trains on a GPU, else 0. Not run on a GPU yet.
    """
    on_gpu = torch.cuda.is_available()
    if processes is None:
        processes = threads() - 1 if on_gpu else 0
    return DataLoader(
        _Seeded(plans, make, seed),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=processes,
        pin_memory=on_gpu,
    )


class _Seeded(Dataset, Generic[P, B]):
    def __init__(self, plans: Sequence[P], make: Callable[[P], B], seed: tuple[int, ...]) -> None:
        self.plans, self.make, self.seed = plans, make, seed

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, place: int) -> B:
        with torch.random.fork_rng(devices=()):
            seed_generators(*self.seed, place)
            return self.make(self.plans[place])


def _as_it_is(batch: B) -> B:
    return batch
