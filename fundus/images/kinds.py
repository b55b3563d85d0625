"""The likely kind of bytes that no reader accepts."""

import codecs

from fundus.images import jpeg
from fundus.images.refusal import Refused

# The first bytes of the formats that are read, and of other files that archives contain.
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
    b"\xfd7zXZ\0": "xz data",
    b"BZh": "bzip2 data",
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
HEIF = dict.fromkeys(
    (b"heic", b"heix", b"mif1", b"msf1"), "a HEIC picture, which is not read: convert it to JPEG"
) | dict.fromkeys((b"avif", b"avis"), "an AVIF picture, which is not read: convert it to JPEG")
"""By the brand in the first bytes of such files."""


def unknown(data: bytes) -> Refused:
    """The refusal of bytes that no reader accepts; its reason states their likely kind."""
    kind = _kind(data, PICTURES)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "WebP"
    if data[:2] == b"BM" and data[6:10] == bytes(4):
        kind = "BMP"
    if kind == "JPEG" and (stream := jpeg.parse(data)):
        jpeg.refuse_unread(stream)
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
        return HEIF.get(data[8:12], "a film")
    if data[:2] == b"\xff\x0a" or data[4:12] == b"JXL \r\n\x87\n":
        return "a JPEG XL picture, which is not read: convert it"
    if not any(data):
        return "zeros only"
    try:  # the incremental decoder accepts a letter that is cut in two at the end
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
