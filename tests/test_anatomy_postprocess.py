import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from fundus.anatomy.labels import cup_of, disc_of
from fundus.anatomy.postprocess import clean, oval


def drawn(side, *, disc, cup):
    """Probabilities of two filled circles, each (x, y, radius) or None."""
    maps = np.zeros((2, side, side), np.float32)
    for plane, circle in zip(maps, (disc, cup), strict=True):
        if circle:
            x, y, radius = circle
            cv2.circle(plane, (x, y), radius, 0.9, cv2.FILLED)
    return maps


def test_stray_pieces_are_removed_and_holes_are_filled():
    maps = drawn(64, disc=(32, 32, 20), cup=(30, 33, 9))
    expected = clean(maps)
    maps[0, 20, 32] = 0.1
    maps[1, 31:34, 29:32] = 0.2
    maps[0, 2:6, 2:6] = 1
    assert np.array_equal(clean(maps).mask, expected.mask)
    assert np.array_equal(disc_of(expected.mask), drawn(64, disc=(32, 32, 20), cup=None)[0] > 0)
    assert np.array_equal(cup_of(expected.mask), drawn(64, disc=(30, 33, 9), cup=None)[0] > 0)
    assert expected.flags == ()


def test_a_cup_that_leaves_its_disc_is_flagged_and_clipped():
    maps = drawn(64, disc=(32, 32, 15), cup=(32, 44, 9))
    cleaned = clean(maps)
    assert cleaned.flags == ("cup_outside_disc",)
    assert np.array_equal(disc_of(cleaned.mask), maps[0] > 0.5)
    assert np.array_equal(cup_of(cleaned.mask), (maps > 0.5).all(axis=0))


def test_a_larger_stray_cup_does_not_displace_the_one_in_the_disc():
    maps = drawn(64, disc=(20, 20, 15), cup=(20, 20, 5))
    expected = clean(maps).mask
    cv2.circle(maps[1], (50, 50), 10, 0.9, cv2.FILLED)
    assert np.array_equal(clean(maps).mask, expected)
    assert clean(maps).flags == ("cup_outside_disc",)


def solidity(region):
    (outline,), _ = cv2.findContours(
        region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    return cv2.contourArea(outline) / cv2.contourArea(cv2.convexHull(outline))


def test_an_oval_keeps_area_place_and_tilt():
    """A tilted ellipse keeps its shape and loses the lobe that a vessel gave it."""
    ellipse = np.zeros((128, 128), np.uint8)
    cv2.ellipse(ellipse, ((60.0, 70.0), (50.0, 80.0), 30.0), 1, cv2.FILLED)
    lobed = ellipse.copy()
    cv2.circle(lobed, (60, 28), 6, 1, cv2.FILLED)
    for shape, least in ((ellipse, 0.985), (lobed, 0.95)):
        smooth = oval(shape > 0)
        assert smooth.sum() == pytest.approx(shape.sum(), rel=0.01)
        overlap = 2 * (smooth & (ellipse > 0)).sum() / (smooth.sum() + ellipse.sum())
        assert overlap > least
        assert solidity(smooth) > 0.98
    assert solidity(lobed) < 0.96
    assert not oval(np.zeros((8, 8), bool)).any()
    line = np.eye(8, dtype=bool)
    assert np.array_equal(oval(line), line)


def test_a_missing_disc_or_cup_is_flagged():
    assert clean(drawn(32, disc=None, cup=None)).flags == ("no_disc",)
    assert clean(drawn(32, disc=(16, 16, 8), cup=None)).flags == ("no_cup",)
    assert clean(drawn(32, disc=None, cup=(16, 16, 8))).flags == ("no_disc", "cup_outside_disc")


def test_thresholds_are_inclusive_and_separate():
    maps = np.stack([np.full((4, 4), 0.75), np.full((4, 4), 0.25)])
    assert (clean(maps, disc_threshold=0.75, cup_threshold=0.25).mask == 2).all()
    assert clean(maps, disc_threshold=0.76).flags == ("no_disc",)


@pytest.mark.parametrize("fault", [np.nan, -0.1, 1.1])
def test_values_that_are_no_probabilities_are_refused(fault):
    maps = drawn(16, disc=(8, 8, 4), cup=None)
    maps[1, 0, 0] = fault
    with pytest.raises(ValueError, match="probabilities"):
        clean(maps)


blots = arrays(np.float32, (2, 9, 11), elements=st.sampled_from([np.float32(0), np.float32(1)]))


@given(blots)
def test_a_clean_mask_stays_as_it_is(maps):
    mask = clean(maps).mask
    again = clean(np.stack([disc_of(mask), cup_of(mask)]).astype(np.float32))
    assert np.array_equal(again.mask, mask)
    assert "cup_outside_disc" not in again.flags


@given(blots)
def test_the_disc_is_the_largest_piece_without_holes(maps):
    pieces, count = ndimage.label(maps[0], structure=np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    disc = disc_of(clean(maps).mask)
    assert any(
        np.array_equal(disc, ndimage.binary_fill_holes(pieces == 1 + at))
        for at in np.flatnonzero(sizes == sizes.max(initial=0))
    ) or (count == 0 and not disc.any())
