"""The pixels of a DICOM data set, frame by frame, as 8-bit RGB."""

from collections.abc import Iterator

import numpy as np
import pydicom
from pydicom import uid
from pydicom.pixels import apply_color_lut, iter_pixels

from fundus.images import dicom_jpeg

READERS = {
    **dict.fromkeys(dicom_jpeg.SYNTAXES, dicom_jpeg.NAME),
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.HTJ2KLossless: "pylibjpeg",
    uid.HTJ2KLosslessRPCL: "pylibjpeg",
    uid.HTJ2K: "pylibjpeg",
    uid.RLELossless: "pydicom",
}
"""pydicom's plugin for each compressed syntax. Named, so that the pixels do not depend on what else
is installed."""
NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PALETTE = "PALETTE COLOR"


def frames(dataset: pydicom.Dataset, syntax: str) -> Iterator[np.ndarray]:
    """Every frame as HWC uint8 RGB. What pydicom and its decoders raise passes through.

    Colour of more than 8 bits gives its high 8. Grey goes through rescale slope and intercept and
    the first window, linear, from black at its lower edge to white at its upper; without a window
    its stored bits are scaled to 8, the lowest storable value black. MONOCHROME1 is inverted. VOI
    look-up tables are not applied.
    """
    dicom_jpeg.install()
    photometric = dataset.PhotometricInterpretation
    for stored in iter_pixels(dataset, decoding_plugin=READERS.get(uid.UID(syntax), "")):
        if photometric == PALETTE:
            pixels = _of_palette(stored, dataset)
        elif photometric in GREY:
            grey = _of_grey(stored.astype(np.int32), dataset)
            pixels = np.repeat(grey[..., None], 3, axis=2)
        else:
            pixels = _to_8_bits(stored, dataset.BitsStored)
        yield np.ascontiguousarray(pixels)


def _to_8_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned integers below 2**bits as uint8."""
    if bits > 8:
        values = values >> (bits - 8)
    elif bits < 8:
        values = values * 255 // (2**bits - 1)
    return values.clip(0, 255).astype(np.uint8)


def _of_grey(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """HW stored values as HW uint8, black to white."""
    centre, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    if centre is not None and width is not None and width >= 1:
        slope, intercept = _first(dataset, "RescaleSlope"), _first(dataset, "RescaleIntercept")
        real = values * (1.0 if slope is None else slope) + (intercept or 0.0)
        # The formula of DICOM PS3.3 C.11.2.1.2.1. A window of width 1 is a threshold.
        share = (real - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5
        grey = (255 * share).round().clip(0, 255).astype(np.uint8)
    else:
        signed = 2 ** (dataset.BitsStored - 1) if dataset.PixelRepresentation else 0
        grey = _to_8_bits(values + signed, dataset.BitsStored)
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


def _first(dataset: pydicom.Dataset, keyword: str) -> float | None:
    """The first of an element's numbers; None where there is none."""
    value = dataset.get(keyword)
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if value else None
    return None if value in (None, "") else float(value)


def _of_palette(indices: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """HW indices as HWC uint8, by the data set's own palette."""
    colours = apply_color_lut(indices, dataset)[..., :3]
    deep = colours.dtype != np.uint8 and colours.max(initial=0) > 255
    return (colours >> 8 if deep else colours).astype(np.uint8)
