"""One eye outlined by two segmenters, to find differences without any label."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fundus.anatomy import scores
from fundus.anatomy.labels import cup_of, disc_of


@dataclass(frozen=True, eq=False)
class Pair:
    """One eye as two segmenters outline it. Both masks and the picture show the same ROI."""

    name: str
    before: np.ndarray
    """(S, S) uint8 {0 background, 1 rim, 2 cup}; all 0 if nothing was outlined."""
    after: np.ndarray
    """The mask of the second segmenter, likewise."""
    vcdr: tuple[float | None, float | None]
    """vCDR before and after; None where undefined."""
    picture: np.ndarray | None = None
    """(P, P, 3) uint8 RGB; None if it cannot be shown."""

    @property
    def dice(self) -> tuple[float, float]:
        """Dice of the two discs and of the two cups, 0 to 1; 1 if neither exists."""
        disc, cup = (scores.dice(part(self.before), part(self.after)) for part in (disc_of, cup_of))
        return (1.0 if disc is None else disc, 1.0 if cup is None else cup)

    @property
    def difference(self) -> float:
        """Difference of the outlines: 0 if they are the same, 1 if they share no pixel."""
        return 1 - sum(self.dice) / 2


def differing_most(pairs: Iterable[Pair], most: int) -> list[Pair]:
    """The `most` pairs whose outlines differ most, the largest difference first."""
    return heapq.nlargest(most, pairs, key=lambda pair: pair.difference)
