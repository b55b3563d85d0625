import csv

import cv2
import numpy as np
import pytest

from fundus.datasets.synthetic import CAMERAS, draw
from fundus.decoding.picture import pictures
from fundus.field.fields import are_two
from fundus.field.fov import exposure


def pair(camera):
    """An OD and an OS of one camera."""
    one, other = (draw(CAMERAS[camera](), seed).image for seed in (1, 2))
    return one, cv2.resize(other, one.shape[1::-1])


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("axis", [0, 1])
def test_two_frames_in_one_picture_are_two_fields(camera, axis):
    one, other = pair(camera)
    assert not are_two(one) and not are_two(other)
    assert are_two(np.concatenate([one, other], axis=axis))
    gap = np.zeros((40, one.shape[1], 3), np.uint8) if axis == 0 else None
    gap = np.zeros((one.shape[0], 40, 3), np.uint8) if gap is None else gap
    assert are_two(np.concatenate([one, gap, other], axis=axis))


def cropped(picture):
    """The square around the field, black where the frame has cut it."""
    field = exposure(picture).field
    border = int(field.radius)
    wide = cv2.copyMakeBorder(picture, *(4 * [border]), cv2.BORDER_CONSTANT)
    top, left = int(field.y), int(field.x)
    return wide[top : top + 2 * border, left : left + 2 * border]


@pytest.mark.parametrize("camera", CAMERAS)
def test_four_frames_in_a_square_are_not_one_field(camera):
    one, other = pair(camera)
    # Cropped to the field, as many cameras do it, so that the four touch.
    one, other = (cropped(picture) for picture in (one, other))
    other = cv2.resize(other, one.shape[1::-1])
    assert are_two(np.block([[[one], [other]], [[other], [one]]]))


@pytest.mark.parametrize("axis", [0, 1])
def test_fields_cut_so_that_they_touch_are_two(axis):
    one, other = (p[:, p.shape[1] // 6 : -p.shape[1] // 6] for p in pair("clinic"))
    one, other = (p[p.shape[0] // 6 : -p.shape[0] // 6] for p in (one, other))
    assert are_two(np.concatenate([one, other], axis=axis))


def test_real_frames_are_one_field(fundus_data):
    rows = list(csv.DictReader((fundus_data / "manifest.csv").open()))
    named = [r for r in rows if "crop" not in r["set"]]
    named = [r for r in named if r["set"] == "variety"] + named[::200]
    seen = {r["image"]: pictures((fundus_data / r["image"]).read_bytes())[0].pixels for r in named}
    assert [name for name, pixels in seen.items() if are_two(pixels)] == []
