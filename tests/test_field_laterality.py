import numpy as np
import pytest

from fundus.datasets.synthetic import clinic, draw, hospital
from fundus.decoding.picture import pictures
from fundus.field.fov import FieldOfView, field_of_view
from fundus.field.laterality import of_anatomy

FIELD = FieldOfView(500, 400, 400)


def test_the_eye_is_known_by_a_disc_on_the_nasal_side():
    assert of_anatomy(FIELD, 770, 380, 130) == "OD"
    assert of_anatomy(FIELD, 230, 420, 130) == "OS"


@pytest.mark.parametrize("x", [500, 590, 410])
def test_a_disc_near_the_centre_tells_nothing(x):
    assert of_anatomy(FIELD, x, 400, 130) is None


def test_a_disc_below_or_far_away_tells_nothing():
    assert of_anatomy(FIELD, 600, 700, 130) is None
    assert of_anatomy(FieldOfView(500, 400, 4000), 2000, 400, 130) is None


def predictions(camera, seeds):
    """(predicted eye, drawn eye) of drawn frames, whose disc is known."""
    for seed in seeds:
        frame = draw(camera, seed)
        rows, columns = np.nonzero(frame.mask)
        x, y, diameter = columns.mean(), rows.mean(), np.ptp(rows) + 1
        yield of_anatomy(field_of_view(frame.image), x, y, diameter), frame.laterality


def test_drawn_eyes_are_known_by_their_discs():
    macula_centred = list(predictions(clinic(), range(12)))
    assert {"OD", "OS"} == {drawn for _, drawn in macula_centred}
    assert all(found == drawn for found, drawn in macula_centred)
    disc_centred = list(predictions(hospital(), range(12)))
    assert all(found in (None, drawn) for found, drawn in disc_centred)
    assert sum(found is None for found, _ in disc_centred) >= 6


# The disc as seen: its place in shares of the frame's width and height, and its height.
SEEN = {
    "mexico_dme/0001_OD_f_1.jpg": (0.85, 0.44, 0.15),
    "mexico_dme/0066_OD_f_1.jpg": (0.88, 0.51, 0.15),
    "mexico_dme/0099_OI_f_1.jpg": (0.15, 0.46, 0.16),
    "mexico_dme/1100_OI_f_1.jpg": (0.14, 0.46, 0.15),
    "mexico_dme/1170_OD_f_1.jpg": (0.85, 0.38, 0.16),
    "zoo/0_right.jpg": (0.70, 0.48, 0.14),
    "zoo/19_left.jpg": (0.39, 0.41, 0.12),
    "zoo/1_l2.jpg": (0.17, 0.49, 0.16),
    "zoo/1_r2.jpg": (0.73, 0.48, 0.16),
    "papila_few/33_OD_RET002OD.jpg": (0.46, 0.52, 0.24),
}


@pytest.mark.parametrize("file", SEEN)
def test_real_eyes_agree_with_the_side_in_their_file_names(fundus_data, file):
    pixels = pictures((fundus_data / "variety" / file).read_bytes())[0].pixels
    height, width = pixels.shape[:2]
    x, y, size = SEEN[file]
    named = "OS" if any(mark in file for mark in ("_OI_", "left", "_l")) else "OD"
    expected = None if file.startswith("papila") else named  # centred on the disc
    assert of_anatomy(field_of_view(pixels), x * width, y * height, size * height) == expected
