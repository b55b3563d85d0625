"""Working frames: pictures reduced by a whole factor, which maps coordinates to the original."""

import io

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from fundus.datasets.synthetic import clinic, draw
from fundus.decoding.picture import contents
from fundus.decoding.sandbox import Decoder
from fundus.field import roi
from fundus.field.quality import assess
from fundus.images import jpeg
from fundus.images.content import STRAY
from fundus.images.refusal import Refused
from fundus.images.working_frame import FACTORS, factor, least_side
from fundus.models import bundle as bundles
from fundus.notebook.measure import measure

LEAST = 100


def square_at(x: int, y: int, height: int, width: int, side: int = 48) -> np.ndarray:
    """A white square on grey, its upper left corner at (x, y)."""
    pixels = np.full((height, width, 3), 60, np.uint8)
    pixels[y : y + side, x : x + side] = 250
    return pixels


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


@settings(max_examples=60)
@given(
    height=st.integers(150, 900),
    width=st.integers(150, 900),
    kind=st.sampled_from(["JPEG", "PNG"]),
    across=st.floats(0, 1),
    down=st.floats(0, 1),
)
def test_coordinates_times_shrink_are_those_of_the_original(height, width, kind, across, down):
    # The last pixel of a row or column may cover less than the others.
    x, y = round(across * (width - 56)), round(down * (height - 56))
    data = encoded(square_at(x, y, height, width), kind, **{"quality": 95})
    [found] = contents(data, least_side=LEAST).pictures
    assert found.size == (height, width)
    assert found.pixels.shape[:2] == (-(-height // found.shrink), -(-width // found.shrink))
    assert found.shrink == 1 or min(height, width) // found.shrink >= LEAST
    assert min(height, width) < 2 * LEAST * found.shrink or found.shrink == max(FACTORS)
    light = np.clip(found.pixels[..., 1].astype(float) - 60, 0, None)
    light[light < 20] = 0
    rows, columns = np.mgrid[: light.shape[0], : light.shape[1]] + 0.5
    centre = [(axis * light).sum() / light.sum() * found.shrink for axis in (columns, rows)]
    assert centre == pytest.approx([x + 24, y + 24], abs=0.6)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_is_applied_to_reduced_pictures(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(square_at(13, 57, 501, 403), "JPEG", exif=exif, quality=95)
    [whole], [small] = (contents(data, least_side=least).pictures for least in (None, LEAST))
    assert small.size == whole.pixels.shape[:2] and small.shrink == 4
    crops = [
        roi.crop(one.pixels, roi.Roi(16, 16, 256).times(1 / one.shrink), 32).astype(int)
        for one in (whole, small)
    ]
    assert abs(crops[0] - crops[1]).mean() < 2


def test_the_sandbox_gives_the_same_working_frames():
    data = encoded(square_at(100, 200, 803, 905), "JPEG")
    [here] = contents(data, least_side=LEAST).pictures
    [there] = Decoder(least_side=LEAST)(data)
    assert there.shrink == here.shrink == 8 and there.size == here.size == (803, 905)
    np.testing.assert_array_equal(there.pixels, here.pixels)


def test_damage_is_detected_at_every_scale():
    random = np.random.default_rng(1)
    noise = random.integers(0, 255, (120, 120, 3), np.uint8)
    picture = np.array(Image.fromarray(noise).resize((960, 960), Image.Resampling.BICUBIC))
    sound = encoded(picture, "JPEG", quality=90)
    middle = len(sound) // 2
    broken = sound[:middle] + random.bytes(400) + sound[middle + 400 :]
    stray = sound[:-2] + b"\x12\x34\x56" * 9 + sound[-2:]
    for least in (None, LEAST):
        with pytest.raises(Refused, match="damaged"):
            contents(broken, least_side=least)
        assert contents(stray, least_side=least).pictures[0].flags == (STRAY,)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_of_one_pixel_is_not_reduced(kind):
    [found] = contents(encoded(np.zeros((1, 1, 3), np.uint8), kind), least_side=LEAST).pictures
    assert (found.shrink, found.size) == (1, (1, 1))


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 3000))
def test_the_factor_is_the_largest_that_leaves_enough_pixels(height, width, least):
    found = factor(height, width, least)
    assert found == 1 or min(height, width) / found >= least
    assert all(n <= found or min(height, width) / n < least for n in FACTORS)


def test_networks_with_larger_inputs_get_larger_working_frames():
    small = least_side(128, 1.5, 192, precropped=False)
    assert small == 711 and least_side(128, 1.5, 1024, precropped=False) == 1024
    assert least_side(512, 1.7, 640, precropped=False) == 2510
    assert least_side(128, 1.5, 192, precropped=True) == 427


def test_an_eye_is_measured_alike_in_its_working_frame():
    """A picture of twice the size gives the same ROI, in its own pixels, vCDR and quality."""
    frame = draw(clinic(), 3).image
    large = np.array(Image.fromarray(frame).resize((frame.shape[1] * 2, frame.shape[0] * 2)))
    least = bundles.load(bundles.default_folder()).preprocessing.least_side(precropped=False)
    assert factor(*large.shape[:2], least) > factor(*frame.shape[:2], least) >= 1
    small, whole = measure(frame), measure(encoded(large, "JPEG", quality=95))
    assert whole.size == large.shape[:2] and whole.status == small.status == "ok"
    assert whole.roi.x / 2 == pytest.approx(small.roi.x, abs=1)
    assert whole.vcdr == pytest.approx(small.vcdr, abs=0.02)
    graded = assess(large), assess(large[::2, ::2], shrink=2)
    assert graded[1].measures["field"] == pytest.approx(graded[0].measures["field"], rel=0.01)


@given(  # below 6 pixels, two of libjpeg's scales may give the same size
    height=st.integers(6, 75),
    width=st.integers(6, 75),
    shrink=st.sampled_from([1, *FACTORS]),
    options=st.fixed_dictionaries(
        {
            "subsampling": st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
            "progressive": st.booleans(),
            "quality": st.integers(30, 100),
        }
    ),
)
def test_a_sound_jpeg_is_decoded_to_the_same_pixels_as_by_pillow(height, width, shrink, options):
    random = np.random.default_rng(height * width)
    data = encoded(random.integers(0, 255, (height, width, 3), np.uint8), "JPEG", **options)
    theirs = Image.open(io.BytesIO(data))
    theirs.draft("RGB", (max(1, width // shrink), max(1, height // shrink)))
    # Pillow reduces a picture that is smaller than the factor by less.
    assume(theirs.size == (-(-width // shrink), -(-height // shrink)))
    ours = jpeg.decode_sound(data, jpeg.parse(data), shrink)
    np.testing.assert_array_equal(ours, np.array(theirs.convert("RGB")))
