import csv

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from fundus.field.fov import circle_of, field_of_view
from fundus.images.decode import decode


def frame(height, width, x, y, radius, level=90, border=4, noise=2.0):
    """A dimming circle on a dark border."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    distance = np.hypot(columns - x, rows - y)
    light = np.where(distance < radius, level * (1 - 0.5 * distance / radius), border)
    colours = light[..., None] * np.array([1, 0.55, 0.25])
    colours += np.random.default_rng(0).normal(0, noise, colours.shape)
    return colours.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "x", "y", "radius"),
    [
        (600, 800, 400, 300, 280),  # the whole circle
        (1200, 1600, 790, 610, 745),  # cut above and below
        (500, 500, 260, 240, 300),  # cut on four sides, the corners are dark
        (1800, 2600, 900, 900, 700),  # off the middle, larger than the working size
        (90, 120, 60, 45, 40),
    ],
)
def test_the_circle_is_found_even_where_the_frame_cuts_it(height, width, x, y, radius):
    field = field_of_view(frame(height, width, x, y, radius))
    assert abs(field.x - x) < 0.02 * radius
    assert abs(field.y - y) < 0.02 * radius
    assert abs(field.radius - radius) < 0.03 * radius


def test_a_label_in_the_border_and_a_shadow_in_the_field_do_not_move_the_circle():
    image = frame(600, 800, 400, 300, 280)
    cv2.putText(image, "OD 12", (10, 590), 0, 1.5, (255, 255, 255), 3)
    image[80:260, 380:600] = 5
    image[300:420, 600:700] = 5
    field = field_of_view(image)
    assert np.hypot(field.x - 400, field.y - 300) < 12 and abs(field.radius - 280) < 12


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    arc=st.floats(2.0, 6.28),
    noise=st.floats(0.05, 1.0),
    outliers=st.integers(0, 20),
)
def test_the_circle_is_the_one_of_a_robust_least_squares_fit(seed, arc, noise, outliers):
    random = np.random.default_rng(seed)
    angles = random.uniform(0, arc, 200)
    points = np.c_[np.cos(angles), np.sin(angles)] * 150 + random.normal(190, noise, (200, 2))
    points[:outliers] = random.uniform(100, 280, (outliers, 2))

    def distances(circle):
        return np.linalg.norm(points - circle[:2], axis=1) - circle[2]

    expected = least_squares(distances, (190, 190, 150), loss="soft_l1", xtol=1e-10, ftol=1e-10).x
    np.testing.assert_allclose(circle_of(points), expected, atol=0.1)


def test_a_frame_exposed_throughout_is_all_field():
    field = field_of_view(np.full((300, 500, 3), 120, np.uint8))
    assert (field.x, field.y, field.radius) == (250, 150, 250)


@pytest.mark.parametrize("level", [0, 8])
def test_nothing_is_exposed_in_a_black_frame(level):
    assert field_of_view(np.full((300, 400, 3), level, np.uint8)) is None


def test_a_bright_speck_is_no_field():
    image = np.zeros((300, 400, 3), np.uint8)
    image[140:150, 200:210] = 255
    assert field_of_view(image) is None


def test_real_frames_of_one_camera_have_one_field(fundus_data):
    with (fundus_data / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == "idrid20_disc"]
    fields = [field_of_view(decode((fundus_data / row["image"]).read_bytes())) for row in rows]
    radii = np.array([field.radius for field in fields])
    # two of the twenty were taken at a different distance (checked by eye)
    assert len(radii) == 20 and (abs(radii / np.median(radii) - 1) < 0.01).sum() == 18
