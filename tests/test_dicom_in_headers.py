"""DICOM objects as hospitals send them: headers that contradict their pixels, and files cut off."""

import io
from contextlib import closing

import cv2
import numpy as np
import pydicom
import pytest
from dicom_files import NATIVE, SYNTAXES, dicom_file
from imagecodecs import jpeg8_encode, jpegls_encode
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from fundus.decoding.picture import contents, pictures
from fundus.decoding.sandbox import Decoder
from fundus.images.decode import Refused

RAMP = np.add.outer(np.arange(96) // 2, np.arange(120) // 2)[..., None] + np.array([90, 40, 10])
RAMP = RAMP.clip(0, 255).astype(np.uint8)
RAMP[:12] = 0  # the border
BRIGHT = (RAMP // 2 + 100).astype(np.uint8)  # without a border, which would reveal its colours


def changed(data, without=(), **elements):
    """The DICOM file with these elements removed or changed."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    for keyword in without:
        del dataset[keyword]
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def in_dicom(*streams, **elements):
    """JPEG streams as the frames of an object."""
    data = dicom_file(RAMP, "jpeg_baseline")
    return changed(data, PixelData=encapsulate(list(streams), has_bot=False), **elements)


def near(one, other, mean=4):
    return one.shape == other.shape and abs(one.astype(int) - other).mean() < mean


def jpeg(pixels, *, halved, marker):
    """A JPEG of YCbCr, with or without halved colour and an APP14 marker of transform 1."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=2 if halved else 0)
    plain = stream.getvalue()
    length = int.from_bytes(plain[4:6], "big")
    assert plain[2:4] == b"\xff\xe0"  # JFIF
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x01" if marker else b""
    return plain[:2] + adobe + plain[4 + length :]


@pytest.mark.parametrize(("halved", "marker"), [(True, False), (False, True), (True, True)])
def test_ycbcr_declared_as_rgb_is_recognised(halved, marker):
    (one,) = pictures(
        in_dicom(jpeg(BRIGHT, halved=halved, marker=marker), PhotometricInterpretation="RGB")
    )
    assert near(one.pixels, BRIGHT) and "colours_by_content" in one.flags


def test_rgb_declared_as_ycbcr_is_recognised():
    stream = jpeg8_encode(BRIGHT, 95, colorspace="RGB", outcolorspace="RGB")
    (one,) = pictures(in_dicom(stream, PhotometricInterpretation="YBR_FULL_422"))
    assert near(one.pixels, BRIGHT) and "colours_by_content" in one.flags


@pytest.mark.parametrize("actual", ["RGB", "YBR_FULL"])
def test_three_bytes_per_pixel_declared_as_halved_are_recognised(actual):
    stored = RAMP if actual == "RGB" else cv2.cvtColor(RAMP, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    data = changed(dicom_file(stored), PhotometricInterpretation="YBR_FULL_422")
    (one,) = pictures(data)
    assert near(one.pixels, RAMP, 2) and "header_contradicted" in one.flags


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("photometric", ["RGB", "MONOCHROME2"])
def test_the_pixels_decide_the_number_of_samples(syntax, samples, photometric):
    declared = {"SamplesPerPixel": samples, "PhotometricInterpretation": photometric}
    (one,) = pictures(changed(dicom_file(RAMP, syntax), **declared))
    assert near(one.pixels, RAMP) and (one.flags or (samples, photometric) == (3, "RGB"))


@pytest.mark.parametrize("declared", [0, 1])
def test_planes_are_distinguished_from_interleaved_pixels(declared):
    for actual, stored in enumerate((RAMP, RAMP.transpose(2, 0, 1))):
        data = changed(dicom_file(RAMP), PixelData=stored.tobytes(), PlanarConfiguration=declared)
        (one,) = pictures(data)
        assert near(one.pixels, RAMP)
        assert one.flags == (() if declared == actual else ("header_contradicted",))


@pytest.mark.parametrize("elements", [{"Columns": 7_000}, {"SamplesPerPixel": 1, "Rows": 97}])
def test_a_length_that_fits_no_layout_is_refused_before_decoding(elements):
    with pytest.raises(Refused) as refused:
        pictures(changed(dicom_file(RAMP), **elements))
    assert refused.value.status == "decode_failed"


@pytest.mark.parametrize("syntax", [s for s in SYNTAXES if s.startswith("jpeg")])
@pytest.mark.parametrize("elements", [{"Rows": 6_000}, {"Columns": 119}])
def test_a_stream_of_another_size_is_refused_before_decoding(syntax, elements, monkeypatch):
    from fundus.dicom_in import pixels as dicom_pixels

    monkeypatch.setattr(dicom_pixels, "iter_pixels", None)
    for reader in ("jpeg8_decode", "jpegls_decode"):
        monkeypatch.setattr(dicom_pixels.jpeg_frames, reader, None)
    with pytest.raises(Refused) as refused:
        pictures(changed(dicom_file(RAMP, syntax), **elements))
    assert refused.value.status == "decode_failed" and "(ValueError)" in refused.value.reason


def declared_as(data, syntax):
    """The file under another transfer syntax; its bytes stay as they are."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    meta, rest = io.BytesIO(), data[144 + dataset.file_meta.FileMetaInformationGroupLength :]
    dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.filewriter.write_file_meta_info(meta, dataset.file_meta)
    return bytes(128) + b"DICM" + meta.getvalue() + rest


KINDS = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "jpeg_baseline": uid.JPEGBaseline8Bit,
    "jpeg_lossless": uid.JPEGLossless,
    "jpeg_ls": uid.JPEGLSLossless,
    "jpeg_2000_lossless": uid.JPEG2000Lossless,
    "rle": uid.RLELossless,
}


@pytest.mark.parametrize("declared", KINDS)
@pytest.mark.parametrize("actual", KINDS)
def test_the_pixels_decide_the_transfer_syntax(actual, declared):
    data = declared_as(dicom_file(RAMP, actual), KINDS[declared])
    (one,) = pictures(data)
    assert near(one.pixels, RAMP)
    alike = {"implicit", "explicit"}, {"jpeg_baseline", "jpeg_lossless"}, {actual}
    contradicted = not any({actual, declared} <= pair for pair in alike)
    assert ("header_contradicted" in one.flags) == contradicted


def test_a_marker_of_jpeg_2000_by_chance_in_jpeg_ls_is_ignored():
    """FF4F FF51 begins JPEG 2000; it occurred by chance in 7.5 MB of JPEG-LS from a camera."""
    data = dicom_file(RAMP, "jpeg_ls")
    at = data.index(b"\xff\xd8\xff\xf7")
    (fragment,) = pydicom.encaps.generate_frames(
        pydicom.dcmread(io.BytesIO(data)).PixelData, number_of_frames=1
    )
    comment = b"\xff\xfe\0\x06\xff\x4f\xff\x51"
    assert data[at : at + 4] == fragment[:4]
    whole = encapsulate([fragment[:2] + comment + fragment[2:]])
    assert (pictures(changed(data, PixelData=whole))[0].pixels == RAMP).all()


# In a deflated object, a cut cannot be distinguished from a failure to inflate.
@pytest.mark.parametrize("syntax", [one for one in SYNTAXES if one != "deflated"])
def test_a_cut_off_object_gives_its_whole_frames_and_says_which_is_missing(syntax):
    data = dicom_file(np.stack([RAMP, RAMP[::-1]]), syntax)
    second = data.rindex(b"\xfe\xff\0\xe0") if syntax not in NATIVE else len(data) - RAMP.nbytes
    for end in (second, second + 5, second + (len(data) - second) // 2):
        found = contents(data[:end])
        assert [one.frame for one in found.pictures] == [1]
        assert near(found.pictures[0].pixels, RAMP)
        assert "file_cut_off" in found.pictures[0].flags
        assert [one.frame for one in found.lost] == [2] and "cut off" in found.lost[0].reason


def halved(pixels):
    """Two bytes per pixel: the two luminances of a pair, then the colour that they share."""
    luminance, red, blue = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb))
    columns = luminance[:, ::2], luminance[:, 1::2], blue[:, ::2], red[:, ::2]
    return np.stack(columns, axis=-1).tobytes()


@pytest.mark.parametrize("pixel_bytes", [2, 3])
def test_a_cut_off_object_of_halved_colour_is_read_by_its_actual_bytes_per_pixel(pixel_bytes):
    frames = [RAMP, RAMP[::-1]]
    stored = [halved(one) if pixel_bytes == 2 else one.tobytes() for one in frames]
    data = changed(
        dicom_file(np.stack(frames)),
        PixelData=b"".join(stored),
        PhotometricInterpretation="YBR_FULL_422",
    )
    whole = contents(data)
    assert all(near(one.pixels, p) for one, p in zip(whole.pictures, frames, strict=True))
    cut = contents(data[: -len(stored[1]) // 5])
    assert [one.frame for one in cut.pictures] == [1] and near(cut.pictures[0].pixels, RAMP)
    assert "file_cut_off" in cut.pictures[0].flags
    assert [one.frame for one in cut.lost] == [2] and "cut off" in cut.lost[0].reason
    with pytest.raises(Refused, match="cut off"):
        contents(data[: -len(stored[1]) * 6 // 5])


@pytest.mark.parametrize("syntax", ["jpeg_baseline", "jpeg_ls", "jpeg_2000", "rle"])
def test_the_delimiter_of_the_frames_may_be_missing(syntax):
    data = dicom_file(np.stack([RAMP, RAMP[::-1]]), syntax)
    found = contents(data[:-8])
    assert len(found.pictures) == 2 and not found.lost
    assert all(one.flags == ("file_cut_off",) for one in found.pictures)


def test_a_jpeg_without_its_end_is_read_in_dicom_too():
    whole = dicom_file(RAMP, "jpeg_baseline")
    end = whole.rindex(b"\xff\xd9")
    (one,) = pictures(whole[:end] + bytes(2) + whole[end + 2 :])
    assert "jpeg_end_missing" in one.flags
    assert near(one.pixels, pictures(whole)[0].pixels)


def test_jpeg_ls_without_its_end_is_read_if_it_is_otherwise_whole():
    stream = jpegls_encode(RAMP)
    data = dicom_file(RAMP, "jpeg_ls")
    (one,) = pictures(changed(data, PixelData=encapsulate([stream[:-2]])))
    assert (one.pixels == RAMP).all() and one.flags == ("jpeg_end_missing",)


def test_broken_jpeg_ls_without_its_end_is_refused_and_does_not_hang():
    stream = bytearray(jpegls_encode(RAMP)[:-2])
    stream[3537 : 3537 + 16] = b"U" * 16
    data = changed(dicom_file(RAMP, "jpeg_ls"), PixelData=encapsulate([bytes(stream)]))
    with closing(Decoder(timeout_s=3)) as decoder, pytest.raises(Refused) as refused:
        decoder(data)
    assert refused.value.status == "decode_failed"


@pytest.mark.parametrize("keyword", ["ImageLaterality", "Laterality", "FrameLaterality"])
@pytest.mark.parametrize(
    ("word", "eye"),
    [(w, "OD") for w in ("R", "OD", "RIGHT", "right ")] + [(w, "OS") for w in ("L", "OS", "LEFT")],
)
def test_the_eye_is_read_from_every_standard_word(keyword, word, eye):
    data = changed(dicom_file(RAMP, ImageLaterality=""), **{keyword: word})
    assert pictures(data)[0].laterality == eye


def of_frame(side):
    """An item of a functional groups sequence."""
    anatomy, groups = Dataset(), Dataset()
    anatomy.FrameLaterality = side
    groups.FrameAnatomySequence = Sequence([anatomy])
    return groups


def test_the_eye_is_read_for_all_frames_or_for_each():
    frames = dicom_file(np.stack([RAMP, RAMP]), ImageLaterality="")
    shared = changed(frames, SharedFunctionalGroupsSequence=[of_frame("L")])
    assert [one.laterality for one in pictures(shared)] == ["OS", "OS"]
    each = changed(frames, PerFrameFunctionalGroupsSequence=[of_frame("R"), of_frame("L")])
    assert [one.laterality for one in pictures(each)] == ["OD", "OS"]


@pytest.mark.parametrize(
    "other",
    [
        {"Laterality": "L"},
        {"FrameLaterality": "left"},
        {"SharedFunctionalGroupsSequence": [of_frame("L")]},
        {"PerFrameFunctionalGroupsSequence": [of_frame("L")]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_contradictory_eyes_for_one_frame_give_none(other):
    (both,) = pictures(changed(dicom_file(RAMP, ImageLaterality="R"), **other))
    assert both.laterality is None and both.flags == ("laterality_contradicted",)


@pytest.mark.parametrize("value", ["O.D.", "RE", "Right Eye", ["R", "B"]])
def test_the_eye_is_read_from_words_of_other_systems(value):
    assert pictures(changed(dicom_file(RAMP), ImageLaterality=value))[0].laterality == "OD"


def test_both_eyes_in_one_element_give_none():
    (both,) = pictures(changed(dicom_file(RAMP), ImageLaterality=["R", "L"]))
    assert both.laterality is None and both.flags == ("laterality_contradicted",)


FULL = RAMP[..., 1] + np.uint8(255 - RAMP[..., 1].max()) * (RAMP[..., 1] > 0)
"""Raised to the highest level, so that it uses all bits."""


@pytest.mark.parametrize(
    ("values", "bits", "flags"),
    [
        (FULL.astype(np.int16) * 8, 12, ()),  # never below zero: 11 bits
        (FULL.astype(np.int16) * 16, 16, ("scaled_by_values",)),
        (FULL.astype(np.int16) * 16 - 2048, 12, ()),
        (FULL.astype(np.int16) * 16 - 2048, 16, ("scaled_by_values",)),
        (FULL, 8, ("header_contradicted",)),  # the standard allows 8 bits no sign
        (RAMP, 8, ("header_contradicted",)),
    ],
)
@pytest.mark.parametrize("syntax", ["explicit", "rle"])
def test_signed_values_are_scaled_by_the_bits_that_they_use(values, bits, flags, syntax):
    stored = values.view(np.uint16) if bits > 8 else values
    (one,) = pictures(changed(dicom_file(stored, syntax, bits=bits), PixelRepresentation=1))
    expected = values if values.ndim == 3 else np.repeat(FULL[..., None], 3, axis=2)
    assert near(one.pixels, expected) and one.flags == flags


@pytest.mark.parametrize("syntax", ["explicit", "jpeg_baseline", "jpeg_2000_lossless"])
@pytest.mark.parametrize(
    ("without", "elements"),
    [
        (["PhotometricInterpretation"], {}),
        ([], {"PhotometricInterpretation": "rgb"}),
        (["BitsStored"], {}),
        (["BitsAllocated"], {}),
        ([], {"NumberOfFrames": -1}),
    ],
)
def test_missing_and_misspelt_elements_are_inferred_from_the_rest(syntax, without, elements):
    (one,) = pictures(changed(dicom_file(RAMP, syntax), without, **elements))
    assert near(one.pixels, RAMP) and "header_contradicted" in one.flags


@pytest.mark.parametrize("stored", [RAMP, RAMP[..., 1], np.stack([RAMP[..., 1], RAMP[::-1, :, 1]])])
def test_one_byte_per_sample_declared_as_two_is_recognised(stored):
    declared = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
    found = pictures(changed(dicom_file(stored), **declared))
    first = stored if stored.shape[-1] == 3 else np.repeat(RAMP[..., 1:2], 3, axis=2)
    assert len(found) == (2 if len(stored) == 2 else 1) and near(found[0].pixels, first)
    assert all("header_contradicted" in one.flags for one in found)


def test_the_eye_is_read_from_the_code_of_its_structure():
    side = Dataset()
    side.CodeValue = "7771000"
    for part in ("AnatomicRegion", "PrimaryAnatomicStructure"):
        item = Dataset()
        setattr(item, f"{part}ModifierSequence", [side])
        data = changed(dicom_file(RAMP, ImageLaterality=""), **{f"{part}Sequence": [item]})
        assert pictures(data)[0].laterality == "OS"


def test_colours_declared_as_three_frames_are_one_picture():
    found = contents(changed(dicom_file(RAMP), NumberOfFrames=3))
    assert [one.frame for one in found.pictures] == [1] and near(found.pictures[0].pixels, RAMP)
    assert "header_contradicted" in found.pictures[0].flags
    assert [one.frame for one in found.lost] == [2, 3]


def test_three_frames_without_a_declared_number_are_three_pictures():
    frames = np.stack([RAMP[..., 1], RAMP[::-1, :, 1], RAMP[:, ::-1, 1]])
    found = pictures(changed(dicom_file(frames), without=["NumberOfFrames"]))
    assert all(near(one.pixels[..., 0], p) for one, p in zip(found, frames, strict=True))
    assert all(one.flags == ("header_contradicted",) for one in found)


def test_a_damaged_jpeg_is_refused_in_dicom_too():
    stream = jpeg(BRIGHT, halved=True, marker=False)
    with pytest.raises(Refused, match="damaged"):
        pictures(in_dicom(stream[: len(stream) * 2 // 3] + b"\xff\xd9"))


def test_an_object_without_its_uid_has_pixels_and_a_header():
    (one,) = pictures(changed(dicom_file(RAMP), without=["SOPInstanceUID"]), keep_header=True)
    assert (one.pixels == RAMP).all() and one.header


def test_several_streams_are_several_frames_whatever_number_is_declared():
    found = pictures(in_dicom(*(jpeg(p, halved=True, marker=False) for p in (RAMP, RAMP[::-1]))))
    assert len(found) == 2 and all("header_contradicted" in one.flags for one in found)
