"""Why bytes give no pixels, and the bounds that hold before any is decoded."""

import re
import struct
import zlib

MAX_PIXELS = 120_000_000
"""Of one object, all its frames together."""
MAX_SIDE = 12_000
"""Pixels. Later stages lay a frame in a square: one of 1 x 60000 would take 11 GB there."""
MOST_FRAMES = 1000
"""Of one object."""

# What Pillow's readers raise on broken bytes; beyond OSError and SyntaxError (its documented ones)
# by its source and by fuzzing. Nothing but the calls of readers stands under this net.
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

    status: decode_failed (a broken picture), unsupported (no picture, or of a kind that is not
    read) or too_large; from the sandbox also timed_out and crashed. reason: one sentence, what
    varies from file to file in parentheses; it never quotes the file.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


def check_size(width: int, height: int, max_pixels: int, frames: int = 1) -> None:
    """Refused where a header names more pixels, or a longer side, than may be decoded."""
    size = f"{width} x {height}" + (f" in {frames} frames" if frames > 1 else "")
    if width * height * frames > max_pixels:
        raise Refused("too_large", f"too many pixels ({size}; at most {max_pixels})")
    if max(width, height) > MAX_SIDE:
        raise Refused("too_large", f"too long a side ({size}; at most {MAX_SIDE})")


def check_count(frames: int) -> None:
    """Refused where an object names more frames than one may have."""
    if frames > MOST_FRAMES:
        raise Refused("too_large", f"too many frames ({frames}; at most {MOST_FRAMES})")


def say(error: BaseException) -> str:
    """What a reader says, without what it quotes of the file: that may be a patient's name."""
    return re.sub(r"""(['"]).*?\1""", "...", str(error)) or type(error).__name__
