"""The gate: an adapted segmenter is published only if checks that need no target label pass.

Everything is measured on the source's validation pictures, which have labels, and on the target's
pictures, which have none.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from fundus.anatomy import biomarkers, scores
from fundus.anatomy.labels import cup_of, disc_of
from fundus.datasets.batches import Crops
from fundus.models.predictor import turns
from fundus.models.thresholds import Thresholds
from fundus.training.source import predict, validation_dice


@dataclass(frozen=True)
class Limits:
    """What an adapted segmenter has to hold."""

    source_margin: float = 0.01
    """Dice on the source's validation pictures may fall by this much, for each structure."""
    least_plausible: float = 0.8
    """Share of target pictures with a plausible disc and cup."""
    least_spread: float = 0.5
    """Spread of vCDR over the target, in source-only's spreads."""
    largest_shift: float = 0.02
    """How far the mean vCDR over the target may move. Without labels nobody knows the bias of
    source-only; an adapted segmenter whose mean stays this near enlarges it by at most this."""


@dataclass(frozen=True)
class Check:
    """One question and its answer."""

    name: str
    source_only: float
    adapted: float
    least: float
    """What the adapted value has to reach."""
    most: float | None = None
    """What the adapted value may not exceed, where there is a bound."""

    @property
    def passed(self) -> bool:
        """NaN, which is what an empty target gives, does not pass."""
        return bool(self.adapted >= self.least and (self.most is None or self.adapted <= self.most))

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        at_most = "" if self.most is None else f", at most {self.most:.4f}"
        return (
            f"{verdict}: {self.name} {self.adapted:.4f}"
            f" (source-only {self.source_only:.4f}, at least {self.least:.4f}{at_most})"
        )


@dataclass(frozen=True)
class Seen:
    """What a segmenter makes of the target, without labels."""

    consistency: float
    """Mean Dice of each turn's masks with those of the mean over all 8 turns, disc and cup."""
    plausible: float
    """Share of pictures whose disc and cup look like a disc and a cup."""
    vcdr_mean: float
    """Mean vCDR over the plausible pictures; NaN without one."""
    vcdr_spread: float
    """Standard deviation of vCDR over the plausible pictures; 0 with fewer than two."""


def judge(
    source_only: nn.Module,
    adapted: nn.Module,
    validation: Crops,
    target: Crops,
    thresholds: Thresholds,
    limits: Limits | None = None,
) -> tuple[Check, ...]:
    """All checks; the adapted segmenter may be published if each has passed."""
    limits = limits or Limits()
    before, after = (validation_dice(net, validation, 16) for net in (source_only, adapted))
    seen, now = (look(net, target, thresholds) for net in (source_only, adapted))
    return (
        *(
            Check(f"source {name[4:]} Dice", dice, after[name], dice - limits.source_margin)
            for name, dice in before.items()
        ),
        Check("target consistency", seen.consistency, now.consistency, seen.consistency),
        Check("plausible shapes", seen.plausible, now.plausible, limits.least_plausible),
        Check(
            "spread of vCDR",
            seen.vcdr_spread,
            now.vcdr_spread,
            max(limits.least_spread * seen.vcdr_spread, 0.01),
        ),
        Check(
            "mean vCDR",
            seen.vcdr_mean,
            now.vcdr_mean,
            seen.vcdr_mean - limits.largest_shift,
            seen.vcdr_mean + limits.largest_shift,
        ),
    )


def look(network: nn.Module, target: Crops, thresholds: Thresholds, size: int = 16) -> Seen:
    """Measure a segmenter on unlabelled crops."""
    agreement: list[float] = []
    vcdr: list[float] = []
    for start in range(0, len(target), size):
        for maps in _turned_maps(network, target.images[start : start + size]):
            mask = thresholds.draw(maps.mean(axis=0)).mask
            agreement += [_agreement(thresholds.draw(one).mask, mask) for one in maps]
            if plausible(mask):
                vcdr.append(biomarkers.vcdr(mask) or 0.0)
    return Seen(
        consistency=float(np.mean(agreement)),
        plausible=len(vcdr) / len(target),
        vcdr_mean=float(np.mean(vcdr)) if vcdr else float("nan"),
        vcdr_spread=float(np.std(vcdr)) if len(vcdr) > 1 else 0.0,
    )


def plausible(mask: np.ndarray) -> bool:
    """Whether a (S, S) mask looks like an optic disc with its cup.

    Both are there, nearly convex (0.9 of the hull's area) and no flatter than 1 : 1.8; the disc
    lies inside the picture and covers 2 to 70 % of it; the cup's centre lies in the disc's middle.
    """
    disc, cup = disc_of(mask), cup_of(mask)
    if not cup.any() or not 0.02 < disc.mean() < 0.7:
        return False
    edge = np.concatenate([disc[0], disc[-1], disc[:, 0], disc[:, -1]])
    if edge.mean() > 0.05:
        return False
    (disc_centre, disc_radius), (cup_centre, _) = (_oval(region) for region in (disc, cup))
    near = np.hypot(*np.subtract(disc_centre, cup_centre)) < 0.5 * disc_radius
    return bool(near and all(_convex_and_round(region) for region in (disc, cup)))


def report(checks: tuple[Check, ...]) -> list[dict[str, Any]]:
    """The checks as JSON-ready values, for the bundle."""
    return [vars(check) | {"passed": check.passed} for check in checks]


def _turned_maps(network: nn.Module, pictures: Tensor) -> np.ndarray:
    """(N, 3, S, S) uint8 -> (N, 8, 2, S, S) probabilities, each turned back."""
    maps = [undo(torch.from_numpy(predict(network, do(pictures)))) for do, undo in turns()]
    return torch.stack(maps, dim=1).numpy()


def _agreement(one: np.ndarray, other: np.ndarray) -> float:
    pairs = ((disc_of(one), disc_of(other)), (cup_of(one), cup_of(other)))
    return float(np.mean([scores.dice(*pair) or 0.0 for pair in pairs]))


def _oval(region: np.ndarray) -> tuple[tuple[float, float], float]:
    """Centre (x, y) and equal-area radius of a region, pixels."""
    rows, columns = np.nonzero(region)
    return (float(columns.mean()), float(rows.mean())), float(np.sqrt(len(rows) / np.pi))


def _convex_and_round(region: np.ndarray) -> bool:
    outlines, _ = cv2.findContours(
        region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    outline = max(outlines, key=cv2.contourArea)
    hull = cv2.contourArea(cv2.convexHull(outline))
    if hull < 16:
        return False
    _, (width, height), _ = cv2.minAreaRect(outline)
    return cv2.contourArea(outline) / hull > 0.9 and max(width, height) < 1.8 * min(width, height)
