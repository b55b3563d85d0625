"""DICOM objects: their pictures and the eye that these show.

Nothing about the patient is returned except a keyed hash of the id and, on request, the header.
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
from typing import Any

import pydicom
from pydicom import config, uid
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset

from fundus.dicom_in import eye, frames
from fundus.dicom_in.frames import Element
from fundus.dicom_in.header import complete
from fundus.dicom_in.pixels import COLOUR, GREY, PALETTE, SYNTAXES, Pixels
from fundus.images.content import Contents, Lost, Picture
from fundus.images.refusal import BROKEN, Refused, check_count, check_size

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
"""Storage classes that hold fundus photographs. In other classes, colour is read and grey is
refused: a photograph in the wrong class has colours, but slices of OCT, CT and MR have none."""

MOST_TEXT = 64
"""Characters that the standard allows in the name of a manufacturer or model (VR LO)."""
_BROKEN = (*BROKEN, BytesLengthException, InvalidDicomError)
"""Exceptions that pydicom and its decoders raise on broken bytes, found by fuzzing."""
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
"""Elements that an object derived from this one must repeat, and those that name the eye."""


def read(data: bytes, *, max_pixels: int, subject_key: bytes | None, keep_header: bool) -> Contents:
    """Read the frames of a DICOM object; `picture.contents` describes the result.

    Sizes come from the header and are checked before any pixel is decoded or inflated.

    Args:
        data: The bytes of the object.
        max_pixels: Most pixels of all frames together.
        subject_key: Key for the hash of the patient's id; None for no hash.
        keep_header: Whether to return the elements in `HEADER`.

    Raises:
        Refused: No frame can be read.
    """
    with silence():
        try:
            dataset, element, syntax = _parse(data, most_inflated=6 * max_pixels + (1 << 20))
        except _BROKEN as error:
            raise _broken("it cannot be parsed", error) from None
        try:
            remarks = complete(dataset, syntax)
            element = _check(dataset, element, syntax, max_pixels)
            pixels = Pixels(dataset, element, syntax, remarks)
            check_count(len(pixels))
            check_size(int(dataset.Columns), int(dataset.Rows), max_pixels, len(pixels))
            about = _about(dataset, subject_key, keep_header)
        except MemoryError:
            raise Refused("too_large", "not enough memory for the frames of this DICOM") from None
        except _BROKEN as error:
            raise _broken("its header cannot be read", error) from None
        found = [_frame(pixels, index, about) for index in range(len(pixels))]
    pictures = [one for one in found if isinstance(one, Picture)]
    lost = [one for one in found if isinstance(one, Lost)]
    if not pictures:
        raise Refused(lost[0].status, lost[0].reason)
    return Contents(pictures, lost)


def _frame(pixels: Pixels, index: int, about: dict[str, Any]) -> Picture | Lost:
    try:
        rgb, flags = pixels[index]
        side, remarks = eye.laterality(pixels.dataset, index)
    except MemoryError:
        raise Refused("too_large", "not enough memory for the frames of this DICOM") from None
    except Refused as refused:
        return Lost(index + 1, refused.status, refused.reason)
    except _BROKEN as error:
        broken = _broken(f"its pixels cannot be read, {pixels.syntax.name}", error)
        return Lost(index + 1, broken.status, broken.reason)
    return Picture(rgb, index + 1, side, flags=flags + remarks, **about)


def _about(dataset: pydicom.Dataset, key: bytes | None, keep_header: bool) -> dict[str, Any]:
    """Return the facts that are the same for every frame."""
    return {
        "pixel_spacing": _pixel_spacing(dataset),
        "subject": _subject(dataset, key),
        "manufacturer": _text(dataset, "Manufacturer"),
        "model": _text(dataset, "ManufacturerModelName"),
        "header": _header(dataset) if keep_header else None,
    }


@contextmanager
def silence() -> Iterator[None]:
    """Silence the warnings and the log of pydicom, which quote names, ids and birth dates."""
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


def _parse(data: bytes, most_inflated: int) -> tuple[pydicom.Dataset, Element | None, str]:
    """Return the data set without its pixels, their element and the transfer syntax.

    A deflated data set is inflated here, to at most `most_inflated` bytes.
    """
    stream = io.BytesIO(data)
    if data[128:132] == b"DICM":
        stream.seek(132)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _, __: tag.group != 2)
    syntax = meta.get("TransferSyntaxUID")
    deflated = syntax == uid.DeflatedExplicitVRLittleEndian
    if deflated:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        data = inflater.decompress(stream.read(), most_inflated)
        if inflater.unconsumed_tail:
            raise Refused("too_large", f"a DICOM that inflates beyond {most_inflated} bytes")
    stream = io.BytesIO(data)
    dataset = pydicom.dcmread(stream, force=True, stop_before_pixels=True)
    found = None if deflated else dataset.file_meta.get("TransferSyntaxUID")
    syntax = str(found) if found else _assume_native(dataset)
    _, little = dataset.original_encoding
    element = frames.pixel_element(data, stream.tell(), bool(little))
    return dataset, element, syntax


def _assume_native(dataset: pydicom.Dataset) -> str:
    """Return the syntax of a data set without file meta, as pydicom found it by the first tag."""
    implicit, little = dataset.original_encoding
    native = {(True, True): uid.ImplicitVRLittleEndian, (False, False): uid.ExplicitVRBigEndian}
    syntax = native.get((bool(implicit), bool(little)), uid.ExplicitVRLittleEndian)
    dataset.file_meta.TransferSyntaxUID = syntax
    return str(syntax)


def _check(
    dataset: pydicom.Dataset, element: Element | None, syntax: str, max_pixels: int
) -> Element:
    """Raise Refused if the object is no photograph, of a kind that is not read, or too large."""
    storage = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    kind = _name_of(storage)
    if element is None:
        raise Refused("unsupported", f"a DICOM object without pixels ({kind})")
    if syntax not in SYNTAXES:
        raise Refused("unsupported", f"a DICOM of another transfer syntax ({_name_of(syntax)})")
    photometric = dataset.get("PhotometricInterpretation")
    grey = photometric in GREY
    if not grey and photometric not in (*COLOUR, PALETTE):
        raise Refused("unsupported", "a DICOM of another photometric interpretation")
    if storage not in PHOTOGRAPHS and grey:
        raise Refused("unsupported", f"a DICOM of a kind that holds no photographs ({kind})")
    if dataset.BitsAllocated not in (8, 16) or dataset.BitsStored < 1:
        raise Refused("unsupported", "a DICOM with another depth than 8 or 16 bits")
    dataset.BitsStored = min(dataset.BitsStored, dataset.BitsAllocated)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    count = int(dataset.get("NumberOfFrames") or 1)
    if min(rows, columns, count) < 1:
        raise Refused("decode_failed", "broken DICOM: it has no rows, columns or frames")
    check_count(count)
    check_size(columns, rows, max_pixels, count)
    return element


def _name_of(value: object) -> str:
    """Return the standard's name for a UID. Other UIDs may be anything and are not repeated."""
    known = uid.UID_dictionary.get(str(value))
    return known[0] if known else "unknown to the standard"


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
    """Return the printable characters of a short text in the header; None if there are none."""
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
    """Return the readable elements in `HEADER` as a DICOM file of explicit little endian.

    The file is also written without the UIDs that DICOM requires. `dicom_out` decides whether it
    can build an object from it.
    """
    copy = pydicom.Dataset()
    for keyword in HEADER:
        with suppress(*_BROKEN):  # KeyError where it is absent among them
            copy[keyword] = dataset[keyword]
    copy.preamble = bytes(128)
    copy.file_meta = pydicom.dataset.FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, copy)
    return stream.getvalue()
