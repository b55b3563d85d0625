"""The gate: an adapted segmenter is published only if it passes checks that need no target label.

The checks use the validation pictures of the source, which have labels, and the pictures of the
target, which have none.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from torch import nn

from fundus.anatomy import biomarkers, scores
from fundus.anatomy.labels import cup_of, disc_of
from fundus.datasets.batches import Crops
from fundus.models.thresholds import Thresholds
from fundus.training.source import predict_turned, validation_dice

FEWEST = 2
"""Number of target pictures from which a spread of vCDR is defined. With fewer, none could pass."""


@dataclass(frozen=True)
class Limits:
    """The limits that an adapted segmenter has to meet."""

    source_margin: float = 0.01
    """Largest loss of Dice on the validation pictures of the source, per structure."""
    consistency_margin: float = 0.005
    """Largest loss of consistency over the turns. Adversarial learning loses up to .003 on cameras
    that were left out, where it gains .02 of cup Dice (docs/experiments.md)."""
    least_plausible: float = 0.8
    """Least share of target pictures with a plausible disc and cup."""
    least_spread: float = 0.5
    """Least spread of vCDR over the target, relative to that of source-only."""
    largest_shift: float = 0.02
    """Largest change of the mean vCDR over the target. Without labels the bias of source-only is
    unknown; this limit bounds how much adaptation can add to it."""


@dataclass(frozen=True)
class Check:
    """One figure of both segmenters, and the bounds for that of the adapted one."""

    name: str
    source_only: float
    adapted: float
    least: float
    """Lower bound of the adapted value."""
    most: float | None = None
    """Upper bound of the adapted value; None for no bound."""

    @property
    def passed(self) -> bool:
        """Whether the adapted value is within the bounds; NaN, as of an empty target, is not."""
        return bool(self.adapted >= self.least and (self.most is None or self.adapted <= self.most))

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        at_most = "" if self.most is None else f", at most {self.most:.4f}"
        return (
            f"{verdict}: {self.name} {self.adapted:.4f}"
            f" (source-only {self.source_only:.4f}, at least {self.least:.4f}{at_most})"
        )


@dataclass(frozen=True, eq=False)
class Seen:
    """A segmenter's outlines of the target, and figures that need no labels."""

    masks: np.ndarray
    """(N, S, S) uint8 {0, 1, 2}: the mask of each picture."""
    vcdr: np.ndarray
    """(N,) float: vCDR of each mask, plausible or not; NaN where undefined."""

    consistency: float
    """Mean Dice between the masks of single turns and those of the mean map, over disc and cup."""
    plausible: float
    """Share of pictures with a plausible disc and cup."""
    vcdr_mean: float
    """Mean vCDR over the plausible pictures; NaN without any."""
    vcdr_spread: float
    """Standard deviation of vCDR over the plausible pictures; 0 with fewer than two."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """The gate's checks, and the outlines on which they are based."""

    checks: tuple[Check, ...]
    before: Seen
    """The target by the source-only segmenter."""
    after: Seen
    """The target by the adapted segmenter."""

    @property
    def passed(self) -> bool:
        """Whether the adapted segmenter may be published."""
        return all(check.passed for check in self.checks)


def judge(
    source_only: nn.Module,
    adapted: nn.Module,
    validation: Crops,
    target: Crops,
    thresholds: Thresholds,
    limits: Limits | None = None,
) -> Judgement:
    """Make all checks of an adapted segmenter.

    Args:
        source_only: the segmenter from which adaptation started.
        adapted: the segmenter to judge.
        validation: labelled crops of the source that neither segmenter learned from.
        target: crops of the target; their masks are ignored.
        thresholds: where probability maps become masks.
        limits: None for the defaults.
    """
    limits = limits or Limits()
    before, after = (validation_dice(net, validation, 16) for net in (source_only, adapted))
    seen, now = (look(net, target, thresholds) for net in (source_only, adapted))
    checks = (
        *(
            Check(f"source {name[4:]} Dice", dice, after[name], dice - limits.source_margin)
            for name, dice in before.items()
        ),
        Check(
            "target consistency",
            seen.consistency,
            now.consistency,
            seen.consistency - limits.consistency_margin,
        ),
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
    return Judgement(checks, seen, now)


def look(network: nn.Module, target: Crops, thresholds: Thresholds, size: int = 16) -> Seen:
    """Run a segmenter on unlabelled crops, `size` at a time, and measure its masks."""
    agreement: list[float] = []
    masks: list[np.ndarray] = []
    for start in range(0, len(target), size):
        for maps in predict_turned(network, target.images[start : start + size]):
            mask = thresholds.draw(maps.mean(axis=0)).mask
            agreement += [_agreement(thresholds.draw(one).mask, mask) for one in maps]
            masks.append(mask)
    ratios = np.array([biomarkers.vcdr(mask) for mask in masks], dtype=float)
    vcdr = ratios[[plausible(mask) for mask in masks]]
    return Seen(
        masks=np.stack(masks),
        vcdr=ratios,
        consistency=float(np.mean(agreement)),
        plausible=len(vcdr) / len(target),
        vcdr_mean=float(np.mean(vcdr)) if len(vcdr) else float("nan"),
        vcdr_spread=float(np.std(vcdr)) if len(vcdr) > 1 else 0.0,
    )


def plausible(mask: np.ndarray) -> bool:
    """Whether a (S, S) mask looks like an optic disc with its cup.

    Both exist, are nearly convex (0.9 of the hull's area) and no flatter than 1 : 1.8. The disc is
    inside the picture and covers 2 to 70 % of it. The cup's centre is in the middle of the disc.
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
    """The checks as values that JSON can store, for the bundle."""
    return [vars(check) | {"passed": check.passed} for check in checks]


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
