import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fundus.images.decode import Refused, decode

RGB = np.random.default_rng(3).integers(0, 256, (20, 30, 3)).astype(np.uint8)
SMOOTH = np.add.outer(np.arange(40), np.arange(60))[..., None] + np.array([100, 40, 10])
SMOOTH = SMOOTH.clip(0, 255).astype(np.uint8)


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def saved_by_opencv(suffix, pixels):
    return cv2.imencode(suffix, pixels)[1].tobytes()


def refusal(data, **options):
    with pytest.raises(Refused) as caught:
        decode(data, **options)
    return caught.value.status, caught.value.reason


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_lossless_pictures_are_decoded_unchanged(kind):
    out = decode(saved(Image.fromarray(RGB), kind))
    assert out.dtype == np.uint8 and (out == RGB).all()


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm"])
def test_values_of_sixteen_bits_are_reduced_to_eight(suffix):
    deep = RGB.astype(np.uint16) * 256 + 77
    colour = decode(saved_by_opencv(suffix, deep[..., ::-1]))
    assert abs(colour.astype(int) - RGB).max() <= (suffix == ".ppm")  # Pillow rounds PPM itself
    grey = decode(saved_by_opencv(suffix.replace("ppm", "pgm"), deep[..., 0]))
    assert (grey == RGB[..., :1]).all() and grey.shape == RGB.shape


def test_transparent_pictures_are_laid_on_black():
    alpha = np.full((20, 30, 1), 51, np.uint8)
    alpha[:10] = 102
    for deep in (np.uint8(1), np.uint16(257)):
        bgra = np.concatenate([RGB[..., ::-1], alpha], axis=2) * deep
        out = decode(saved_by_opencv(".png", bgra))
        assert abs(out - RGB * (alpha / 255)).max() <= 1
    grey = decode(saved(Image.fromarray(RGB).convert("LA"), "PNG"))
    assert (grey[..., 0] == np.asarray(Image.fromarray(RGB).convert("L"))).all()


def test_cmyk_grey_and_palette_become_rgb():
    picture = Image.fromarray(SMOOTH)
    for mode, kind in [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("L", "JPEG"), ("P", "PNG")]:
        out = decode(saved(picture.convert(mode), kind))
        expected = np.asarray(picture.convert(mode).convert("RGB"))
        assert abs(out.astype(int) - expected).mean() < 4, (mode, kind)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(kind):
    picture = Image.fromarray(SMOOTH)
    for orientation, turns in [(1, 0), (3, 2), (6, 3), (8, 1)]:
        exif = Image.Exif()
        exif[274] = orientation
        out = decode(saved(picture, kind, exif=exif))
        expected = np.rot90(SMOOTH, turns)
        assert out.shape == expected.shape
        assert abs(out.astype(int) - expected).mean() < 4, (kind, orientation)


def test_broken_exif_leaves_the_picture_as_it_is():
    whole = saved(Image.fromarray(SMOOTH), "JPEG")
    body = b"Exif\0\0II*\0\xff\xff\xff\x00garbage"
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    assert (decode(whole[:2] + segment + whole[2:]) == decode(whole)).all()


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_only_the_first_picture_of_a_file_is_decoded(kind):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    assert (decode(data) == (255, 0, 0)).all()


def vast_png(side):
    """The bytes of a black side x side PNG, compressed row by row."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * side)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def test_size_is_checked_before_decoding():
    status, reason = refusal(saved(Image.fromarray(RGB), "PNG"), max_pixels=599)
    assert status == "too_large" and "30 x 20" in reason
    assert refusal(vast_png(20_000)[:100_000])[0] == "too_large"
    status, reason = refusal(saved(Image.new("L", (1, 12_001)), "PNG"))
    assert status == "too_large" and "1 x 12001" in reason


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"", "decode_failed", "empty file"),
        (b"patient came on monday\n", "unsupported", "text"),
        (b"<!DOCTYPE html><html>", "unsupported", "HTML"),
        (b"PK\x03\x04" + bytes(200), "unsupported", "zip"),
        (b"%PDF-1.7 ...", "unsupported", "PDF"),
        (bytes(128) + b"DICM" + bytes(20), "unsupported", "DICOM"),
        (bytes(range(256)), "unsupported", "binary data"),
        (b"\xff\xd8\xff", "decode_failed", "JPEG"),
        (saved(Image.fromarray(SMOOTH), "JPEG")[:-60], "decode_failed", "truncated"),
        (saved(Image.fromarray(RGB), "PNG")[:-300], "decode_failed", "PNG"),
        (saved(Image.fromarray(RGB), "TIFF")[:-300], "decode_failed", "TIFF"),
        (saved(Image.fromarray(RGB), "BMP")[:-300], "decode_failed", "BMP"),
        (saved(Image.fromarray(RGB[..., 0] / np.float32(9)), "TIFF"), "unsupported", "floating"),
    ],
)
def test_every_refusal_gives_its_reason(data, status, reason):
    found = refusal(data)
    assert found[0] == status and reason in found[1]


@pytest.mark.parametrize("data", [b"P3 Planted^Name 3 255\n1", b"P6 4 Planted 255\n", b"P5 Plante"])
def test_a_refusal_does_not_quote_the_file(data):
    assert "Plant" not in refusal(data)[1]


SOUND = [
    saved(Image.fromarray(SMOOTH), "JPEG"),
    saved(Image.fromarray(SMOOTH), "JPEG", progressive=True),
    saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG"),
    saved(Image.fromarray(SMOOTH), "PNG"),
    saved(Image.fromarray(SMOOTH).convert("P"), "PNG"),
    saved_by_opencv(".png", SMOOTH.astype(np.uint16) * 257),
    saved(Image.fromarray(SMOOTH), "TIFF"),
    saved(Image.fromarray(SMOOTH), "TIFF", compression="tiff_lzw"),
    saved_by_opencv(".tiff", SMOOTH[..., 0].astype(np.uint16) * 257),
    saved(Image.fromarray(SMOOTH), "BMP"),
    saved(Image.fromarray(SMOOTH).convert("P"), "GIF"),
    saved(Image.fromarray(SMOOTH), "WEBP"),
    saved(Image.fromarray(SMOOTH), "PPM"),
    saved(Image.fromarray(SMOOTH), "JPEG2000"),
]


@settings(max_examples=400, deadline=None)
@given(
    sound=st.sampled_from(SOUND),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=6),
    early=st.booleans(),
    keep=st.floats(0, 1),
)
def test_mutated_pictures_are_decoded_or_refused(sound, changes, early, keep):
    data = bytearray(sound)
    for place, values in changes:
        at = int(place * (min(len(data), 200) if early else len(data)))  # near the headers
        data[at : at + len(values)] = values
    if keep < 0.5:
        data = data[: int(2 * keep * len(data))]
    try:
        out = decode(bytes(data), max_pixels=2_000_000)
    except Refused as refused:
        assert refused.status in ("decode_failed", "unsupported", "too_large")
        assert len(refused.reason) > 5
    else:
        assert out.dtype == np.uint8 and out.ndim == 3 and out.shape[2] == 3
