"""What a JPEG stream says of itself, without decoding it."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fundus.images.refusal import Refused

EOI = b"\xff\xd9"
"""The end marker."""
READ = (0xC0, 0xC1, 0xC2)
"""Frame markers of the processes that photographs have: baseline, extended, progressive."""
LOSSLESS = 0xC3
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # 0xF7: JPEG-LS
_FILLERS = (b"", b"\x5a" * 96, b"\xa5" * 96)
"""What is laid behind a stream that has no end. One that is whole gives the same pixels with each:
zeros stand for missing data in the first, and each of the others decodes to something else."""


@dataclass(frozen=True)
class Stream:
    """The headers up to the first scan."""

    process: int
    """The second byte of the frame's marker: 0xC0 baseline, 0xC2 progressive, 0xC3 lossless."""
    precision: int
    """Bits of a sample."""
    height: int
    width: int
    components: tuple[int, ...]
    """Their identifiers."""
    sampling: tuple[int, ...]
    """Of each component, horizontal in the high half of a byte, vertical in the low."""
    jfif: bool
    adobe: int | None
    """Transform of the Adobe marker (APP14): 0 none, 1 YCbCr, 2 YCCK; None without one."""
    scan: int
    """Where the first scan begins in the stream."""

    def colours(self) -> str | None:
        """ "RGB" or "YCBCR" as the stream says; None where it says nothing of it.

        Halved colour is YCbCr whatever else is said: nobody halves green and blue. Then the Adobe
        marker, JFIF and the letters R, G, B as identifiers, in libjpeg's order.
        """
        if len(self.components) != 3:
            return None
        if len(set(self.sampling)) > 1:
            return "YCBCR"
        if self.adobe is not None:
            return "YCBCR" if self.adobe else "RGB"
        if self.jfif:
            return "YCBCR"
        return "RGB" if bytes(self.components).upper() == b"RGB" else None


def parse(data: bytes) -> Stream | None:
    """The headers of a JPEG stream; None where they cannot be followed to a scan."""
    at, jfif, adobe = 2, False, None
    frame: tuple[int, int, int, int, tuple[int, ...], tuple[int, ...]] | None = None
    while data[at : at + 1] == b"\xff":
        marker = data[at + 1] if at + 1 < len(data) else 0
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xDA:
            return Stream(*frame, jfif, adobe, at) if frame else None
        if len(data) < at + 4:
            return None
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if marker == 0xE0 and body[:5] == b"JFIF\0":
            jfif = True
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        elif marker in _FRAMES and len(body) >= 6:
            precision, height, width, count = struct.unpack(">BHHB", body[:6])
            ids, sampling = body[6 : 6 + 3 * count : 3], body[7 : 6 + 3 * count : 3]
            frame = (marker, precision, height, width, tuple(ids), tuple(sampling))
        at += 2 + length
    return None


def has_end(data: bytes, stream: Stream) -> bool:
    """Whether an end marker follows the first scan (the data of scans cannot hold one)."""
    return data.find(EOI, stream.scan) >= 0


def mended(data: bytes, stream: Stream, decode: Callable[[bytes], np.ndarray]) -> np.ndarray | None:
    """The pixels of a stream that lacks its end marker alone; None where more is missing.

    decode: JPEG -> pixels, filling what is missing in one way or another.
    """
    if not _all_scans(data, stream):
        return None
    data = data.rstrip(b"\xff")  # half of the marker
    found, *others = (decode(data + filler + EOI) for filler in _FILLERS)
    return found if all(np.array_equal(found, other) for other in others) else None


def _all_scans(data: bytes, stream: Stream) -> bool:
    """Whether the scans that begin in the data bring every coefficient to its last bit."""
    missing = {(name, k) for name in stream.components for k in range(64)}
    at = stream.scan
    while at >= 0:
        count = data[at + 4] if at + 4 < len(data) else 0
        names = data[at + 5 : at + 5 + 2 * count : 2]
        first, last, bits = data[at + 5 + 2 * count : at + 8 + 2 * count].ljust(3, b"\xff")
        if stream.process == LOSSLESS:
            missing -= {(name, k) for name in names for k in range(64)}
        elif bits & 15 == 0:
            missing -= {(name, k) for name in names for k in range(first, last + 1)}
        at = data.find(b"\xff\xda", at + 2)
    return not missing


def refuse_unread(stream: Stream) -> None:
    """Refused for a JPEG file of a process that no reader of photographs has."""
    if stream.process == LOSSLESS:
        raise Refused("unsupported", "a lossless JPEG, which is read in DICOM alone")
    if stream.precision != 8:
        raise Refused("unsupported", f"a JPEG of another depth than 8 bits ({stream.precision})")
    if stream.process not in READ:
        raise Refused("unsupported", "a JPEG of an arithmetic or hierarchical process")
