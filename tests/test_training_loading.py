"""Batches are made ahead of the training, and do not depend on who makes them."""

import json
import os
import subprocess
import sys

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
    # In a process of its own: this one may run threads of Ray and of S3, and should not be forked.
    command = [sys.executable, __file__, str(processes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["numbers"] == numbers(7, 0)
    assert [len(one) for one in found["numbers"]] == PLANS
    assert found["parent"] not in found["makers"] and len(found["makers"]) == processes


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


if __name__ == "__main__":
    processes = int(sys.argv[1])
    makers = {pid for *_, pid in loaded(PLANS, drawn, 7, processes=processes)}
    found = numbers(7, 0, processes=processes)
    json.dump({"numbers": found, "makers": sorted(makers), "parent": os.getpid()}, sys.stdout)
