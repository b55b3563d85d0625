"""A site's own convention: disc and cup thresholds that are fitted to a few labelled pictures.

Experts of different hospitals draw discs and cups by different conventions. One threshold per
structure is a single number, to which twenty pictures suffice. It changes only if cross-validation
shows a gain whose 95 % interval is above zero.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from fundus.anatomy import biomarkers, scores
from fundus.anatomy.labels import cup_of, disc_of
from fundus.anatomy.scores import Summary
from fundus.datasets.samples import LabelledSet
from fundus.errors import ConfigurationError
from fundus.field import roi
from fundus.models.predictor import Predictor
from fundus.models.thresholds import Thresholds

log = logging.getLogger(__name__)

FEWEST = 10
"""Least number of pictures with disc and cup."""
FOLDS = 10
GRID = tuple(float(round(1 / (1 + np.exp(-z)), 3)) for z in np.arange(-3.5, 3.75, 0.5))
"""Thresholds to try, evenly spaced in log-odds, besides the bundle's own."""


@dataclass(frozen=True)
class Eyes:
    """The networks' maps and the experts' masks of N eyes."""

    maps: tuple[np.ndarray, ...]
    """(2, S, S) float16 mean probabilities per eye, disc then cup."""
    truth: tuple[np.ndarray, ...]
    """(S, S) uint8 {0, 1, 2} per eye, in the same ROI."""


@dataclass(frozen=True)
class Structure:
    """The threshold of one structure, with the figures of cross-validation."""

    name: str
    before: float
    after: float
    """As `before` if there is no gain."""
    dice_before: Summary
    dice_after: Summary
    """Dice of eyes to which the threshold was not fitted."""
    gain: Summary
    """Mean decrease of an eye's loss: 1 - Dice, for the cup plus the vCDR's absolute error."""

    @property
    def helps(self) -> bool:
        """Whether the interval of the gain is above zero."""
        return self.gain.low is not None and self.gain.low > 0


@dataclass(frozen=True)
class Report:
    """Both structures, and MAE and bias of the vCDR before and after, cross-validated."""

    eyes: int
    disc: Structure
    cup: Structure
    mae_before: Summary
    mae_after: Summary
    bias_before: Summary
    bias_after: Summary

    @property
    def helps(self) -> bool:
        """Whether a threshold changes."""
        return self.disc.helps or self.cup.helps


def look(labelled: LabelledSet, predictor: Predictor, *, precropped: bool) -> Eyes:
    """Segment each picture that has disc and cup labels, as screening does.

    Pictures without a detected disc are left out.

    Raises:
        ConfigurationError: fewer than `FEWEST` pictures remain, or a file cannot be read.
    """
    samples = [sample for sample in labelled.samples if "cup" in sample.structures]
    maps, truth = [], []
    for number, sample in enumerate(samples, start=1):
        try:
            image, mask = sample.read_image(), sample.read_mask()
        except (ValueError, OSError) as error:
            raise ConfigurationError(str(error)) from error
        where = predictor.place(image, precropped=precropped).roi
        if where and mask is not None:
            maps.append(predictor.segment_roi(image, where).mean(axis=0).astype(np.float16))
            truth.append(roi.crop_mask(mask, where, predictor.side))
        if number % 10 == 0 or number == len(samples):
            log.info("%s: %d of %d eyes", labelled.name, number, len(samples))
    if len(maps) < FEWEST:
        raise ConfigurationError(
            f"{labelled.name}: the disc was found in {len(maps)} pictures with disc and cup labels;"
            f" give at least {FEWEST}"
        )
    return Eyes(tuple(maps), tuple(truth))


class Table:
    """Losses and measures of eyes at any thresholds; masks are cached per threshold."""

    def __init__(self, eyes: Eyes, thresholds: Thresholds) -> None:
        self.eyes, self.thresholds = eyes, thresholds
        self.at = cache(self._at)

    def __len__(self) -> int:
        return len(self.eyes.maps)

    def _at(self, disc: float, cup: float) -> np.ndarray:
        """(N, 3): disc Dice, cup Dice and vCDR error at two thresholds; NaN where undefined."""
        drawer = replace(self.thresholds, disc=disc, cup=cup)
        return np.array(
            [
                _compared(drawer.draw(maps.astype(np.float32)).mask, truth)
                for maps, truth in zip(self.eyes.maps, self.eyes.truth, strict=True)
            ]
        )

    def disc_loss(self, disc: float) -> np.ndarray:
        """(N,): 1 - Dice of the disc."""
        return 1 - self.at(disc, self.thresholds.cup)[:, 0]

    def cup_loss(self, disc: float, cup: float) -> np.ndarray:
        """(N,): 1 - Dice of the cup plus the vCDR's absolute error, 1 where it is undefined."""
        found = self.at(disc, cup)
        return 1 - found[:, 1] + np.nan_to_num(np.abs(found[:, 2]), nan=1.0)


def calibrate(table: Table, chosen: np.ndarray | None = None) -> tuple[Thresholds, Report]:
    """Fit the thresholds to the chosen eyes (indices; None for all), each only if it helps.

    The threshold of the disc is fitted first, because the cup is clipped to the disc.
    """
    eyes = np.arange(len(table)) if chosen is None else np.asarray(chosen)
    now = table.thresholds
    disc, discs = _set(lambda t: table.disc_loss(t)[eyes], now.disc)
    cup, cups = _set(lambda t: table.cup_loss(disc, t)[eyes], now.cup)
    before = table.at(now.disc, now.cup)[eyes]
    after = np.array([table.at(disc, t)[i] for i, t in zip(eyes, cups, strict=True)])
    disc_after = np.array([table.at(t, now.cup)[i, 0] for i, t in zip(eyes, discs, strict=True)])
    before_cup = table.at(disc, now.cup)[eyes]
    report = Report(
        eyes=len(eyes),
        disc=Structure(
            "disc",
            now.disc,
            disc,
            _mean(before[:, 0]),
            _mean(disc_after),
            _mean(disc_after - before[:, 0]),
        ),
        cup=Structure(
            "cup",
            now.cup,
            cup,
            _mean(before_cup[:, 1]),
            _mean(after[:, 1]),
            _mean(_cup_losses(before_cup) - _cup_losses(after)),
        ),
        mae_before=_mean(np.abs(before[:, 2])),
        mae_after=_mean(np.abs(after[:, 2])),
        bias_before=_mean(before[:, 2]),
        bias_after=_mean(after[:, 2]),
    )
    return replace(now, disc=disc, cup=cup), report


def _set(loss: Callable[[float], np.ndarray], now: float) -> tuple[float, np.ndarray]:
    """The threshold with the least mean loss, or `now` if it does not help; and (N,) the threshold
    of each eye in cross-validation, fitted to the folds without the eye.
    """
    grid = sorted({*GRID, now}, key=lambda t: abs(_log_odds(t) - _log_odds(now)))
    losses = np.stack([loss(t) for t in grid])  # nearest to `now` first, so ties change nothing
    count = losses.shape[1]
    fold = np.random.default_rng(0).permutation(count) % min(FOLDS, count)
    best = np.array([losses[:, fold != held].mean(axis=1).argmin() for held in fold])
    gain = losses[0] - losses[best, np.arange(count)]
    ends = scores.summarise_mean(gain.tolist())
    helps = ends.low is not None and ends.low > 0
    after = grid[int(losses.mean(axis=1).argmin())] if helps else now
    return after, np.array(grid)[best] if helps else np.full(count, now)


def _cup_losses(found: np.ndarray) -> np.ndarray:
    return 1 - found[:, 1] + np.nan_to_num(np.abs(found[:, 2]), nan=1.0)


def _compared(drawn: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    error = scores.vcdr_error(biomarkers.vcdr(drawn), biomarkers.vcdr(truth))
    return (
        scores.dice(disc_of(drawn), disc_of(truth)) or 0.0,
        scores.dice(cup_of(drawn), cup_of(truth)) or 0.0,
        np.nan if error is None else error,
    )


def _log_odds(share: float) -> float:
    return float(np.log(share / (1 - share)))


def _mean(values: Sequence[float] | np.ndarray) -> Summary:
    return scores.summarise_mean([float(v) if np.isfinite(v) else None for v in values])
