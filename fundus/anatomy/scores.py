"""How well masks, ratios and risks agree with the experts'. Undefined is None, means say counts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """One statistic over eyes."""

    value: float | None
    """The statistic; None where no eye defines it."""
    low: float | None
    """Lower end of the 95 % bootstrap interval; None where resampling is meaningless."""
    high: float | None
    """Its upper end."""
    count: int
    """The eyes that the statistic is taken over: those in which it is defined."""


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
    Mann-Whitney statistic of Hanley and McNeil (Radiology 1982;143:29). None where a class lacks.
    """
    positive = np.asarray(labels, bool)
    positives = np.count_nonzero(positive)
    negatives = positive.size - positives
    if not positives or not negatives:
        return None
    rank_sum = rankdata(scores)[positive].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def interval(
    statistic: Callable[..., float | None],
    *columns: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of `statistic(*columns)` (Efron 1979).

    columns: one or more (N,) arrays, one entry an eye; eyes are drawn with replacement, the columns
    together. Deterministic by seed. Resamples where the statistic is None (an AUC whose draw lacks
    a class) are left out; None with fewer than two eyes or where every resample is left out.
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
    pairs = [
        (label, score)
        for label, score in zip(labels, scores, strict=True)
        if label is not None and score is not None
    ]
    return _summary(
        auc,
        np.array([label for label, _ in pairs], bool),
        np.array([score for _, score in pairs], float),
    )


def _summary(statistic: Callable[..., float | None], *columns: np.ndarray) -> Summary:
    value = statistic(*columns)
    low, high = (value is not None and interval(statistic, *columns)) or (None, None)
    return Summary(value, low, high, len(columns[0]))
