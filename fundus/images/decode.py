"""Bytes to pixels: one picture file as an upright 8-bit RGB array, or a refusal with its reason."""

import codecs
import io
import logging
import re
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "PPM", "WEBP", "GIF", "JPEG2000")
"""Pillow's readers that may see the bytes. Others run programs (EPS) or are no photographs."""

MAX_PIXELS = 120_000_000
"""Of one object, all its frames together."""
MAX_SIDE = 12_000
"""Pixels. Later stages lay a frame in a square: one of 1 x 60000 would take 11 GB there."""

# What Pillow's readers raise on broken bytes; beyond OSError and SyntaxError (its documented ones)
# by its source and by fuzzing. Nothing but Pillow's own calls stands under this net.
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

# The first bytes of the formats above, and of other files that archives hold.
PICTURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"GIF8": "GIF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
}
OTHERS = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "gzip data",
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript document",
    b"PAR1": "a Parquet file",
    b"8BPS": "a Photoshop document",
    b"\x00\x00\x01\x00": "an icon",
    b"SQLite format 3": "a SQLite database",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"II+\0": "a BigTIFF file",
    b"MM\0+": "a BigTIFF file",
}

log = logging.getLogger(__name__)


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


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The first picture in `data` as HWC uint8 RGB, upright (EXIF orientation applied).

    JPEG, PNG, TIFF, BMP, PPM, WebP, GIF, JPEG 2000, told by content. 16-bit values give their high
    byte; grey is repeated; alpha is laid on black; CMYK and palettes become RGB. Floating point and
    32-bit pixels are refused: their range is not known. The size in the header is checked against
    `max_pixels` and MAX_SIDE before any pixel is decoded. Raises Refused.
    """
    if not data:
        raise Refused("decode_failed", "empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; what matters is raised
        image = _open(data)
        width, height = image.size
        check_size(width, height, max_pixels)
        try:
            image.load()
        except MemoryError as error:
            raise Refused("too_large", f"not enough memory ({width} x {height})") from error
        except BROKEN as error:
            raise Refused("decode_failed", f"broken {image.format}: {_say(error)}") from error
        _turn_upright(image)
        return _rgb(image)


def check_size(width: int, height: int, max_pixels: int, frames: int = 1) -> None:
    """Refused where a header names more pixels, or a longer side, than may be decoded."""
    size = f"{width} x {height}" + (f" in {frames} frames" if frames > 1 else "")
    if width * height * frames > max_pixels:
        raise Refused("too_large", f"too many pixels ({size}; at most {max_pixels})")
    if max(width, height) > MAX_SIDE:
        raise Refused("too_large", f"too long a side ({size}; at most {MAX_SIDE})")


def _open(data: bytes) -> Image.Image:
    """Pillow's image with its header read and no pixel decoded."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        size, _, _ = str(error).partition(" exceeds")
        raise Refused("too_large", f"too many pixels ({size})") from error
    except UnidentifiedImageError as error:
        raise _unknown(data) from error
    except BROKEN as error:
        raise Refused("decode_failed", f"broken picture header: {_say(error)}") from error


def _unknown(data: bytes) -> Refused:
    """The refusal of bytes that no reader takes, saying what they seem to be."""
    kind = _kind(data, PICTURES)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "WebP"
    if data[:2] == b"BM" and data[6:10] == bytes(4):
        kind = "BMP"
    if kind == "TIFF":
        return Refused("unsupported", "a TIFF that is broken or of a kind that is not read")
    if kind:
        return Refused("decode_failed", f"broken {kind}: its header cannot be read")
    return Refused("unsupported", f"not a picture: it seems to be {_seems(data)}")


def _seems(data: bytes) -> str:
    kind = _kind(data, OTHERS)
    if kind:
        return kind
    if data[128:132] == b"DICM":
        return "a DICOM file"
    if data[4:8] == b"ftyp":
        return "a film or a HEIF picture"
    if not any(data):
        return "zeros only"
    try:  # the incremental decoder forgives a letter cut in two at the end
        text = codecs.getincrementaldecoder("utf-8")().decode(data[:1024])
    except UnicodeDecodeError:
        return "binary data of an unknown kind"
    if any(ord(letter) < 32 and letter not in "\t\n\r\f" for letter in text):
        return "binary data of an unknown kind"
    start = text.lstrip("\ufeff \t\r\n").lower()
    if start.startswith(("<!doctype html", "<html")):
        return "an HTML page"
    return "XML" if start.startswith(("<?xml", "<svg")) else "text"


def _kind(data: bytes, kinds: dict[bytes, str]) -> str | None:
    return next((name for start, name in kinds.items() if data.startswith(start)), None)


def _turn_upright(image: Image.Image) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except BROKEN as error:
        # The pixels are sound; metadata that cannot be read tells no orientation.
        log.info("EXIF not read: %s", _say(error))


def _rgb(image: Image.Image) -> np.ndarray:
    """Any mode of Pillow as HWC uint8 RGB."""
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16)  # native byte order
        return _grey_to_rgb(grey, image)
    if image.mode == "I" and image.format == "PPM":  # Pillow has scaled it to 0..65535
        return _grey_to_rgb(np.asarray(image), image)
    if image.mode in ("F", "I"):
        kind = "floating point" if image.mode == "F" else "32-bit or signed"
        raise Refused("unsupported", f"{kind} pixels, whose range is not known")
    try:
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
            return np.asarray(Image.alpha_composite(black, rgba).convert("RGB"))
        return np.array(image.convert("RGB"))
    except MemoryError as error:
        raise Refused("too_large", "not enough memory ({} x {})".format(*image.size)) from error
    except BROKEN as error:
        raise Refused("unsupported", f"{image.mode} pixels: {_say(error)}") from error


def _grey_to_rgb(grey: np.ndarray, image: Image.Image) -> np.ndarray:
    """HW integers of 16 bits (12 in some TIFFs) as HWC uint8: the high byte, as for 16-bit RGB."""
    tags = getattr(image, "tag_v2", {})
    bits = 12 if tags.get(258) == (12,) else 16  # BitsPerSample: Pillow leaves 12 bits unscaled
    high = (grey >> (bits - 8)).clip(0, 255).astype(np.uint8)
    if tags.get(262) == 0:  # PhotometricInterpretation WhiteIsZero: Pillow inverts 8 bits alone
        high = 255 - high
    return np.repeat(high[..., None], 3, axis=2)


def _say(error: BaseException) -> str:
    """What a reader says, without what it quotes of the file: that may be a patient's name."""
    return re.sub(r"""(['"]).*?\1""", "...", str(error)) or type(error).__name__
