import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundus.field.roi import Roi, around, crop, crop_mask, restore, whole

rois = st.builds(Roi, x=st.floats(-300, 500), y=st.floats(-300, 500), size=st.floats(20, 1500))
sides = st.integers(16, 512)


@settings(deadline=None)
@given(rois, sides, st.lists(st.tuples(st.floats(-500, 1e4), st.floats(-500, 1e4)), min_size=1))
def test_points_go_to_the_roi_and_back_within_half_a_pixel(roi, side, points):
    there = roi.to_roi(np.array(points), side)
    assert np.abs(roi.to_frame(there, side) - points).max() < 1e-6
    # the nearest ROI pixel is at most half a ROI pixel away, measured in the frame
    pixel = np.floor(there) + 0.5
    assert np.abs(roi.to_frame(pixel, side) - points).max() <= 0.5 * roi.size / side + 1e-6


@settings(deadline=None)
@given(rois, sides)
def test_the_corners_of_the_raster_are_the_corners_of_the_roi(roi, side):
    corners = roi.to_frame(np.array([[0, 0], [side, side]]), side)
    assert np.allclose(corners, [[roi.x, roi.y], [roi.x + roi.size, roi.y + roi.size]])


def ellipse(height, width, x, y, a, b):
    rows, columns = np.mgrid[:height, :width] + 0.5
    return (((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1).astype(np.uint8)


@settings(deadline=None)
@given(
    x=st.floats(0, 300), y=st.floats(0, 200), a=st.floats(15, 60), b=st.floats(15, 60),
    dx=st.floats(-20, 20), dy=st.floats(-20, 20), enlarge=st.floats(1, 3),
)  # fmt: skip
def test_a_disc_cropped_and_restored_keeps_its_borders_within_half_a_pixel(
    x, y, a, b, dx, dy, enlarge
):
    mask = ellipse(200, 300, x, y, a, b)  # may be cut by the frame; the ROI may reach outside
    roi = around(x + dx, y + dy, 2 * max(a, b) + 50)
    back = restore(crop_mask(mask, roi, int(roi.size * enlarge) + 1), roi, 200, 300)
    wrong = np.argwhere(back != mask) + 0.5
    # ROI pixels are no larger than the frame's: nearest twice moves a border by half of each
    shifts = np.array([(p, q) for p in (-0.75, 0, 0.75) for q in (-0.75, 0, 0.75)])
    for row, column in wrong:
        radii = [((column + p - x) / a) ** 2 + ((row + q - y) / b) ** 2 for p, q in shifts]
        assert min(radii) <= 1 <= max(radii)


def test_the_crops_of_a_picture_and_its_mask_coincide():
    mask = ellipse(300, 400, 180.3, 141.7, 40, 55)
    image = np.repeat(mask[..., None] * 255, 3, axis=2)
    for roi in (Roi(100.4, 60.8, 160.3), Roi(-20.5, -100.2, 411.9)):
        picture = crop(image, roi, 128)[..., 0] > 127
        labels = crop_mask(mask, roi, 128) > 0
        assert (picture != labels).mean() < 0.004
        for axis in (0, 1):
            centres = [np.argwhere(of).mean(axis=0)[axis] for of in (picture, labels)]
            assert abs(centres[0] - centres[1]) < 0.1


def test_outside_the_frame_a_crop_is_black_and_its_mask_background():
    white = np.full((40, 60, 3), 255, np.uint8)
    out = crop(white, Roi(-60, -40, 120), 60)
    assert out.shape == (60, 60, 3) and out.dtype == np.uint8
    assert out[:19].max() == 0 and out[:, :29].max() == 0 and out[22:38, 32:58].min() == 255
    assert crop(white, Roi(500, 500, 30), 16).max() == 0
    assert crop_mask(white[..., 0], Roi(500, -500, 30), 16).max() == 0


def test_shrinking_averages_and_the_same_size_changes_nothing():
    board = np.zeros((64, 64, 3), np.uint8)
    board[::2] = 255
    assert abs(crop(board, whole(64, 64), 8)[1:-1, 1:-1].astype(int) - 127).max() <= 4
    assert (crop(board, whole(64, 64), 64) == board).all()


def test_a_part_of_a_crop_is_the_crop_of_that_part():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    both = crop(noise, Roi(20.5, 30, 128), 16)
    part = crop(noise, Roi(52.5, 62, 64), 8)
    assert abs(both[4:12, 4:12].astype(int) - part).max() <= 1  # no seam where the ROI ends


def test_the_whole_frame_lies_in_a_centred_square():
    assert whole(200, 300) == Roi(0, -50, 300)


@pytest.mark.parametrize("size", [0, -1, float("nan"), float("inf")])
def test_a_roi_without_area_is_refused(size):
    with pytest.raises(ValueError, match="side above zero"):
        Roi(0, 0, size)


@given(
    height=st.integers(3, 40),
    width=st.integers(3, 40),
    x=st.integers(-60, 40),
    y=st.integers(-60, 40),
    size=st.integers(1, 90),
)
def test_beyond_the_frame_a_mirrored_crop_sees_the_frame_mirrored(height, width, x, y, size):
    """At the raster's own scale nothing is resampled, so NumPy's padding is the truth."""
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    padded = np.pad(image, ((130, 130), (130, 130), (0, 0)), "symmetric")
    expected = padded[y + 130 : y + 130 + size, x + 130 : x + 130 + size]
    np.testing.assert_array_equal(crop(image, Roi(x, y, size), size, mirrored=True), expected)
