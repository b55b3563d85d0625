"""Pictures as in real archives: several pages, 10 to 16 bits, unused alpha, truncated streams."""

import io
import struct
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from fundus.decoding.picture import contents, pictures
from fundus.images.decode import Refused

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
def test_every_picture_of_a_file_is_returned(kind):
    frames = [Image.fromarray(p) for p in (RAMP, RAMP[:, ::-1])]
    found = pictures(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert [one.frame for one in found] == [1, 2]
    assert found[0].pixels[50, 10, 0] < found[1].pixels[50, 10, 0]


@pytest.mark.parametrize("at", [0, 1])
def test_a_thumbnail_is_skipped_at_any_position(at):
    large = Image.fromarray(cv2.resize(RAMP, (960, 768)))
    pages = [large]
    pages.insert(at, large.resize((120, 96)))
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    (one,) = pictures(data)
    assert one.pixels.shape == (768, 960, 3) and one.frame == 1


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("others", [1, 2])
def test_a_page_that_is_marked_as_a_reduced_copy_is_skipped(at, others):
    """The page shows another eye here, so that only the mark identifies it as a copy."""
    large = cv2.resize(RAMP, (480, 384))
    pages = [Image.fromarray(one) for one in (large, large[::-1])[:others]]
    pages.insert(at, Image.fromarray(RAMP[:, ::-1].copy()))
    for number, page in enumerate(pages):
        page.encoderinfo = {"tiffinfo": {254: int(number == at)}}
    first, *rest = pages
    data = saved(first, "TIFF", save_all=True, append_images=rest, tiffinfo={254: int(at == 0)})
    found = pictures(data)
    assert [one.pixels.shape for one in found] == [(384, 480, 3)] * others


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_values_of_8_to_12_bits_in_16_bit_files_are_scaled_by_the_bits_they_use(bits, suffix):
    deep = RAMP.astype(np.uint16) << (bits - 8)
    deep[50, 50] = (1 << bits) - 1
    for values in (deep[..., ::-1], deep[..., 0]):
        (one,) = pictures(cv2.imencode(suffix, values)[1].tobytes())
        assert near(one.pixels, RAMP if values.ndim == 3 else np.repeat(RAMP[..., :1], 3, 2))
        assert one.flags == ("scaled_by_values",)


@pytest.mark.parametrize("bits", [12, 16])
def test_tiffs_of_12_and_16_bits_in_separate_planes_are_read(bits):
    planes = (RAMP.astype(np.uint16) << (bits - 8)).transpose(2, 0, 1)
    data = imagecodecs.tiff_encode(planes, photometric="rgb", planarconfig="separate")
    (one,) = pictures(data)
    assert near(one.pixels, RAMP) and one.flags == (("scaled_by_values",) if bits == 12 else ())


def test_a_uniform_alpha_channel_is_ignored():
    rgba = np.dstack([RAMP, np.full(RAMP.shape[:2], 128, np.uint8)])
    (one,) = pictures(saved(Image.fromarray(rgba), "PNG"))
    assert (one.pixels == RAMP).all() and one.flags == ("alpha_ignored",)


def test_an_alpha_channel_that_hides_the_picture_is_ignored():
    for alpha in (0, 1):
        rgba = np.dstack([RAMP, np.full(RAMP.shape[:2], alpha, np.uint8)])
        (one,) = pictures(saved(Image.fromarray(rgba), "PNG"))
        assert (one.pixels == RAMP).all() and one.flags == ("alpha_ignored",)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_marker_is_read_and_one_cut_in_the_middle_is_refused(progressive):
    whole = saved(Image.fromarray(RAMP), "JPEG", quality=90, progressive=progressive)
    (one,) = pictures(whole[:-2])
    assert (one.pixels == pictures(whole)[0].pixels).all() and one.flags == ("jpeg_end_missing",)
    with pytest.raises(Refused):
        pictures(whole[: len(whole) * 2 // 3])


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_is_damaged_before_its_end_marker_is_refused(progressive):
    """libjpeg fills in grey or shifts the rest, and Pillow reports no error."""
    image = Image.fromarray(cv2.resize(RAMP, (960, 768)))
    whole = saved(image, "JPEG", quality=90, progressive=progressive)
    half = len(whole) // 2
    damaged = {
        "ended too early": whole[:half] + b"\xff\xd9",
        "a lost block": whole[:half] + bytes(2048) + whole[half + 2048 :],
        "a part left out": whole[:half] + whole[half + 2048 :],
        "a wrong height": whole.replace(struct.pack(">2H", 768, 960), b"\6\0\3\xc0", 1),
    }
    for name, data in damaged.items():
        with pytest.raises(Refused) as refused:
            pictures(data)
        assert refused.value.status == "decode_failed" and "damaged" in refused.value.reason, name


@pytest.mark.parametrize("compression", ["jpeg", "tiff_adobe_deflate"])
def test_a_tiff_whose_middle_is_damaged_is_refused(compression):
    noise = np.random.default_rng(0).normal(0, 3, (384, 480, 3))
    image = Image.fromarray((cv2.resize(RAMP, (480, 384)) + noise).clip(0, 255).astype(np.uint8))
    whole = saved(image, "TIFF", compression=compression)
    assert len(pictures(whole)) == 1
    half = len(whole) // 2
    with pytest.raises(Refused) as refused:
        pictures(whole[:half] + bytes(400) + whole[half + 400 :])
    assert refused.value.status == "decode_failed" and "damaged" in refused.value.reason


def test_stray_bytes_in_a_jpeg_are_flagged():
    whole = saved(Image.fromarray(RAMP), "JPEG", quality=90)
    (one,) = pictures(whole[:-2] + b"\x12\x34" * 50 + whole[-2:])
    assert (one.pixels == pictures(whole)[0].pixels).all() and one.flags == ("jpeg_stray_bytes",)


def test_a_jpeg_of_12_bits_is_refused_as_unsupported_and_not_as_damaged():
    whole = bytearray(saved(Image.fromarray(RAMP), "JPEG"))
    whole[whole.index(b"\xff\xc0") + 1] = 0xC1  # extended sequential, as 12 bits need
    whole[whole.index(b"\xff\xc1") + 4] = 12
    with pytest.raises(Refused) as refused:
        pictures(bytes(whole))
    assert refused.value.status == "unsupported" and "(12)" in refused.value.reason


def test_a_picture_that_declares_too_large_a_size_costs_no_other_picture():
    frames = [Image.fromarray(one) for one in (RAMP, RAMP[::-1].copy())]
    whole = bytearray(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    second = whole.rindex(b"\x2c" + bytes(4) + struct.pack("<2H", 120, 96))
    whole[second + 5 : second + 9] = b"\xff" * 4
    found = contents(bytes(whole))
    assert [one.frame for one in found.pictures] == [1]
    assert [(one.frame, one.status) for one in found.lost] == [(2, "too_large")]


@pytest.mark.parametrize("kind", ["PNG", "PPM", "BMP", "WEBP"])
def test_joined_pictures_are_returned_one_by_one(kind):
    one, other = (saved(Image.fromarray(p), kind, lossless=True) for p in (RAMP, RAMP[::-1]))
    found = pictures(one + other)
    assert [p.frame for p in found] == [1, 2]
    assert (found[0].pixels == RAMP).all() and (found[1].pixels == RAMP[::-1]).all()
    assert len(pictures(one + b"notes" + other)) == 1
    cut = contents(one + other[: len(other) // 2])
    assert len(cut.pictures) == 1 and [lost.frame for lost in cut.lost] == [2]


def an_mpo(*pictures_, second=b""):
    """An MPO as Pillow writes it, with `second` in an XMP segment of its second picture."""
    first, *others = [Image.fromarray(p) for p in pictures_]
    data = saved(first, "MPO", save_all=True, append_images=others, quality=95)
    at = data.index(b"\xff\xd8", data.index(b"\xff\xd9"))
    segment = b"\xff\xe1" + struct.pack(">H", len(second) + 2) + second if second else b""
    size = struct.pack("<I", len(data) - at)
    assert data.count(size) == 1
    data = data.replace(size, struct.pack("<I", len(data) - at + len(segment)))
    return data[: at + 2] + segment + data[at + 2 :]


def test_two_eyes_in_one_mpo_are_two_pictures_and_are_checked_separately():
    whole = an_mpo(RAMP, RAMP[::-1].copy())
    found = pictures(whole)
    assert near(found[0].pixels, RAMP) and near(found[1].pixels, RAMP[::-1])
    cut = contents(whole[:-2])
    assert [one.flags for one in cut.pictures] == [(), ("jpeg_end_missing",)]
    cut = contents(whole[:-300])
    assert len(cut.pictures) == 1 and [lost.frame for lost in cut.lost] == [2]


@pytest.mark.parametrize("mark", [b"xmlns:hdrgm=", b"urn:com:apple:photo:2020:aux:hdrgainmap"])
def test_the_gain_map_of_a_phone_is_not_returned_as_a_picture(mark):
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x " + mark + b">"
    gain = np.full((48, 60, 3), 90, np.uint8)
    gain[20:, 30:] = 200
    (one,) = pictures(an_mpo(RAMP, gain, second=xmp))
    assert near(one.pixels, RAMP)
    assert len(pictures(an_mpo(RAMP, RAMP[::-1].copy(), second=b"any other"))) == 2


def test_joined_jpegs_are_several_pictures_unless_other_bytes_lie_between():
    one, other = (saved(Image.fromarray(p), "JPEG") for p in (RAMP, RAMP[::-1]))
    found = pictures(one + other)
    assert [p.frame for p in found] == [1, 2] and near(found[1].pixels, RAMP[::-1])
    assert len(pictures(one + b"notes" + other)) == 1
    cut = contents(one + other[: len(other) * 2 // 3])
    assert len(cut.pictures) == 1 and [lost.frame for lost in cut.lost] == [2]


@pytest.mark.parametrize(
    ("start", "word"),
    [
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x18ftypisom", "film"),
    ],
)
def test_an_unsupported_format_of_phones_is_named(start, word):
    with pytest.raises(Refused) as refused:
        pictures(start + bytes(200))
    assert refused.value.status == "unsupported" and word in refused.value.reason


def test_a_tiff_is_inflated_only_to_the_size_of_its_page():
    """A strip that inflates to 2 GB once took 14 s; this strip's damaged end is never reached."""
    picture = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    strip = bytearray(zlib.compress(picture.tobytes() + bytes(4 << 20)))
    strip[-1] ^= 1
    entries = ((256, 64), (257, 64), (258, 8), (259, 8), (262, 1), (273, 98), (279, len(strip)))
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4)
    assert len(head) == 98
    (found,) = pictures(head + bytes(strip))
    assert np.array_equal(found.pixels[..., 0], picture)
