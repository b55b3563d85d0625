"""The risk of glaucoma of one eye, from its vCDR and the spread of the vCDR, and its referral.

It does not depend on other eyes: the same picture has the same risk in every archive.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RiskModel:
    """A logistic model of the vCDR, in which a ratio counts less the wider its spread is.

    In the labelled pictures the measured vCDR had the mean m and the standard deviation t. An eye's
    vCDR v with the spread s (`vcdr_sd`) is first moved towards m by its reliability (Kelley 1927;
    the posterior mean under normal distributions)

        r = t^2 / (t^2 + s^2),   v' = m + r (v - m),   remaining variance: r s^2

    and its logistic risk is then averaged over the rest (MacKay, Neural Comput 1992;4:720):

        risk = 1 / (1 + exp(-z))
        z = (intercept + slope (v' - m)) / sqrt(1 + pi slope^2 r s^2 / 8)

    Without a spread this is logistic regression. With an unlimited spread every eye has the same
    risk, about the share of glaucoma in the labelled pictures, which all risks assume. The slope is
    never negative, so a larger vCDR never has a smaller risk.
    """

    # The maps share errors, so s is less than the error against experts (root mean squares .030 and
    # .064 on REFUGE). Yet there the cross-validated Brier score is .025 without s, .025 with it and
    # .027 with 2 s. Rims and area in the place of vCDR rank no better: AUC .973 to .984, vCDR .985.

    intercept: float
    """Log-odds of glaucoma at the mean vCDR."""
    slope: float
    """Log-odds per unit of vCDR, at least 0."""
    vcdr_mean: float
    """Mean of the measured vCDR in the labelled pictures."""
    vcdr_deviation: float
    """Standard deviation of the measured vCDR in the labelled pictures, above 0."""
    threshold: float
    """Risk from which an eye is referable, above 0 and at most 1."""
    specificity: float
    """Share of the labelled healthy eyes that had to stay below the threshold, in (0, 1)."""
    healthy: int
    """Number of labelled pictures without glaucoma."""
    glaucoma: int
    """Number of labelled pictures with glaucoma."""
    set: str
    """Name of the labelled set."""
    digest: str
    """SHA-256 (hexadecimal) of the labelled set."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Figures of cross-validation on the labelled set, as values for JSON."""

    def __post_init__(self) -> None:
        numbers = (self.intercept, self.slope, self.vcdr_mean, self.vcdr_deviation)
        if not np.isfinite(numbers).all():
            raise ValueError(f"a risk model has finite coefficients, not {numbers}")
        if self.slope < 0 or self.vcdr_deviation <= 0:
            raise ValueError("a risk model has a slope of at least 0 and a deviation above 0")
        if not (0 < self.threshold <= 1 and 0 < self.specificity < 1):
            raise ValueError("a risk model has a threshold in (0, 1] and a specificity in (0, 1)")

    def risk(self, vcdr: float | None, vcdr_sd: float | None) -> float | None:
        """Risk of glaucoma in [0, 1]; None if the vCDR or its spread is None."""
        if vcdr is None or vcdr_sd is None:
            return None
        parameters = (self.intercept, self.slope, self.vcdr_mean, self.vcdr_deviation)
        return float(logistic(log_odds(np.array(vcdr), np.array(vcdr_sd), *parameters)))

    def referable(self, risk: float | None) -> bool | None:
        """Whether a risk reaches the referral threshold; None without a risk."""
        return None if risk is None else risk >= self.threshold


def log_odds(
    vcdr: np.ndarray,
    vcdr_sd: np.ndarray,
    intercept: float,
    slope: float,
    vcdr_mean: float,
    vcdr_deviation: float,
) -> np.ndarray:
    """z of `RiskModel`'s formula for eyes, (...,) float each."""
    reliability = 1 / (1 + (vcdr_sd / vcdr_deviation) ** 2)
    shift = slope * reliability * (vcdr - vcdr_mean)
    left_over = slope**2 * reliability * vcdr_sd**2
    return (intercept + shift) / np.sqrt(1 + np.pi / 8 * left_over)


def logistic(log_odds: np.ndarray) -> np.ndarray:
    """Log-odds as probabilities; never overflows."""
    return (1 + np.tanh(log_odds / 2)) / 2


def referral_threshold(healthy: np.ndarray, specificity: float) -> float:
    """The threshold in (0, 1] such that at least this share of the healthy eyes' risks is below it.

    It is half-way between the last risk that has to be below and the next larger one (1 if there is
    none), so that rounding does not matter.
    """
    ordered = np.sort(healthy)
    last = ordered[math.ceil(specificity * len(ordered) - 1e-9) - 1]
    above = ordered[ordered > last]
    return float((last + (above[0] if len(above) else 1.0)) / 2)
