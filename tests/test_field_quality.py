import csv

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from fundus.datasets.synthetic import CAMERAS, clinic, draw
from fundus.decoding.picture import pictures
from fundus.field.fov import field_of_view
from fundus.field.quality import Thresholds, assess


@pytest.fixture(scope="module")
def frames(fundus_data):
    """Real frames, a few of every set that has a field of view."""
    rows = list(csv.DictReader((fundus_data / "manifest.csv").open()))
    named = [r for r in rows if "crop" not in r["set"] and r["set"] != "variety"]
    some = named[:: len(named) // 24]
    return [pictures((fundus_data / r["image"]).read_bytes())[0].pixels for r in some]


def share_accepted(images):
    return np.mean([assess(one).reason is None for one in images])


def share_clear(images):
    return np.mean([not assess(one).poor for one in images])


def reason(pixels, **options):
    quality = assess(pixels, **options)
    assert (quality.score == 0) == (quality.reason is not None)
    return quality.reason


def test_real_frames_are_accepted_and_their_blurred_and_dark_copies_are_not(frames):
    assert share_accepted(frames) >= 0.99 and share_clear(frames) >= 0.9
    small = [cv2.resize(f, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA) for f in frames]
    assert share_accepted(small) >= 0.99  # the camera's resolution does not matter
    blurred = [cv2.GaussianBlur(f, (0, 0), 0.048 * field_of_view(f).radius) for f in small]
    assert share_clear(blurred) <= 0.02
    assert share_accepted([(f * 0.1).astype(np.uint8) for f in small]) == 0
    scores = [[assess(one).score for one in some] for some in (small, blurred)]
    assert (np.array(scores[0]) >= scores[1]).all()


def test_disc_crops_are_accepted_if_the_caller_declares_them(fundus_data):
    files = sorted((fundus_data / "refuge_train_crop512/images").glob("*.jpg"))[::20]
    crops = [pictures(f.read_bytes())[0].pixels for f in files]
    assert all(assess(c, crop=True).reason is None for c in crops)
    blurred = [cv2.GaussianBlur(c, (0, 0), 30) for c in crops]
    assert all(assess(c, crop=True).poor for c in blurred)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("hard_octa/32.tif", "no colours"),
        ("mexico_dme/0034_OI_f_1.jpg", "too dark"),
    ],
)
def test_other_pictures_from_a_hospital_are_refused(fundus_data, file, expected):
    pixels = pictures((fundus_data / "variety" / file).read_bytes())[0].pixels
    assert expected in reason(pixels)


def test_a_blurred_eye_is_measured_but_marked_as_poor(fundus_data):
    pixels = pictures((fundus_data / "variety/eyeq/116_right.jpeg").read_bytes())[0].pixels
    quality = assess(pixels)
    assert quality.reason is None and quality.poor and not quality.hopeless


def page():
    """A scanned letter."""
    image = Image.new("RGB", (600, 800), (244, 240, 230))
    pen = ImageDraw.Draw(image)
    for line in range(20, 780, 22):
        pen.text(
            (30, line), "Dear colleague, thank you for sending this patient. " * 2, (20, 20, 40)
        )
    return np.asarray(image)


def scene():
    """Sky, a field and a house."""
    noise = np.random.default_rng(2).normal(0, 12, (480, 640, 3))
    image = np.full((480, 640, 3), (120.0, 170.0, 230.0))
    image[280:] = (70, 130, 40)
    image[180:330, 250:420] = (180, 60, 50)
    return (image + noise).clip(0, 255).astype(np.uint8)


def masked(pixels):
    rows, columns = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    middle = np.array(pixels.shape[:2]) / 2
    outside = np.hypot(rows - middle[0], columns - middle[1]) > 0.47 * min(pixels.shape[:2])
    return np.where(outside[..., None], np.uint8(0), pixels)


def test_pictures_that_are_no_fundus_photographs_are_refused():
    assert reason(np.zeros((300, 400, 3), np.uint8)) == "nothing is exposed"
    assert "no border" in reason(page()) and "no border" in reason(scene())
    assert reason(masked(page())) and reason(masked(scene()))
    black = np.zeros((300, 400, 3), np.uint8)
    assert all(assess(p).hopeless for p in (black, page(), scene(), masked(page())))
    white = masked(np.full((400, 400, 3), 255, np.uint8))
    assert "dark or white" in reason(white)
    assert reason(np.zeros((1, 1, 3), np.uint8)) and reason(np.full((1, 9000, 3), 99, np.uint8))


def test_a_small_field_is_refused():
    frame = draw(clinic(), 7).image
    assert reason(frame) is None
    tiny = cv2.resize(frame, None, fx=0.08, fy=0.08, interpolation=cv2.INTER_AREA)
    assert "field of view is small" in reason(tiny)


def test_the_colour_is_that_of_the_field_alone():
    frame = draw(clinic(), 7).image
    red, green, blue = (assess(frame).measures[name] for name in ("red", "green", "blue"))
    assert red > green > blue > 0
    bordered = np.pad(frame, ((200, 200), (200, 200), (0, 0)))
    assert assess(bordered).measures["red"] == pytest.approx(red, rel=0.01)


def test_the_caller_can_choose_the_thresholds():
    frame = draw(clinic(), 7).image
    brightness = assess(frame).measures["brightness"]
    strict = Thresholds(brightness=(brightness + 1, 300.0))
    assert reason(frame, thresholds=strict) == f"too dark ({brightness:.3g})"
    with pytest.raises(ValueError, match="sharpness"):
        Thresholds(sharpness=(0.02, 0.01))


@pytest.mark.parametrize("name", CAMERAS)
def test_drawn_frames_are_gradable(name):
    assert [reason(draw(CAMERAS[name](), seed).image) for seed in range(6)] == [None] * 6


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_sharpness_is_that_of_the_green_channel_alone(channel):
    image = np.full((512, 512, 3), (150, 80, 40), np.uint8)
    whole = assess(image, crop=True).measures["sharpness"]
    image[..., channel] += np.random.default_rng(0).integers(0, 30, (512, 512)).astype(np.uint8)
    noisy = assess(image, crop=True).measures["sharpness"]
    assert (noisy > whole + 0.003) == (channel == 1)
