"""Risk: the formula calculated by hand, properties that hold for any eye, and the threshold."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundus.anatomy.risk import RiskModel, logistic, referral_threshold


def model(**other):
    law = {"intercept": -3.0, "slope": 20.0, "vcdr_mean": 0.5, "vcdr_deviation": 0.1}
    about = {"healthy": 90, "glaucoma": 10, "set": "drawn", "digest": "0"}
    return RiskModel(**{**law, "threshold": 0.25, "specificity": 0.95, **about, **other})


def log_odds(risk):
    return math.log(risk / (1 - risk))


def test_without_spread_the_risk_is_logistic_regression():
    assert model().risk(0.6, 0.0) == pytest.approx(1 / (1 + math.exp(3 - 20 * 0.1)))


def test_a_spread_as_wide_as_the_population_halves_the_reliability():
    """The reliability is 1/2: half of 0.1 above the mean, and a variance of 0.1^2 / 2 remains."""
    expected = (-3 + 20 * 0.05) / math.sqrt(1 + math.pi / 8 * 400 * 0.005)
    assert log_odds(model().risk(0.6, 0.1)) == pytest.approx(expected)


ratios, spreads = st.floats(0.01, 1), st.floats(0, 2)


@settings(deadline=None)
@given(st.tuples(ratios, ratios), spreads, st.floats(0, 100), st.floats(-10, 10))
def test_a_larger_vcdr_never_has_a_smaller_risk(pair, spread, slope, intercept):
    some = model(slope=slope, intercept=intercept)
    low, high = (some.risk(vcdr, spread) for vcdr in sorted(pair))
    assert 0 <= low <= high <= 1


@settings(deadline=None)
@given(st.tuples(ratios, ratios), st.tuples(spreads, spreads))
def test_a_wider_spread_brings_the_risks_of_two_vcdrs_closer(vcdrs, pair):
    low, high = sorted(vcdrs)
    narrow, wide = (
        log_odds(model().risk(high, spread)) - log_odds(model().risk(low, spread))
        for spread in sorted(pair)
    )
    assert wide <= narrow + 1e-9


def test_an_immense_spread_gives_the_mean_risk_of_the_population():
    population = np.random.default_rng(0).normal(0.5, 0.1, 100_000)
    share = logistic(-3 + 20 * (population - 0.5)).mean()
    unknown = [model().risk(vcdr, 1e6) for vcdr in (0.1, 0.9)]
    assert unknown == pytest.approx([share, share], abs=0.01)


def test_an_undefined_measure_has_no_risk_and_no_referral():
    assert model().risk(None, None) is None and model().risk(0.5, None) is None
    assert model().referable(None) is None
    assert model().referable(0.25) is True and model().referable(0.2499) is False


@pytest.mark.parametrize(
    "wrong",
    [{"slope": -1.0}, {"vcdr_deviation": 0.0}, {"threshold": 0.0}, {"intercept": math.nan}],
)
def test_an_impossible_model_is_refused(wrong):
    with pytest.raises(ValueError, match="a risk model has"):
        model(**wrong)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1, width=16), min_size=1), st.floats(0.01, 0.99))
def test_the_threshold_is_the_lowest_with_the_stated_specificity(risks, specificity):
    healthy = np.array(risks)
    threshold = referral_threshold(healthy, specificity)
    if healthy.max() < 1:  # eyes at risk 1 are referred whatever the threshold
        assert np.mean(healthy < threshold) >= specificity - 1e-9
    below = healthy[healthy < threshold]
    if below.size:
        assert np.mean(healthy < below.max()) < specificity
