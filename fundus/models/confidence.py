"""Calibrated confidence: converts a peak in [0, 1] into the expected share of right detections.

Platt's logistic (Advances in Large Margin Classifiers 1999): of all detections with confidence p,
about a share p is right.
"""

import numpy as np
from scipy.special import expit, logit

Calibration = tuple[float, float]
"""Slope and offset on the logit of the peak."""

SURE = 1e-4
"""Peaks are clipped to this distance from 0 and 1, beyond which the logit is rounding error."""


def calibrated(peak: float, calibration: Calibration) -> float:
    """The confidence, in (0, 1), of a detection whose peak, in [0, 1], is `peak`."""
    slope, offset = calibration
    return float(expit(slope * logit(np.clip(peak, SURE, 1 - SURE)) + offset))


def fit(peaks: np.ndarray, right: np.ndarray) -> Calibration:
    """Fit the slope (0 or more) and offset by maximum likelihood.

    The targets are Platt's (n + 1) / (n + 2) and 1 / (n + 2) instead of 1 and 0, so that peaks
    which separate n right detections from the wrong ones without an error do not give certainty.

    Args:
        peaks: (N,) in [0, 1].
        right: (N,) bool, whether each detection is right.
    """
    rights = np.count_nonzero(right)
    wrongs = len(right) - rights
    target = np.where(right, (rights + 1) / (rights + 2), 1 / (wrongs + 2))
    level = logit(np.clip(peaks, SURE, 1 - SURE))

    def loss(parameters: np.ndarray) -> float:
        score = parameters[0] * level + parameters[1]
        return float(np.mean(np.logaddexp(0, score) - target * score))

    import scipy.optimize  # half a second, which the processes that screen need not spend

    found = scipy.optimize.minimize(loss, np.array([1.0, 0.0]), bounds=[(0, None), (None, None)])
    return float(found.x[0]), float(found.x[1])
