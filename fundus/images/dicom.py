"""DICOM objects: their pictures and what they say of the eye.

Of the patient nothing leaves but a keyed hash of the id, and the header where it is asked for.
"""

import hashlib
import hmac
import io
import logging
import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pydicom
from pydicom import config, uid
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset

from fundus.images import dicom_pixels
from fundus.images.decode import BROKEN, Refused, check_size
from fundus.images.picture import Picture

PHOTOGRAPHS = (
    uid.OphthalmicPhotography8BitImageStorage,
    uid.OphthalmicPhotography16BitImageStorage,
    uid.WideFieldOphthalmicPhotographyStereographicProjectionImageStorage,
    uid.WideFieldOphthalmicPhotography3DCoordinatesImageStorage,
    uid.VLPhotographicImageStorage,
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
)
"""Storage classes that hold fundus photographs. Of others, colour is read and grey is refused: a
photograph that was filed wrongly has colours, slices of OCT, CT and MR have none."""

MOST_FRAMES = 1000
MOST_TEXT = 64
"""Characters that the standard allows in the name of a manufacturer or model (VR LO)."""
_BROKEN = (*BROKEN, BytesLengthException, InvalidDicomError)
"""What pydicom and its decoders raise on broken bytes, by fuzzing."""
HEADER = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "Modality", "Manufacturer"),
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber"),
    *("ReferringPhysicianName", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber"),
    *("FrameOfReferenceUID", "AcquisitionDateTime", "ContentDate", "ContentTime"),
    *("Laterality", "ImageLaterality", "NumberOfFrames", "Rows", "Columns"),
    *("PixelSpacing", "ImagerPixelSpacing", "PositionReferenceIndicator"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
"""What an object that is derived from this one must repeat of it, and what says which eye."""


def read(
    data: bytes, *, max_pixels: int, subject_key: bytes | None, keep_header: bool
) -> list[Picture]:
    """The frames of a DICOM object, as `picture.pictures` promises them. Raises Refused.

    Sizes come from the header and are checked before any pixel is decoded or inflated.
    """
    with silence():
        try:
            dataset, syntax = _parse(data, most_inflated=6 * max_pixels + (1 << 20))
        except _BROKEN as error:
            raise _broken("it cannot be parsed", error) from None
        try:
            _check(dataset, syntax, max_pixels)
            laterality, spacing = _laterality(dataset), _pixel_spacing(dataset)
            subject = _subject(dataset, subject_key)
            camera = _text(dataset, "Manufacturer"), _text(dataset, "ManufacturerModelName")
            header = _header(dataset) if keep_header else None
            return [
                Picture(pixels, number, laterality, spacing, subject, *camera, header)
                for number, pixels in enumerate(dicom_pixels.frames(dataset, syntax), start=1)
            ]
        except MemoryError:
            raise Refused("too_large", "not enough memory for the frames of this DICOM") from None
        except _BROKEN as error:
            raise _broken(f"its pixels cannot be read, {uid.UID(syntax).name}", error) from None


@contextmanager
def silence() -> Iterator[None]:
    """pydicom's warnings and log quote values: names, ids and birth dates among them."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "pylibjpeg", "openjpeg")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _broken(what: str, error: Exception) -> Refused:
    return Refused("decode_failed", f"broken DICOM: {what} ({type(error).__name__})")


def _parse(data: bytes, most_inflated: int) -> tuple[pydicom.Dataset, str]:
    """The data set and its transfer syntax. Deflated ones are inflated here, within a bound."""
    stream = io.BytesIO(data)
    if data[128:132] == b"DICM":
        stream.seek(132)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _, __: tag.group != 2)
    syntax = meta.get("TransferSyntaxUID")
    if syntax != uid.DeflatedExplicitVRLittleEndian:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        found = dataset.file_meta.get("TransferSyntaxUID")
        return dataset, str(found) if found else _assume_native(dataset)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = inflater.decompress(stream.read(), most_inflated)
    if inflater.unconsumed_tail:
        raise Refused("too_large", f"a DICOM that inflates beyond {most_inflated} bytes")
    dataset = pydicom.dcmread(io.BytesIO(plain), force=True)
    return dataset, _assume_native(dataset)


def _assume_native(dataset: pydicom.Dataset) -> str:
    """The syntax of a data set without file meta: pydicom has told it from the first element."""
    implicit, little = dataset.original_encoding
    native = {(True, True): uid.ImplicitVRLittleEndian, (False, False): uid.ExplicitVRBigEndian}
    syntax = native.get((bool(implicit), bool(little)), uid.ExplicitVRLittleEndian)
    dataset.file_meta.TransferSyntaxUID = syntax
    return str(syntax)


def _check(dataset: pydicom.Dataset, syntax: str, max_pixels: int) -> None:
    """Refused where the object is no photograph, of a kind that is not read, or too large."""
    storage = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    kind = _name_of(storage)
    if "PixelData" not in dataset:
        raise Refused("unsupported", f"a DICOM object without pixels ({kind})")
    if syntax not in (*dicom_pixels.NATIVE, *dicom_pixels.READERS):
        raise Refused("unsupported", f"a DICOM of another transfer syntax ({_name_of(syntax)})")
    photometric = dataset.get("PhotometricInterpretation")
    grey = photometric in dicom_pixels.GREY
    if not grey and photometric not in (*dicom_pixels.COLOUR, dicom_pixels.PALETTE):
        raise Refused("unsupported", "a DICOM of another photometric interpretation")
    if storage not in PHOTOGRAPHS and grey:
        raise Refused("unsupported", f"a DICOM of a kind that holds no photographs ({kind})")
    if not 1 <= dataset.BitsStored <= dataset.BitsAllocated <= 16:
        raise Refused("unsupported", "a DICOM with another depth than 1 to 16 bits")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    count = int(dataset.get("NumberOfFrames") or 1)
    if min(rows, columns, count) < 1:
        raise Refused("decode_failed", "broken DICOM: it has no rows, columns or frames")
    if count > MOST_FRAMES:
        raise Refused("too_large", f"too many frames ({count}; at most {MOST_FRAMES})")
    check_size(columns, rows, max_pixels, count)


def _name_of(value: object) -> str:
    """The standard's name for a UID. Others may be anything and are not repeated."""
    known = uid.UID_dictionary.get(str(value))
    return known[0] if known else "unknown to the standard"


def _laterality(dataset: pydicom.Dataset) -> str | None:
    for keyword in ("ImageLaterality", "Laterality"):
        side = {"R": "OD", "L": "OS"}.get(str(dataset.get(keyword) or "").strip().upper())
        if side:
            return side
    return None


def _pixel_spacing(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            rows, columns = (float(value) for value in dataset.get(keyword))
        except _BROKEN:  # absent, one number, or none
            continue
        if 0 < rows < math.inf and 0 < columns < math.inf:
            return rows, columns
    return None


def _text(dataset: pydicom.Dataset, keyword: str) -> str | None:
    """A short text of the header, only its printable characters; None where there is none."""
    try:
        found = str(dataset.get(keyword) or "")
    except _BROKEN:
        return None
    text = "".join(c for c in found if c.isprintable())
    return text.strip()[:MOST_TEXT] or None


def _subject(dataset: pydicom.Dataset, key: bytes | None) -> str | None:
    patient = str(dataset.get("PatientID") or "").strip(" \0")
    if not patient or key is None:
        return None
    return hmac.new(key, patient.encode(), hashlib.sha256).hexdigest()


def _header(dataset: pydicom.Dataset) -> bytes:
    """The elements in `HEADER` that can be read, as a DICOM file of explicit little endian."""
    kept = pydicom.Dataset()
    for keyword in HEADER:
        with suppress(*_BROKEN):  # KeyError where it is absent among them
            kept[keyword] = dataset[keyword]
    kept.file_meta = pydicom.dataset.FileMetaDataset()
    kept.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, kept, enforce_file_format=True)
    return stream.getvalue()
