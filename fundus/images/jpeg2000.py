"""The main header of a JPEG 2000 stream, read without decoding it."""

import struct
from dataclasses import dataclass

_SOC_SIZ, _COD, _TILE = b"\xff\x4f\xff\x51", 0xFF52, 0xFF90
_JP2 = b"\0\0\0\x0cjP  "


@dataclass(frozen=True)
class Stream:
    """The main header of a codestream (ISO/IEC 15444-1, annex A)."""

    height: int
    width: int
    channels: int
    precision: int
    """Bits per sample."""
    signed: bool
    transformed: bool
    """Whether decoding undoes a colour transform and so returns RGB."""


def parse(data: bytes) -> Stream | None:
    """Parse the main header of a codestream, alone or in a JP2 file; None if there is none.

    The markers are searched only where they belong: in compressed data their bytes occur by chance.
    """
    at = _codestream(data)
    if at is None:
        return None
    try:
        right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
        count, depth = struct.unpack_from(">HB", data, at + 40)
    except struct.error:
        return None
    transformed = _transformed(data, at + 2)
    return Stream(bottom - top, right - left, count, (depth & 127) + 1, depth > 127, transformed)


def _codestream(data: bytes) -> int | None:
    """The offset of the codestream: 0, or that of its box in a JP2 file."""
    at = 0
    while data.startswith(_JP2) and at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        header = 8
        if length == 1 and at + 16 <= len(data):
            (length,), header = struct.unpack_from(">Q", data, at + 8), 16
        if kind == b"jp2c":
            at += header
            break
        if length < header:
            return None
        at += length
    return at if data[at : at + 4] == _SOC_SIZ else None


def _transformed(data: bytes, at: int) -> bool:
    """Whether the segment COD, which follows SIZ, names a transform of the components."""
    while at + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == _COD:
            return data[at + 8 : at + 9] == b"\x01"
        if marker >= _TILE or length < 2:
            break
        at += 2 + length
    return False
