from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundus.anatomy.biomarkers import UNDEFINED, measure, vcdr
from fundus.anatomy.labels import compose

SIDE = 128


def ellipse(x, y, across, down):
    """HW bool: the pixels whose centre lies within the half-axes `across` and `down` of (x, y)."""
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    return ((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 <= 1


eyes = st.builds(
    lambda x, y, across, down, right, lower, share: compose(
        ellipse(x, y, across, down),
        ellipse(x + right * across, y + lower * down, share * across, share * down),
    ),
    *[st.floats(54, 74)] * 2,
    *[st.floats(20, 40)] * 2,
    *[st.floats(-0.3, 0.3)] * 2,
    st.floats(0.2, 0.7),
)


def test_ratios_of_ellipses_match_hand_calculation():
    mask = compose(ellipse(64, 64, 30, 40), ellipse(64, 70, 18, 20))
    measured = measure(mask)
    assert measured.vcdr == 40 / 80 == vcdr(mask)
    assert measured.hcdr == 36 / 60
    assert measured.area_cdr == pytest.approx((18 * 20) / (30 * 40), abs=0.005)


def test_extents_count_both_ends():
    mask = np.zeros((9, 9), np.uint8)
    mask[1:8, 4] = 1
    mask[4, 4] = 2
    assert vcdr(mask) == 1 / 7


def test_a_concentric_rim_is_equally_wide_everywhere():
    mask = compose(ellipse(64, 64, 50, 50), ellipse(64, 64, 30, 30))
    measured = measure(mask, "OD")
    widths = astuple(measured)[3:]
    assert widths == pytest.approx([20 / 100] * 4, abs=0.003)


def test_rim_widths_of_an_off_centre_cup_match_geometry():
    radius, cup, right, lower = 50.0, 25.0, 10.0, 12.0
    mask = compose(ellipse(64, 64, radius, radius), ellipse(64 + right, 64 + lower, cup, cup))
    around = np.deg2rad(np.linspace(-22.5, 22.5, 2001))

    def expected(axis):
        towards = right * np.cos(axis + around) + lower * np.sin(axis + around)
        aside = right**2 + lower**2 - towards**2
        return (radius - towards - np.sqrt(cup**2 - aside)).mean() / (2 * radius)

    measured = measure(mask, "OD")
    assert measured.rim_nasal == pytest.approx(expected(0), abs=0.005)
    assert measured.rim_inferior == pytest.approx(expected(np.pi / 2), abs=0.005)
    assert measured.rim_temporal == pytest.approx(expected(np.pi), abs=0.005)
    assert measured.rim_superior == pytest.approx(expected(-np.pi / 2), abs=0.005)
    assert measured.rim_inferior < measured.rim_nasal < measured.rim_temporal


def test_where_a_ray_misses_the_cup_the_rim_reaches_the_centre():
    mask = compose(ellipse(64, 64, 50, 50), ellipse(64, 94, 10, 10))
    measured = measure(mask, "OS")
    assert measured.rim_superior == pytest.approx(0.5, abs=0.003)
    assert measured.rim_temporal == pytest.approx(0.5, abs=0.003)


def test_without_laterality_only_the_nasal_and_temporal_rim_are_undefined():
    mask = compose(ellipse(64, 64, 40, 40), ellipse(60, 64, 20, 20))
    assert measure(mask, None) == replace(measure(mask, "OD"), rim_nasal=None, rim_temporal=None)
    with pytest.raises(ValueError, match="right"):
        measure(mask, "right")


def test_unknown_measures_are_undefined_and_not_zero():
    nothing = np.zeros((SIDE, SIDE), np.uint8)
    disc_alone = compose(ellipse(64, 64, 40, 40), nothing)
    for mask in (nothing, disc_alone):
        assert vcdr(mask) is None
        assert measure(mask, "OD") == UNDEFINED


@settings(max_examples=30)
@given(eyes)
def test_a_right_eye_measures_like_its_mirrored_left_eye(mask):
    right, left = measure(mask, "OD"), measure(mask[:, ::-1], "OS")
    assert astuple(right) == pytest.approx(astuple(left), abs=1e-3)
    assert right.rim_nasal == measure(mask, "OS").rim_temporal


@settings(max_examples=30)
@given(eyes, st.integers(-12, 12), st.integers(-12, 12))
def test_vcdr_depends_on_neither_place_nor_side(mask, down, right):
    assert vcdr(np.roll(mask, (down, right), (0, 1))) == vcdr(mask)
    assert vcdr(mask[:, ::-1]) == vcdr(mask)
