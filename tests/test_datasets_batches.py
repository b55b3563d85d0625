"""Batches show every picture in each epoch, and do not depend on the number of ranks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundus.datasets import batches
from fundus.training.source import sampling_weights


@given(count=st.integers(1, 60), size=st.integers(1, 8), world=st.integers(1, 4))
def test_an_epoch_shows_every_picture_and_ranks_step_together(
    count: int, size: int, world: int
) -> None:
    drawn = [
        list(batches.batches(np.ones(count), size, seed=1, epoch=2, rank=rank, world=world))
        for rank in range(world)
    ]
    assert {len(steps) for steps in drawn} == {batches.steps_per_epoch(count, size, world)}
    shown = np.concatenate([b for steps in drawn for b in steps])
    assert set(shown) == set(range(count))
    times = np.bincount(shown)
    assert times.max() - times.min() <= 1, "only the last batch wraps round"
    if size >= world:
        alone = list(batches.batches(np.ones(count), size, seed=1, epoch=2))
        together = [np.concatenate(parts) for parts in zip(*drawn, strict=True)]
        assert [set(b) for b in together] == [set(b) for b in alone], "batches depend on ranks"


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(
            list(batches.batches(np.ones(50), 5, seed=seed, epoch=epoch))
        ).tolist()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1) != order(2, 1)


def test_a_balanced_source_shows_rare_cup_sizes_as_often_as_common_ones() -> None:
    vcdr = np.array([0.45] * 95 + [0.85] * 5)
    weights = sampling_weights(vcdr, balance=True)
    assert weights[vcdr > 0.8].sum() == pytest.approx(weights[vcdr < 0.8].sum())
    drawn = np.concatenate(
        [b for e in range(40) for b in batches.batches(weights, 10, seed=0, epoch=e)]
    )
    assert (vcdr[drawn] > 0.8).mean() == pytest.approx(0.5, abs=0.03)


def test_an_unbalanced_source_is_shown_as_it_is() -> None:
    assert np.ptp(sampling_weights(np.array([0.2, np.nan, 0.9]), balance=False)) == 0
