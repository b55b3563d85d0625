"""The content of an object: its pictures, and the frames that it announces but cannot give."""

from dataclasses import dataclass, field

import numpy as np

SCALED = "scaled_by_values"
ALPHA = "alpha_ignored"
NO_END = "jpeg_end_missing"
STRAY = "jpeg_stray_bytes"
COLOURS = "colours_by_content"
HEADER = "header_contradicted"
EYE = "laterality_contradicted"
CUT = "file_cut_off"
REMARKS = {
    SCALED: "the values use fewer bits than the file states; they were scaled by the bits they use",
    ALPHA: "the alpha channel was empty or uniform and was ignored",
    NO_END: "the JPEG lacks its end marker and is complete otherwise",
    STRAY: "the JPEG holds bytes that belong to no part of the picture, which may be wrong there",
    COLOURS: "the header's colour space contradicts that of the pixels, which was used",
    HEADER: "the header contradicts the number, layout or length of the pixels, which were used",
    CUT: "the file ends before its end marker; this frame is complete",
    EYE: "the file names two different eyes; neither was used",
}
"""Remarks of decoding about a picture: flags of its row."""


@dataclass(frozen=True)
class Picture:
    """One frame of one object."""

    pixels: np.ndarray
    """HWC uint8 RGB, upright; of a working frame if `shrink` is above 1."""
    frame: int = 1
    """Counted from 1 within its object."""
    laterality: str | None = None
    """"OD" (right eye) or "OS" (left eye) by the file; None if the file does not state it."""
    pixel_spacing: tuple[float, float] | None = None
    """Millimetres between rows and between columns; None if the file does not state them."""
    subject: str | None = None
    """HMAC-SHA256 (hex) of the DICOM patient id under the caller's key; None without key or id."""
    manufacturer: str | None = None
    """Manufacturer of the camera, by a DICOM header."""
    model: str | None = None
    """Model of the camera, by the same header."""
    header: bytes | None = None
    """The DICOM object without its pixels, as a DICOM file; only on request. Names the patient."""
    flags: tuple[str, ...] = ()
    """Keys of `REMARKS`."""
    shrink: int = 1
    """Original pixels per pixel of `pixels`, in both directions."""
    original: tuple[int, int] | None = None
    """Height and width of the original, if `pixels` are a working frame."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the original, pixels."""
        return self.original or (self.pixels.shape[0], self.pixels.shape[1])


@dataclass(frozen=True)
class Lost:
    """A frame that cannot be read, in an object of which other frames can."""

    frame: int
    """Counted from 1 within its object, together with the pictures."""
    status: str
    """As in `refusal.Refused`."""
    reason: str
    """One sentence, as in `refusal.Refused`."""


@dataclass(frozen=True)
class Contents:
    """All frames of one object, numbered from 1 without gaps. At least one is a picture."""

    pictures: list[Picture]
    lost: list[Lost] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """The number of all frames."""
        return len(self.pictures) + len(self.lost)
