"""Choice and scores of eyes against experts' masks, shared by the accuracy benchmarks."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from fundus.anatomy import biomarkers, scores
from fundus.anatomy.labels import cup_of, disc_of
from fundus.field import roi
from fundus.field.roi import Roi
from fundus.models.thresholds import Thresholds

T = TypeVar("T")
Score = tuple[float, float, float, float]
"""Dice of the disc and of the cup, vCDR, and its error; NaN where undefined."""


def score(maps: np.ndarray, where: Roi, mask: np.ndarray, thresholds: Thresholds) -> Score:
    """Score maps of a ROI in the frame of the expert's mask.

    Args:
        maps: (M, 2, S, S) float probabilities, disc then cup.
        where: the ROI, in pixels of the original frame.
        mask: the expert's, HW uint8 {0 background, 1 rim, 2 cup}.
        thresholds: turn the probabilities into masks.
    """
    drawn = roi.restore(thresholds.draw(maps.mean(axis=0)).mask, where, *mask.shape)
    disc, cup = (scores.dice(of(drawn), of(mask)) or 0.0 for of in (disc_of, cup_of))
    found, true = (
        np.nan if ratio is None else ratio
        for ratio in (biomarkers.vcdr(drawn), biomarkers.vcdr(mask))
    )
    return disc, cup, found, found - true


def spread(samples: Sequence[T], most: int) -> list[T]:
    """Return at most `most` samples, spread evenly over all."""
    chosen = np.unique(np.linspace(0, len(samples) - 1, most).astype(int))
    return [samples[i] for i in chosen]


def summary(found: Sequence[Score]) -> str:
    """Return the mean Dice of disc and cup, and the mean absolute error of the vCDR."""
    disc, cup, _, error = np.array(found).T
    return f"{disc.mean():.4f} / {cup.mean():.4f}, {np.nanmean(np.abs(error)):.4f}"


def ratios(found: Sequence[Score]) -> np.ndarray:
    """Return the vCDR of each eye; NaN where undefined."""
    return np.array(found).T[2]
