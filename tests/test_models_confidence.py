"""A calibrated confidence is the share of right answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from fundus.models.confidence import calibrated, fit


@given(slope=st.floats(0.5, 3), offset=st.floats(-3, 3))
def test_a_known_curve_is_recovered(slope: float, offset: float) -> None:
    draw = np.random.default_rng(0)
    level = draw.normal(0, 2, 20_000)
    right = draw.random(20_000) < expit(slope * level + offset)
    assert fit(expit(level), right) == pytest.approx((slope, offset), abs=0.25)


def test_confidence_is_the_share_of_right_answers() -> None:
    """Peaks of an overconfident detector: 0.99 or 0.6, right in 70 % and in 20 %."""
    peaks = np.repeat([0.99, 0.6], 1000)
    right = np.concatenate([np.arange(1000) < 700, np.arange(1000) < 200])
    curve = fit(peaks, right)
    assert calibrated(0.99, curve) == pytest.approx(0.7, abs=0.01)
    assert calibrated(0.6, curve) == pytest.approx(0.2, abs=0.01)


def test_few_answers_give_no_certainty() -> None:
    peaks, right = np.array([0.9, 0.9, 0.9, 0.1]), np.array([True, True, True, False])
    curve = fit(peaks, right)
    assert calibrated(0.9, curve) == pytest.approx(4 / 5, abs=0.01)
    assert calibrated(0.1, curve) == pytest.approx(1 / 3, abs=0.01)


def test_a_detector_that_is_never_right_is_never_believed() -> None:
    assert calibrated(1.0, fit(np.linspace(0, 1, 50), np.zeros(50, bool))) < 0.1
