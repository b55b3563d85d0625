"""Stored values of one channel as grey or colours: window, rescale, inversion, palette."""

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut

from fundus.images import levels
from fundus.images.content import SCALED

BLANK, BURNT = 16, 239
"""8-bit levels. After a window that leaves nearly all pixels below the first or above the second,
the picture shows nothing."""

Flags = tuple[str, ...]


def of_values(values: np.ndarray, bits: int, dataset: pydicom.Dataset) -> tuple[np.ndarray, Flags]:
    """Return stored HW integers of `bits` bits as HW uint8, black to white, and the remarks."""
    if dataset.get("PixelRepresentation") and bits > 8 and values.dtype.kind == "u":
        # The decoder ignored the sign, so these are two's complements.
        values = values.astype(np.int32)
        values = values - (values >> (bits - 1) << bits)
    plain, flags = _without_window(values, bits)
    grey = _windowed(values.astype(np.int32), dataset)
    if grey is None or (_blank(grey) and not _blank(plain)):
        flags = flags if grey is None else (SCALED,)
        grey = plain
    else:
        flags = ()
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey, flags


def _without_window(values: np.ndarray, bits: int) -> tuple[np.ndarray, Flags]:
    """Scale by the bits that the values use. Signed values without negatives have one bit less."""
    if values.min(initial=0) >= 0:
        return levels.to_8_bits(values.astype(np.uint16), bits - (values.dtype.kind == "i"))
    values = values.astype(np.int32)
    used = levels.depth(2 * np.where(values < 0, ~values, values) + 1, bits)
    above_zero = (values + 2 ** (used - 1)).clip(0, 2**used - 1)
    return levels.high_byte(above_zero, used), (SCALED,) if used != bits else ()


def _windowed(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray | None:
    """Apply the rescale slope and intercept and the first window; None if there is no window."""
    centre, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    if centre is None or width is None or width < 1:
        return None
    slope, intercept = _first(dataset, "RescaleSlope"), _first(dataset, "RescaleIntercept")
    real = values * (1.0 if slope is None else slope) + (intercept or 0.0)
    # The formula of DICOM PS3.3 C.11.2.1.2.1. A window of width 1 is a threshold.
    share = (real - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5
    return (255 * share).round().clip(0, 255).astype(np.uint8)


def _blank(grey: np.ndarray) -> bool:
    return bool(np.percentile(grey, 99) < BLANK or np.percentile(grey, 1) > BURNT)


def _first(dataset: pydicom.Dataset, keyword: str) -> float | None:
    """Return the first number of an element; None if there is none."""
    value = dataset.get(keyword)
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if value else None
    return None if value in (None, "") else float(value)


def of_palette(indices: np.ndarray, dataset: pydicom.Dataset) -> tuple[np.ndarray, Flags]:
    """Return HW indices as HWC uint8 RGB by the palette of the data set, and the remarks."""
    colours = apply_color_lut(indices, dataset)[..., :3]
    if colours.dtype == np.uint8 or colours.max(initial=0) < 256:
        return colours.astype(np.uint8), ()
    return levels.to_8_bits(colours.astype(np.uint16))
