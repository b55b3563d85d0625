"""What archives really send: pages, deep values, empty alpha, cut-off streams, headers that lie."""

import io
import struct

import cv2
import numpy as np
import pydicom
import pytest
from dicom_files import dicom_file
from PIL import Image
from pydicom.encaps import encapsulate

from fundus.images.decode import Refused
from fundus.images.picture import contents, pictures

RAMP = np.add.outer(np.arange(96) // 2, np.arange(120) // 2)[..., None] + np.array([90, 40, 10])
RAMP = RAMP.clip(0, 255).astype(np.uint8)
RAMP[:12] = 0  # the border


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def near(one, other):
    return one.shape == other.shape and abs(one.astype(int) - other).mean() < 4


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_every_picture_of_a_file_has_a_row(kind):
    frames = [Image.fromarray(p) for p in (RAMP, RAMP[:, ::-1])]
    found = pictures(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert [one.frame for one in found] == [1, 2]
    assert found[0].pixels[50, 10, 0] < found[1].pixels[50, 10, 0]


@pytest.mark.parametrize("at", [0, 1])
def test_a_thumbnail_is_passed_over_wherever_it_stands(at):
    large = Image.fromarray(cv2.resize(RAMP, (960, 768)))
    pages = [large]
    pages.insert(at, large.resize((120, 96)))
    (one,) = pictures(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert one.pixels.shape == (768, 960, 3) and one.frame == 1


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_few_bits_in_a_deep_container_are_scaled_by_what_they_use(bits, suffix):
    deep = RAMP.astype(np.uint16) << (bits - 8)
    deep[50, 50] = (1 << bits) - 1
    for values in (deep[..., ::-1], deep[..., 0]):
        (one,) = pictures(cv2.imencode(suffix, values)[1].tobytes())
        assert near(one.pixels, RAMP if values.ndim == 3 else np.repeat(RAMP[..., :1], 3, 2))
        assert one.flags == ("scaled_by_values",)


def test_an_empty_alpha_is_left_out():
    for alpha in (0, 1):
        rgba = np.dstack([RAMP, np.full(RAMP.shape[:2], alpha, np.uint8)])
        (one,) = pictures(saved(Image.fromarray(rgba), "PNG"))
        assert (one.pixels == RAMP).all() and one.flags == ("alpha_ignored",)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_is_read_and_one_cut_in_the_middle_is_not(progressive):
    whole = saved(Image.fromarray(RAMP), "JPEG", quality=90, progressive=progressive)
    (one,) = pictures(whole[:-2])
    assert (one.pixels == pictures(whole)[0].pixels).all() and one.flags == ("jpeg_end_missing",)
    with pytest.raises(Refused):
        pictures(whole[: len(whole) * 2 // 3])


def test_a_jpeg_of_12_bits_is_unsupported_and_not_broken():
    whole = bytearray(saved(Image.fromarray(RAMP), "JPEG"))
    whole[whole.index(b"\xff\xc0") + 1] = 0xC1  # extended sequential, as 12 bits need
    whole[whole.index(b"\xff\xc1") + 4] = 12
    with pytest.raises(Refused) as refused:
        pictures(bytes(whole))
    assert refused.value.status == "unsupported" and "(12)" in refused.value.reason


def test_a_jpeg_without_its_end_is_read_in_dicom_too():
    whole = dicom_file(RAMP, "jpeg_baseline")
    end = whole.rindex(b"\xff\xd9")
    (one,) = pictures(whole[:end] + bytes(2) + whole[end + 2 :])
    assert "jpeg_end_missing" in one.flags
    assert near(one.pixels, pictures(whole)[0].pixels)


def test_a_frame_that_claims_too_much_costs_no_other_frame():
    frames = [Image.fromarray(one) for one in (RAMP, RAMP[::-1].copy())]
    whole = bytearray(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    second = whole.rindex(b"\x2c" + bytes(4) + struct.pack("<2H", 120, 96))
    whole[second + 5 : second + 9] = b"\xff" * 4
    found = contents(bytes(whole))
    assert [one.frame for one in found.pictures] == [1]
    assert [(one.frame, one.status) for one in found.lost] == [(2, "too_large")]


def test_a_cut_off_object_gives_its_whole_frames_and_says_which_is_missing():
    for syntax in ("explicit", "jpeg_baseline", "rle"):
        data = dicom_file(np.stack([RAMP, RAMP[::-1]]), syntax)
        found = contents(data[: -len(data) // 5])
        assert [one.frame for one in found.pictures] == [1], syntax
        assert [one.frame for one in found.lost] == [2] and "cut off" in found.lost[0].reason
    data = dicom_file(np.stack([RAMP, RAMP[::-1]]), "jpeg_baseline")
    assert len(pictures(data[:-8])) == 2  # the sequence's delimiter alone


def changed(data, **elements):
    dataset = pydicom.dcmread(io.BytesIO(data))
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def test_colours_are_those_of_the_pixels_whatever_the_header_says():
    data = dicom_file(RAMP, "jpeg_baseline")
    (lied,) = pictures(changed(data, PhotometricInterpretation="RGB"))
    assert near(lied.pixels, RAMP) and "colours_by_content" in lied.flags
    plain = dicom_file(RAMP)
    for lie in (
        {"PhotometricInterpretation": "YBR_FULL_422"},
        {"PhotometricInterpretation": "MONOCHROME2"},
        {"SamplesPerPixel": 1},
        {"PlanarConfiguration": 1},
    ):
        (one,) = pictures(changed(plain, **lie))
        assert near(one.pixels, RAMP) and one.flags, lie


@pytest.mark.parametrize("word", ["OD", "RIGHT", "R", "right"])
def test_the_eye_in_other_words(word):
    data = changed(dicom_file(RAMP, ImageLaterality=""), ImageLaterality=word)
    assert pictures(data)[0].laterality == "OD"
    both = changed(data, Laterality="L")
    assert pictures(both)[0].laterality is None
    assert pictures(both)[0].flags == ("laterality_contradicted",)


def test_an_object_without_its_uid_has_pixels_and_a_header():
    data = changed(dicom_file(RAMP))
    dataset = pydicom.dcmread(io.BytesIO(data))
    del dataset.SOPInstanceUID
    stream = io.BytesIO()
    dataset.save_as(stream)
    assert (pictures(stream.getvalue(), keep_header=True)[0].pixels == RAMP).all()


def test_several_streams_are_several_frames_whatever_their_number_is_said_to_be():
    parts = [saved(Image.fromarray(p), "JPEG") for p in (RAMP, RAMP[::-1])]
    data = changed(dicom_file(RAMP, "jpeg_baseline"), PixelData=encapsulate(parts, has_bot=False))
    assert len(pictures(data)) == 2
