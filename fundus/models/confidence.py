"""Confidence that means something: a peak in [0, 1] turned into the share of right answers.

Platt's logistic (Advances in Large Margin Classifiers 1999): of all answers given with confidence
p, about a share p is right.
"""

import numpy as np
import scipy.optimize
from scipy.special import expit, logit

Calibration = tuple[float, float]
"""Slope and offset on the logit of the peak."""

SURE = 1e-4
"""A peak nearer to 0 or 1 says no more: there the logit is rounding."""


def calibrated(peak: float, calibration: Calibration) -> float:
    """The confidence, in (0, 1), of an answer whose peak, in [0, 1], is `peak`."""
    slope, offset = calibration
    return float(expit(slope * logit(np.clip(peak, SURE, 1 - SURE)) + offset))


def fit(peaks: np.ndarray, right: np.ndarray) -> Calibration:
    """The slope (0 or more) and offset that make (N,) peaks in [0, 1] most likely by (N,) bool.

    Targets are Platt's (n + 1) / (n + 2) and 1 / (n + 2) rather than 1 and 0: peaks that separate n
    right answers from the wrong ones without an error do not give certainty.
    """
    rights = np.count_nonzero(right)
    wrongs = len(right) - rights
    target = np.where(right, (rights + 1) / (rights + 2), 1 / (wrongs + 2))
    level = logit(np.clip(peaks, SURE, 1 - SURE))

    def loss(parameters: np.ndarray) -> float:
        score = parameters[0] * level + parameters[1]
        return float(np.mean(np.logaddexp(0, score) - target * score))

    found = scipy.optimize.minimize(loss, np.array([1.0, 0.0]), bounds=[(0, None), (None, None)])
    return float(found.x[0]), float(found.x[1])
