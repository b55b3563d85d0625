"""What an object holds: its pictures, and the frames that it promises and does not give."""

from dataclasses import dataclass, field

import numpy as np

SCALED = "scaled_by_values"
ALPHA = "alpha_ignored"
NO_END = "jpeg_end_missing"
COLOURS = "colours_by_content"
HEADER = "header_contradicted"
EYE = "laterality_contradicted"
CUT = "file_cut_off"
REMARKS = {
    SCALED: "the values use fewer bits than their file says; they were scaled by what they use",
    ALPHA: "the alpha channel was empty; the colours were taken without it",
    NO_END: "the JPEG lacks its end marker and is whole otherwise",
    COLOURS: "the header's colour space contradicts the pixels' own; theirs was taken",
    HEADER: "the header contradicts the number, layout or length of the pixels; theirs was taken",
    CUT: "the file ends before its end is marked; this frame is whole",
    EYE: "the file names two different eyes; neither was taken",
}
"""What decoding may have to say of a picture that it gives: flags of its row."""


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
    flags: tuple[str, ...] = ()
    """Any of `REMARKS`."""


@dataclass(frozen=True)
class Lost:
    """A frame of an object that gives other frames: why this one has no pixels."""

    frame: int
    """Counted from 1 within its object, as the pictures are."""
    status: str
    """As of `decode.Refused`."""
    reason: str
    """One sentence, as of `decode.Refused`."""


@dataclass(frozen=True)
class Contents:
    """All frames of one object, numbered from 1 without a gap; at least one is a picture."""

    pictures: list[Picture]
    lost: list[Lost] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return len(self.pictures) + len(self.lost)
