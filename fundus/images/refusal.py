"""Refusals of bytes that give no pixels, and the bounds that are checked before decoding."""

import re
import struct
import zlib

MAX_PIXELS = 120_000_000
"""Pixels per object, in all its frames together."""
MAX_SIDE = 12_000
"""Pixels per side. Later stages put a frame into a square: 1 x 60000 pixels would take 11 GB."""
MOST_FRAMES = 1000
"""Frames per object."""

# Exceptions of Pillow's readers for broken bytes: OSError and SyntaxError are documented, the
# others were found in its source and by fuzzing. They are caught around calls of readers only.
BROKEN = (
    OSError,
    SyntaxError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)


class Refused(Exception):
    """The bytes give no pixels.

    Attributes:
        status: decode_failed (a broken picture), unsupported (not a picture, or of a kind that is
            not read) or too_large; the sandbox adds timed_out and crashed.
        reason: one sentence that never quotes the file. Details that differ from file to file are
            in parentheses.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


def check_size(width: int, height: int, max_pixels: int, frames: int = 1) -> None:
    """Raise Refused if a header states more pixels, or a longer side, than is decoded."""
    size = f"{width} x {height}" + (f" in {frames} frames" if frames > 1 else "")
    if width * height * frames > max_pixels:
        raise Refused("too_large", f"too many pixels ({size}; at most {max_pixels})")
    if max(width, height) > MAX_SIDE:
        raise Refused("too_large", f"too long a side ({size}; at most {MAX_SIDE})")


def check_count(frames: int) -> None:
    """Raise Refused if an object states more frames than are decoded."""
    if frames > MOST_FRAMES:
        raise Refused("too_large", f"too many frames ({frames}; at most {MOST_FRAMES})")


def unquoted(error: BaseException) -> str:
    """The message of a reader without its quotations from the file, which may name a patient."""
    return re.sub(r"""(['"]).*?\1""", "...", str(error)) or type(error).__name__
