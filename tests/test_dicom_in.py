import hashlib
import hmac
import io
import logging
import traceback
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from dicom_files import LOSSY, SYNTAXES, dicom_file
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid

from fundus.decoding.picture import pictures
from fundus.images.decode import Refused, decode

SMOOTH = np.add.outer(np.arange(48) * 2, np.arange(60))[..., None] + np.array([90, 40, 5])
SMOOTH = SMOOTH.clip(0, 255).astype(np.uint8)
GREY = SMOOTH[..., 0]
PLANTED = ("Planted", "PLANTED-ID-77", "19420317", "1942")


def refusal(data, **options):
    with pytest.raises(Refused) as caught:
        pictures(data, **options)
    return caught.value.status, caught.value.reason


def changed(data, **elements):
    """The DICOM file with these elements changed."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def shipped(name):
    """A file that pydicom ships."""
    folder = Path(pydicom.data.__file__).parent / "test_files"
    return pydicom.dcmread(folder / name, force=True)


def as_photograph(dataset):
    dataset.SOPClassUID = uid.VLPhotographicImageStorage
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("pixels", [SMOOTH, GREY, SMOOTH.astype(np.uint16) * 16])
def test_every_transfer_syntax_gives_its_pixels(syntax, pixels):
    deep = pixels.dtype == np.uint16
    if deep and (syntax == "jpeg_baseline"):
        pytest.skip("baseline JPEG has 8 bits")
    data = dicom_file(pixels, syntax, bits=12 if deep else 8)
    (picture,) = pictures(data)
    expected = SMOOTH if pixels.ndim == 3 else np.repeat(GREY[..., None], 3, axis=2)
    error = abs(picture.pixels.astype(int) - expected)
    assert picture.pixels.dtype == np.uint8 and picture.pixels.shape == (48, 60, 3)
    assert error.max() <= (8 if syntax in LOSSY else 0) and error.mean() < 1.5


def test_real_frames_come_through_every_transfer_syntax(fundus_data):
    frame = decode((fundus_data / "variety/drive/01_test.tif").read_bytes())
    for syntax in SYNTAXES:
        (picture,) = pictures(dicom_file(frame, syntax))
        error = abs(picture.pixels.astype(int) - frame).mean()
        assert error == 0 if syntax not in LOSSY else error < 2.5, (syntax, error)


def test_a_baseline_frame_has_the_pixels_of_the_same_jpeg_as_a_file():
    stream = io.BytesIO()
    Image.fromarray(SMOOTH).save(stream, "JPEG", quality=95)
    (picture,) = pictures(dicom_file(SMOOTH, "jpeg_baseline"))
    assert (picture.pixels == decode(stream.getvalue())).all()


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_dcmtk_+eb+cr.dcm",
        "SC_rgb_dcmtk_+eb+cy+n1.dcm",
        "SC_rgb_dcmtk_+eb+cy+s4.dcm",
        "SC_rgb_jls_lossy_line.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "SC_rgb_gdcm_KY.dcm",
        "SC_rgb_rle_16bit.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
    ],
)
def test_the_colours_of_other_writers_are_right(name):
    """Bars from top to bottom: red, pale red, green, pale green, blue."""
    (picture,) = pictures(as_photograph(shipped(name)))
    bars = picture.pixels[5::10, 50].astype(int)
    expected = [(255, 0, 0), (255, 128, 128), (0, 255, 0), (128, 255, 128), (0, 0, 255)]
    assert abs(bars[:5] - expected).max() <= 6


def test_a_palette_is_looked_up():
    (picture,) = pictures(as_photograph(shipped("examples_palette.dcm")))
    assert picture.pixels.shape == (350, 800, 3)
    assert len(np.unique(picture.pixels.reshape(-1, 3), axis=0)) > 100
    assert (picture.pixels.max(axis=2) != picture.pixels.min(axis=2)).mean() > 0.1  # colours


def test_grey_is_inverted_windowed_or_scaled_by_its_bits():
    deep = GREY.astype(np.uint16) * 16
    (plain,) = pictures(dicom_file(deep, bits=12))
    (inverted,) = pictures(dicom_file(deep, bits=12, PhotometricInterpretation="MONOCHROME1"))
    assert (plain.pixels[..., 0] == GREY).all() and (inverted.pixels == 255 - plain.pixels).all()
    window = {"WindowCenter": 2048, "WindowWidth": 1024}
    (windowed,) = pictures(dicom_file(deep, bits=12, **window))
    expected = ((deep - 2047.5) / 1023 + 0.5).clip(0, 1) * 255
    assert abs(windowed.pixels[..., 0] - expected).max() <= 0.5
    rescaled = {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": 3996}
    (same,) = pictures(dicom_file(deep, bits=12, WindowWidth=2048, **rescaled))
    assert abs(same.pixels.astype(int) - windowed.pixels).max() <= 1
    signed = (deep.astype(np.int16) - 2048).view(np.uint16)
    (lifted,) = pictures(dicom_file(signed, bits=12, PixelRepresentation=1))
    assert (lifted.pixels[..., 0] == GREY).all()


def test_each_of_several_frames_is_a_picture():
    frames = np.stack([SMOOTH, 255 - SMOOTH, SMOOTH[::-1]])
    for syntax in ("explicit", "jpeg_lossless", "rle"):
        found = pictures(dicom_file(frames, syntax))
        assert [p.frame for p in found] == [1, 2, 3]
        assert (np.stack([p.pixels for p in found]) == frames).all()


def test_the_camera_is_named_by_the_header_and_briefly():
    data = dicom_file(SMOOTH, Manufacturer=" Maker\x07 ", ManufacturerModelName="M" * 500)
    (found,) = pictures(data)
    assert (found.manufacturer, found.model) == ("Maker", "M" * 64)
    assert pictures(dicom_file(SMOOTH, Manufacturer=""))[0].manufacturer is None


def test_laterality_and_pixel_spacing_are_read():
    right, left = (dicom_file(SMOOTH, ImageLaterality=side) for side in "RL")
    assert [pictures(data)[0].laterality for data in (right, left)] == ["OD", "OS"]
    series = dicom_file(SMOOTH, ImageLaterality="", Laterality="L")
    both = dicom_file(SMOOTH, ImageLaterality="B")
    assert [pictures(data)[0].laterality for data in (series, both)] == ["OS", None]
    assert pictures(right)[0].pixel_spacing == (0.006, 0.006)
    detector = dicom_file(SMOOTH, PixelSpacing=None, ImagerPixelSpacing=[0.01, 0.02])
    nonsense = dicom_file(SMOOTH, PixelSpacing=[0, 0.01])
    assert pictures(detector)[0].pixel_spacing == (0.01, 0.02)
    assert pictures(nonsense)[0].pixel_spacing is None


def test_the_subject_is_a_keyed_hash_of_the_patient_id():
    data = dicom_file(SMOOTH)
    assert pictures(data)[0].subject is None
    expected = hmac.new(b"key", b"PLANTED-ID-77", hashlib.sha256).hexdigest()
    assert pictures(data, subject_key=b"key")[0].subject == expected
    padded = dicom_file(SMOOTH, PatientID="PLANTED-ID-77 ")
    assert pictures(padded, subject_key=b"key")[0].subject == expected
    assert pictures(dicom_file(SMOOTH, PatientID=""), subject_key=b"key")[0].subject is None


def test_the_header_comes_without_pixels_and_only_on_request():
    data = dicom_file(SMOOTH, PatientComments="shy", OperatorsName="Nurse^N")
    assert pictures(data)[0].header is None
    header = pydicom.dcmread(io.BytesIO(pictures(data, keep_header=True)[0].header))
    assert header.PatientID == "PLANTED-ID-77" and header.SOPInstanceUID == "2.25.7000001"
    assert not {"PixelData", "PatientComments", "OperatorsName"} & set(header.dir())


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (dicom_file(GREY, storage=uid.CTImageStorage), "unsupported", "CT Image Storage"),
        (dicom_file(SMOOTH, storage="1.2.3.77"), None, None),  # colour is plausible anywhere
        (dicom_file(GREY, storage="1.2.3.77"), "unsupported", "unknown to the standard"),
        (changed(dicom_file(SMOOTH), NumberOfFrames=10**9), "too_large", "too many frames"),
        (changed(dicom_file(SMOOTH), Rows=60_000, Columns=60_000), "too_large", "60000 x 60000"),
        (changed(dicom_file(SMOOTH, "rle"), Rows=49), "decode_failed", "RLE"),
        (changed(dicom_file(SMOOTH, "jpeg_baseline"), Rows=49), "decode_failed", "JPEG"),
        (changed(dicom_file(SMOOTH), BitsAllocated=32, BitsStored=32), "unsupported", "depth"),
        (changed(dicom_file(SMOOTH), PhotometricInterpretation="HSV"), "unsupported", "photom"),
        (dicom_file(SMOOTH, "explicit")[:-500], "decode_failed", "cut off"),
        (dicom_file(SMOOTH)[:140], "unsupported", "without pixels"),
        (bytes(128) + b"DICM", "unsupported", "without pixels"),
    ],
)
def test_every_refusal_says_why(data, status, reason):
    if status is None:
        assert pictures(data)[0].pixels.shape == (48, 60, 3)
    else:
        found = refusal(data)
        assert found[0] == status and reason in found[1]


def test_a_deflated_object_inflates_within_bounds():
    data = dicom_file(SMOOTH, "deflated")
    at = data.index(b"1.2.840.10008.1.2.1.99") + 22
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(1 << 20)
    bomb = data[:at] + b"".join(packer.compress(zeros) for _ in range(64)) + packer.flush()
    status, reason = refusal(bomb, max_pixels=1_000_000)
    assert status == "too_large" and "inflates" in reason


def spliced(data, tag, vr, value):
    """The explicit little endian file with this value in an element of a short VR."""
    at = data.index(tag + vr)
    end = at + 8 + int.from_bytes(data[at + 6 : at + 8], "little")
    return data[: at + 6] + len(value).to_bytes(2, "little") + value + data[end:]


def test_no_name_id_or_birth_date_is_raised_warned_or_logged(caplog):
    """pydicom quotes values that it cannot parse, and a name may be in any element."""
    caplog.set_level(logging.DEBUG)
    sound, name = dicom_file(SMOOTH), b"Planted^Name"
    wrong = [
        spliced(sound, b"\x28\0\x08\0", b"IS", name),  # NumberOfFrames
        spliced(sound, b"\x20\0\x13\0", b"IS", name),  # InstanceNumber
        spliced(sound, b"\x28\0\x30\0", b"DS", name),  # PixelSpacing
        spliced(sound, b"\x08\0\x20\0", b"DA", name),  # StudyDate
        spliced(sound, b"\x28\0\x04\0", b"CS", name),  # PhotometricInterpretation
        spliced(sound, b"\x08\0\x16\0", b"UI", name),  # SOPClassUID
        spliced(sound, b"\x02\0\x10\0", b"UI", name),  # TransferSyntaxUID
        spliced(sound, b"\x08\0\x05\0", b"CS", name),  # SpecificCharacterSet
        sound.replace(b"\x10\0\x10\0PN", b"\x10\0\x10\0IS"),
    ]
    texts = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for data in wrong:
            try:
                pictures(data, keep_header=True, subject_key=b"k")
            except Refused as refused:
                texts.append("".join(traceback.format_exception(refused)))
    assert len(texts) >= 3
    texts += [str(w.message) for w in warned] + [record.getMessage() for record in caplog.records]
    assert not [text for text in texts for word in PLANTED if word in text]


def test_a_file_without_preamble_is_read():
    data = dicom_file(SMOOTH)
    assert (pictures(data[132:])[0].pixels == SMOOTH).all()
    bare = pydicom.Dataset(pydicom.dcmread(io.BytesIO(data)))
    for implicit in (True, False):
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, bare, implicit_vr=implicit, little_endian=True)
        assert stream.getvalue().startswith(b"\x08\0\x05\0")
        assert (pictures(stream.getvalue())[0].pixels == SMOOTH).all()


SOUND = [dicom_file(SMOOTH, syntax) for syntax in SYNTAXES]


@settings(max_examples=300, deadline=None)
@given(
    sound=st.sampled_from(SOUND),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=4),
    keep=st.floats(0, 1),
)
def test_mutated_objects_are_decoded_or_refused(sound, changes, keep):
    data = bytearray(sound)
    for place, values in changes:
        at = int(place * len(data))
        data[at : at + len(values)] = values
    if keep < 0.2:
        data = data[: int(5 * keep * len(data))]
    try:
        found = pictures(bytes(data), max_pixels=1_000_000, subject_key=b"k", keep_header=True)
    except Refused as refused:
        assert refused.status in ("decode_failed", "unsupported", "too_large")
    else:
        assert all(p.pixels.dtype == np.uint8 and p.pixels.shape[2:] == (3,) for p in found)
