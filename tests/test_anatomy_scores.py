import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fundus.anatomy import scores

pictures = arrays(bool, (4, 5))
measures = st.floats(-1, 1, allow_subnormal=False)


def test_dice_matches_hand_calculation():
    truth = np.array([[1, 1, 1, 0]], bool)
    assert scores.dice(np.array([[0, 1, 1, 1]], bool), truth) == 2 * 2 / (3 + 3)
    assert scores.dice(np.zeros_like(truth), truth) == 0
    assert scores.dice(np.zeros_like(truth), np.zeros_like(truth)) is None
    with pytest.raises(ValueError, match="cannot compare"):
        scores.dice(truth, truth.T)


@given(pictures, pictures)
def test_dice_is_symmetric_bounded_and_one_only_for_equal_masks(one, other):
    value = scores.dice(one, other)
    assert value == scores.dice(other, one)
    if one.any() or other.any():
        assert 0 <= value <= 1
        assert (value == 1) == np.array_equal(one, other)


def test_vcdr_error_is_signed_and_undefined_if_either_vcdr_is():
    assert scores.vcdr_error(0.5, 0.75) == -0.25
    assert scores.vcdr_error(None, 0.7) is None
    assert scores.vcdr_error(0.7, None) is None


def test_auc_counts_ties_as_half():
    # pairs of a positive (.8, .5) and a negative (.5, .2, .9): wins 1 1 0, then a tie, 1, 0
    labels = np.array([1, 1, 0, 0, 0], bool)
    risks = np.array([0.8, 0.5, 0.5, 0.2, 0.9])
    assert scores.auc(labels, risks) == pytest.approx((2 + 1.5) / 6)
    assert scores.auc(labels[:2], risks[:2]) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
def test_auc_is_the_share_of_correctly_ordered_pairs(pairs):
    positives = [risk for ill, risk in pairs if ill]
    negatives = [risk for ill, risk in pairs if not ill]
    wins = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    value = scores.auc(*np.array(pairs).T)
    assert value == (pytest.approx(np.mean(wins)) if wins else None)


@settings(max_examples=25, deadline=None)
@given(st.lists(measures, min_size=2, max_size=40))
def test_the_interval_contains_the_mean(values):
    summary = scores.summarise_mean(values)
    assert summary.low - 1e-12 <= summary.value <= summary.high + 1e-12
    assert summary.count == len(values)


def test_the_interval_of_a_mean_is_about_two_standard_errors_each_way():
    values = np.random.default_rng(5).normal(0.8, 0.1, 400)
    summary = scores.summarise_mean(values.tolist())
    assert summary.high - summary.low == pytest.approx(2 * 1.96 * 0.1 / 20, rel=0.1)
    assert summary == scores.summarise_mean(values.tolist())


def test_undefined_values_are_left_out_of_the_mean():
    summary = scores.summarise_mean([0.5, None, 0.7])
    assert (summary.value, summary.count) == (0.6, 2)
    assert scores.summarise_mean([None]) == scores.Summary(None, None, None, 0)
    assert scores.summarise_mean([0.5]) == scores.Summary(0.5, None, None, 1)


def test_auc_is_taken_over_eyes_with_label_and_score():
    summary = scores.summarise_auc([True, False, None, True], [0.8, 0.4, 0.9, None])
    assert (summary.value, summary.count) == (1, 2)
    assert scores.summarise_auc([True, True], [0.8, 0.4]) == scores.Summary(None, None, None, 2)


def test_brier_score_is_taken_over_eyes_with_label_and_risk():
    summary = scores.summarise_brier([True, False, None, False], [0.8, 0.4, 0.9, None])
    assert (summary.value, summary.count) == (pytest.approx((0.04 + 0.16) / 2), 2)
    assert scores.summarise_brier([], []) == scores.Summary(None, None, None, 0)


def test_the_interval_of_a_full_share_has_a_lower_end_below_1():
    """The lower end of Wilson's interval for 10 of 10 is 10 / (10 + 1.96^2)."""
    summary = scores.summarise_share([True] * 10)
    assert (summary.value, summary.high) == (1, 1)
    assert summary.low == pytest.approx(10 / (10 + 1.96**2), abs=1e-4)
    assert scores.summarise_share([]) == scores.Summary(None, None, None, 0)
