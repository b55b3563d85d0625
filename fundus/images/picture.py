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
    manufacturer: str | None = None
    """Of the camera, as a DICOM header names it."""
    model: str | None = None
    """The manufacturer's name for the camera's model, from the same header."""
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
    if _is_dicom(data):
        from fundus.images import dicom  # with the first DICOM alone: pydicom costs 180 ms, 40 MB

        return dicom.read(
            data, max_pixels=max_pixels, subject_key=subject_key, keep_header=keep_header
        )
    return [Picture(decode(data, max_pixels=max_pixels))]


def _is_dicom(data: bytes) -> bool:
    """Whether `data` is a DICOM file, with the preamble or, as old archives have them, without."""
    if data[128:132] == b"DICM":
        return True
    # Without it, the first element is one of group 2 or 8: a short number and a VR, or a length.
    group, element, rest = data[:2], int.from_bytes(data[2:4], "little"), data[4:8]
    explicit = rest[:2].isalpha() and rest[:2].isupper()
    implicit = len(rest) == 4 and rest[1:] == bytes(3)
    return group in (b"\x02\0", b"\x08\0") and element <= 0x20 and (explicit or implicit)
