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
BRIGHT = (RAMP // 2 + 100).astype(np.uint8)  # without one, by which its colours could be told


def changed(data, without=(), **elements):
    """The DICOM file with other elements."""
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
    """A JPEG of YCbCr with halved colour or without, and with an APP14 of transform 1 or none."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=2 if halved else 0)
    plain = stream.getvalue()
    length = int.from_bytes(plain[4:6], "big")
    assert plain[2:4] == b"\xff\xe0"  # JFIF
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x01" if marker else b""
    return plain[:2] + adobe + plain[4 + length :]


@pytest.mark.parametrize(("halved", "marker"), [(True, False), (False, True), (True, True)])
def test_rgb_said_and_ycbcr_meant(halved, marker):
    (one,) = pictures(
        in_dicom(jpeg(BRIGHT, halved=halved, marker=marker), PhotometricInterpretation="RGB")
    )
    assert near(one.pixels, BRIGHT) and "colours_by_content" in one.flags


def test_ycbcr_said_and_rgb_meant():
    letters = jpeg8_encode(BRIGHT, 95, colorspace="RGB", outcolorspace="RGB")
    (one,) = pictures(in_dicom(letters, PhotometricInterpretation="YBR_FULL_422"))
    assert near(one.pixels, BRIGHT) and "colours_by_content" in one.flags


@pytest.mark.parametrize("meant", ["RGB", "YBR_FULL"])
def test_three_bytes_a_pixel_that_are_said_to_be_halved(meant):
    stored = RAMP if meant == "RGB" else cv2.cvtColor(RAMP, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    data = changed(dicom_file(stored), PhotometricInterpretation="YBR_FULL_422")
    (one,) = pictures(data)
    assert near(one.pixels, RAMP, 2) and "header_contradicted" in one.flags


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("photometric", ["RGB", "MONOCHROME2"])
def test_the_number_of_samples_is_that_of_the_pixels(syntax, samples, photometric):
    lie = {"SamplesPerPixel": samples, "PhotometricInterpretation": photometric}
    (one,) = pictures(changed(dicom_file(RAMP, syntax), **lie))
    assert near(one.pixels, RAMP) and (one.flags or lie["PhotometricInterpretation"] == "RGB")


@pytest.mark.parametrize("said", [0, 1])
def test_planes_are_told_from_pixels(said):
    for is_, stored in enumerate((RAMP, RAMP.transpose(2, 0, 1))):
        data = changed(dicom_file(RAMP), PixelData=stored.tobytes(), PlanarConfiguration=said)
        (one,) = pictures(data)
        assert near(one.pixels, RAMP)
        assert one.flags == (() if said == is_ else ("header_contradicted",))


@pytest.mark.parametrize("elements", [{"Columns": 7_000}, {"SamplesPerPixel": 1, "Rows": 97}])
def test_a_length_that_no_layout_has_is_refused_before_decoding(elements):
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


def said_to_be(data, syntax):
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


@pytest.mark.parametrize("said", KINDS)
@pytest.mark.parametrize("is_", KINDS)
def test_the_syntax_is_that_of_the_pixels(is_, said):
    data = said_to_be(dicom_file(RAMP, is_), KINDS[said])
    (one,) = pictures(data)
    assert near(one.pixels, RAMP)
    alike = {"implicit", "explicit"}, {"jpeg_baseline", "jpeg_lossless"}, {is_}
    contradicted = not any({is_, said} <= kin for kin in alike)
    assert ("header_contradicted" in one.flags) == contradicted


def test_the_marker_of_one_kind_by_chance_in_a_stream_of_another():
    """FF4F FF51 begins JPEG 2000. In 7.5 MB of JPEG-LS from a camera it stood by chance."""
    data = dicom_file(RAMP, "jpeg_ls")
    at = data.index(b"\xff\xd8\xff\xf7")
    (fragment,) = pydicom.encaps.generate_frames(
        pydicom.dcmread(io.BytesIO(data)).PixelData, number_of_frames=1
    )
    comment = b"\xff\xfe\0\x06\xff\x4f\xff\x51"
    assert data[at : at + 4] == fragment[:4]
    whole = encapsulate([fragment[:2] + comment + fragment[2:]])
    assert (pictures(changed(data, PixelData=whole))[0].pixels == RAMP).all()


# What is cut off in a deflated object cannot be told from what is not inflated.
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
    """Two bytes per pixel: of each pair its two luminances, then the colour that it shares."""
    luminance, red, blue = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb))
    columns = luminance[:, ::2], luminance[:, 1::2], blue[:, ::2], red[:, ::2]
    return np.stack(columns, axis=-1).tobytes()


@pytest.mark.parametrize("thirds", [2, 3])
def test_a_cut_off_object_of_halved_colour_is_read_by_the_bytes_that_a_pixel_really_has(thirds):
    frames = [RAMP, RAMP[::-1]]
    stored = [halved(one) if thirds == 2 else one.tobytes() for one in frames]
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


def test_jpeg_ls_without_its_end_is_read_where_it_is_whole():
    stream = jpegls_encode(RAMP)
    data = dicom_file(RAMP, "jpeg_ls")
    (one,) = pictures(changed(data, PixelData=encapsulate([stream[:-2]])))
    assert (one.pixels == RAMP).all() and one.flags == ("jpeg_end_missing",)


def test_broken_jpeg_ls_without_its_end_is_refused_and_not_read_on_for_ever():
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
def test_the_eye_in_every_word(keyword, word, eye):
    data = changed(dicom_file(RAMP, ImageLaterality=""), **{keyword: word})
    assert pictures(data)[0].laterality == eye


def of_frame(side):
    """An item of a functional groups sequence."""
    anatomy, groups = Dataset(), Dataset()
    anatomy.FrameLaterality = side
    groups.FrameAnatomySequence = Sequence([anatomy])
    return groups


def test_the_eye_of_all_frames_and_of_each():
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
def test_two_eyes_for_one_frame_are_none(other):
    (both,) = pictures(changed(dicom_file(RAMP, ImageLaterality="R"), **other))
    assert both.laterality is None and both.flags == ("laterality_contradicted",)


@pytest.mark.parametrize("value", ["O.D.", "RE", "Right Eye", ["R", "B"]])
def test_the_eye_in_words_of_other_systems(value):
    assert pictures(changed(dicom_file(RAMP), ImageLaterality=value))[0].laterality == "OD"


def test_both_eyes_in_one_element_are_none():
    (both,) = pictures(changed(dicom_file(RAMP), ImageLaterality=["R", "L"]))
    assert both.laterality is None and both.flags == ("laterality_contradicted",)


FULL = RAMP[..., 1] + np.uint8(255 - RAMP[..., 1].max()) * (RAMP[..., 1] > 0)
"""To the last level, so that the bits that it uses are all."""


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
def test_signed_values_are_scaled_by_what_they_use(values, bits, flags, syntax):
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
def test_what_a_header_lacks_or_misspells_and_the_rest_tells(syntax, without, elements):
    (one,) = pictures(changed(dicom_file(RAMP, syntax), without, **elements))
    assert near(one.pixels, RAMP) and "header_contradicted" in one.flags


@pytest.mark.parametrize("stored", [RAMP, RAMP[..., 1], np.stack([RAMP[..., 1], RAMP[::-1, :, 1]])])
def test_one_byte_per_sample_that_is_said_to_be_two(stored):
    said = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
    found = pictures(changed(dicom_file(stored), **said))
    first = stored if stored.shape[-1] == 3 else np.repeat(RAMP[..., 1:2], 3, axis=2)
    assert len(found) == (2 if len(stored) == 2 else 1) and near(found[0].pixels, first)
    assert all("header_contradicted" in one.flags for one in found)


def test_the_eye_by_the_code_of_its_structure():
    side = Dataset()
    side.CodeValue = "7771000"
    for part in ("AnatomicRegion", "PrimaryAnatomicStructure"):
        item = Dataset()
        setattr(item, f"{part}ModifierSequence", [side])
        data = changed(dicom_file(RAMP, ImageLaterality=""), **{f"{part}Sequence": [item]})
        assert pictures(data)[0].laterality == "OS"


def test_colours_are_not_three_frames_because_a_number_says_so():
    found = contents(changed(dicom_file(RAMP), NumberOfFrames=3))
    assert [one.frame for one in found.pictures] == [1] and near(found.pictures[0].pixels, RAMP)
    assert "header_contradicted" in found.pictures[0].flags
    assert [one.frame for one in found.lost] == [2, 3]


def test_three_frames_are_not_colours_because_no_number_is_said():
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


def test_several_streams_are_several_frames_whatever_their_number_is_said_to_be():
    found = pictures(in_dicom(*(jpeg(p, halved=True, marker=False) for p in (RAMP, RAMP[::-1]))))
    assert len(found) == 2 and all("header_contradicted" in one.flags for one in found)
