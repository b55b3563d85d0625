"""DICOM files like those that fundus cameras and archives send, for tests and benchmarks."""

import io

import numpy as np
import pydicom
from imagecodecs import jpeg8_encode
from PIL import Image
from pydicom import uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

BY_PYDICOM = {
    "rle": (uid.RLELossless, {}),
    "jpeg_ls": (uid.JPEGLSLossless, {}),
    "jpeg_ls_near": (uid.JPEGLSNearLossless, {"jls_error": 2}),
    "jpeg_2000_lossless": (uid.JPEG2000Lossless, {}),
    "jpeg_2000": (uid.JPEG2000, {"j2k_psnr": [50]}),
}
BY_JPEG = {
    "jpeg_baseline": (uid.JPEGBaseline8Bit, {"level": 95}),
    "jpeg_extended": (uid.JPEGExtended12Bit, {"level": 95}),
    "jpeg_lossless": (uid.JPEGLossless, {"lossless": True, "predictor": 4}),
    "jpeg_lossless_sv1": (uid.JPEGLosslessSV1, {"lossless": True, "predictor": 1}),
}
NATIVE = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big_endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
}
SYNTAXES = (*NATIVE, *BY_PYDICOM, *BY_JPEG)
LOSSY = ("jpeg_ls_near", "jpeg_2000", "jpeg_baseline", "jpeg_extended")


def dicom_file(
    pixels: np.ndarray,
    syntax: str = "explicit",
    *,
    bits: int | None = None,
    storage: str = uid.OphthalmicPhotography8BitImageStorage,
    number: int = 1,
    **elements: object,
) -> bytes:
    """Return unsigned pixels, ([frames,] H, W) grey or ([frames,] H, W, 3) RGB, as a DICOM file.

    bits: bits stored, by default all bits of the dtype. number: makes the UIDs of one object differ
    from another's. Further elements, by keyword, replace the others.
    """
    colour = pixels.shape[-1] == 3
    frames = pixels if pixels.ndim == 3 + colour else pixels[None]
    dataset = _dataset(frames, bits or 8 * pixels.itemsize, storage, number)
    if syntax in BY_JPEG:
        _encapsulate_jpeg(dataset, frames, syntax)
    else:
        _fill_native(dataset, frames, syntax)
        if syntax in BY_PYDICOM:
            target, options = BY_PYDICOM[syntax]
            dataset.compress(target, generate_instance_uid=False, **options)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _dataset(frames: np.ndarray, bits: int, storage: str, number: int) -> pydicom.Dataset:
    """Return all elements that dciodvfy requires of an ophthalmic photograph, except pixels."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = storage
    dataset.SOPInstanceUID = f"2.25.{7_000_000 + number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.7000001", "2.25.7000002"
    dataset.FrameOfReferenceUID = "2.25.7000003"
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = "Planted^Name", "PLANTED-ID-77"
    dataset.PatientBirthDate, dataset.PatientSex = "19420317", "O"
    dataset.StudyDate, dataset.StudyTime = "20240229", "101500"
    dataset.ContentDate, dataset.ContentTime = "20240229", "101501"
    dataset.AcquisitionDateTime = "20240229101501"
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, number
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.Modality, dataset.Manufacturer = "OP", "Drawn"
    dataset.ImageLaterality, dataset.PixelSpacing = "R", [0.006, 0.006]
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    dataset.NumberOfFrames = len(frames)
    dataset.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    dataset.PhotometricInterpretation = "RGB" if frames.ndim == 4 else "MONOCHROME2"
    if frames.ndim == 4:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored = 8 * frames.itemsize, bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = storage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _fill_native(dataset: pydicom.Dataset, frames: np.ndarray, syntax: str) -> None:
    dataset.file_meta.TransferSyntaxUID = NATIVE.get(syntax, uid.ExplicitVRLittleEndian)
    data = frames.astype(frames.dtype.newbyteorder(">" if syntax == "big_endian" else "<"))
    raw = data.tobytes()
    dataset.add_new("PixelData", "OW" if frames.itemsize > 1 else "OB", raw + bytes(len(raw) % 2))


def _encapsulate_jpeg(dataset: pydicom.Dataset, frames: np.ndarray, syntax: str) -> None:
    target, options = BY_JPEG[syntax]
    dataset.file_meta.TransferSyntaxUID = target
    if syntax == "jpeg_baseline":  # as cameras write it, with subsampled colour
        coded = [_pillow_jpeg(frame) for frame in frames]
    else:
        bits = {"bitspersample": dataset.BitsStored} if frames.itemsize > 1 else {}
        coded = [jpeg8_encode(np.ascontiguousarray(f), **options, **bits) for f in frames]
    if frames.ndim == 4 and syntax in LOSSY:
        dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.PixelData = encapsulate(coded)
    dataset["PixelData"].is_undefined_length = True


def _pillow_jpeg(frame: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=95)
    return stream.getvalue()
