"""Batches are made ahead of the training, and do not depend on who makes them."""

import os

import pytest
import torch

from fundus.training.loading import loaded

PLANS = [3, 1, 2, 5]


def drawn(plan: int) -> tuple[torch.Tensor, tuple[str, ...], int]:
    return torch.rand(plan), ("set",) * plan, os.getpid()


def numbers(*seed: int, processes: int = 0) -> list[list[float]]:
    return [batch.tolist() for batch, *_ in loaded(PLANS, drawn, *seed, processes=processes)]


@pytest.mark.parametrize("processes", [1, 3])
def test_batches_are_the_same_for_any_number_of_processes(processes: int) -> None:
    assert numbers(7, 0, processes=processes) == numbers(7, 0)
    assert [len(one) for one in numbers(7, 0)] == PLANS
    makers = {pid for *_, pid in loaded(PLANS, drawn, 7, processes=processes)}
    assert os.getpid() not in makers and len(makers) == processes


def test_each_seed_and_each_batch_has_draws_of_its_own() -> None:
    firsts = [one[0] for seed in ((7, 0), (7, 1), (8, 0)) for one in numbers(*seed)]
    assert len(set(firsts)) == len(firsts)


def test_the_generator_of_the_training_is_left_alone() -> None:
    """Dropout draws from it."""
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    loaded(PLANS, drawn, 7).dataset[0]  # type: ignore[attr-defined]
    assert torch.equal(torch.rand(4), expected)


def test_the_names_of_the_sets_stay_tuples() -> None:
    assert next(iter(loaded(PLANS, drawn, 7)))[1] == ("set",) * 3
