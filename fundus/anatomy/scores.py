"""Agreement of masks, ratios and risks with those of experts.

Undefined values are None. Every mean comes with its number of eyes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """One statistic over eyes."""

    value: float | None
    """The statistic; None if it is undefined in all eyes."""
    low: float | None
    """Lower end of the 95 % bootstrap interval; None if resampling is meaningless."""
    high: float | None
    """Upper end of the interval."""
    count: int
    """Number of eyes in which the statistic is defined."""


def dice(predicted: np.ndarray, truth: np.ndarray) -> float | None:
    """Dice coefficient `2 |A and B| / (|A| + |B|)` of two HW bool pictures (Dice 1945; REFUGE).

    For the disc pass the disc with its cup (`labels.disc_of`), as REFUGE does. None where both are
    empty; 0 where one is. Shapes that differ raise ValueError.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"cannot compare {predicted.shape} pixels with {truth.shape}")
    total = np.count_nonzero(predicted) + np.count_nonzero(truth)
    return float(2 * np.count_nonzero(predicted & truth) / total) if total else None


def vcdr_error(predicted: float | None, truth: float | None) -> float | None:
    """Predicted minus true vCDR; None where either is undefined.

    Its mean is the bias (negative: cups drawn too small), the mean of its size is the vCDR MAE.
    """
    return None if predicted is None or truth is None else predicted - truth


def auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve: how often a positive outranks a negative, ties counted half.

    labels: (N,) bool, True with the disease; scores: (N,) float, higher is more suspect. The
    Mann-Whitney statistic of Hanley and McNeil (Radiology 1982;143:29). None if a class is missing.
    """
    positive = np.asarray(labels, bool)
    positives = np.count_nonzero(positive)
    negatives = positive.size - positives
    if not positives or not negatives:
        return None
    from scipy.stats import rankdata  # half a second, which most processes need not spend

    rank_sum = rankdata(scores)[positive].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def brier(labels: np.ndarray, risks: np.ndarray) -> float | None:
    """Mean squared difference between risk and label (Brier, Mon Weather Rev 1950;78:1).

    labels: (N,) bool; risks: (N,) in [0, 1]. 0 is best; the share p of positives, given to every
    eye, scores p (1 - p). None without eyes.
    """
    return float(np.mean((risks - np.asarray(labels, bool)) ** 2)) if len(labels) else None


def interval(
    statistic: Callable[..., float | None],
    *columns: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of `statistic(*columns)` (Efron 1979).

    columns: one or more (N,) arrays with one entry per eye; eyes are drawn with replacement, and
    all columns together. Deterministic by seed. Resamples where the statistic is None (an AUC whose
    draw lacks a class) are left out. None with fewer than two eyes or where every resample is left
    out.
    """
    eyes = len(columns[0])
    if eyes < 2:
        return None
    draws = np.random.default_rng(seed).integers(eyes, size=(resamples, eyes))
    values = [statistic(*(column[draw] for column in columns)) for draw in draws]
    defined = [value for value in values if value is not None]
    if not defined:
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def summarise_mean(values: Sequence[float | None]) -> Summary:
    """The mean of the defined values, its interval and their count."""
    defined = np.array([value for value in values if value is not None])
    return _summary(lambda column: float(column.mean()) if column.size else None, defined)


def summarise_auc(labels: Sequence[bool | None], scores: Sequence[float | None]) -> Summary:
    """AUC over the eyes that have both a label and a score, its interval and their count."""
    return _summary(auc, *_both(labels, scores))


def summarise_brier(labels: Sequence[bool | None], risks: Sequence[float | None]) -> Summary:
    """Brier score over the eyes that have both a label and a risk, its interval, their count."""
    return _summary(brier, *_both(labels, risks))


def summarise_share(hits: Sequence[bool]) -> Summary:
    """The share of hits, and Wilson's interval (J Am Stat Assoc 1927;22:209).

    A bootstrap would call a share of 0 or 1 certain, however few the eyes.
    """
    if not len(hits):
        return Summary(None, None, None, 0)
    from scipy.stats import binomtest

    ends = binomtest(int(np.sum(hits)), len(hits)).proportion_ci(CONFIDENCE, "wilson")
    return Summary(float(np.mean(hits)), float(ends.low), float(ends.high), len(hits))


def _both(
    labels: Sequence[bool | None], scores: Sequence[float | None]
) -> tuple[np.ndarray, np.ndarray]:
    pairs = [
        (label, score)
        for label, score in zip(labels, scores, strict=True)
        if label is not None and score is not None
    ]
    return (
        np.array([label for label, _ in pairs], bool),
        np.array([score for _, score in pairs], float),
    )


def _summary(statistic: Callable[..., float | None], *columns: np.ndarray) -> Summary:
    value = statistic(*columns)
    low, high = (value is not None and interval(statistic, *columns)) or (None, None)
    return Summary(value, low, high, len(columns[0]))
