"""A ROI that reaches outside its picture has margins, in which nothing may look like a disc."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fundus.field import roi
from fundus.field.margins import faded, outside
from fundus.field.roi import Roi

SIDE = 32
spans = st.floats(-40, 60)


@given(x=spans, y=spans, size=st.floats(20, 150), height=st.integers(30, 99))
def test_outside_are_the_pixels_that_a_crop_without_mirroring_leaves_black(
    x: float, y: float, size: float, height: int
) -> None:
    """A pixel across the edge is a mixture, so only those that are a pixel from it are compared."""
    where, width = Roi(x, y, size), 80
    white = np.full((height, width, 3), 255, np.uint8)
    shown = roi.crop(white, where, SIDE)[..., 0]
    beyond = outside(where, height, width, SIDE)
    assert beyond[shown == 0].all()
    assert not beyond[shown == 255].any()


def test_faded_margins_take_half_of_the_background_and_the_picture_stays() -> None:
    picture = np.full((100, 80, 3), (160, 80, 40), np.uint8)
    picture[20:80, 20:60] = 240
    picture[:20, :20] = 0  # one black corner, as at the edge of the field of view
    where = roi.around(40, 50, 150)
    crop = roi.crop(picture, where, SIDE, mirrored=True)
    beyond = outside(where, 100, 80, SIDE)
    result = faded(crop, beyond)
    np.testing.assert_array_equal(result[~beyond], crop[~beyond])
    expected = crop[beyond] / 2 + np.array([80, 40, 20])
    np.testing.assert_allclose(result[beyond], expected, atol=1)


def test_the_smallest_visible_piece_of_a_picture_gives_the_colour() -> None:
    crop = np.full((SIDE, SIDE, 3), 200, np.uint8)
    beyond = np.ones((SIDE, SIDE), bool)
    crop[3, 5], beyond[3, 5] = 100, False
    result = faded(crop, beyond)
    assert (result[beyond] == 150).all() and (result[3, 5] == 100).all()
