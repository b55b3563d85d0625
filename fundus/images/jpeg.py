"""The headers of a JPEG stream, read without decoding it."""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fundus.images.content import STRAY
from fundus.images.refusal import MOST_FRAMES, Refused

EOI = b"\xff\xd9"
"""The end marker."""
READ = (0xC0, 0xC1, 0xC2)
"""Frame markers of the processes that photographs use: baseline, extended, progressive."""
LOSSLESS, LS = 0xC3, 0xF7
_FRAMES = {*range(0xC0, 0xD0), LS} - {0xC4, 0xC8, 0xCC}
MOST_HEADERS = 1 << 20
"""Bytes within which the first scan of a concatenated stream must begin."""
MOST_STRAY = 256
"""Stray bytes up to which a JPEG is not taken for a damaged one, whose reader lost its place."""
_FILLERS = (b"", b"\x5a" * 96, b"\xa5" * 96)
"""Bytes appended to a stream without an end. A complete stream gives the same pixels with each. In
an incomplete one the decoder takes zeros after the first, and other data after the other two."""


@dataclass(frozen=True)
class Stream:
    """The headers up to the first scan."""

    process: int
    """The second byte of the frame's marker: 0xC0 baseline, 0xC2 progressive, 0xC3 lossless."""
    precision: int
    """Bits per sample."""
    height: int
    width: int
    components: tuple[int, ...]
    """Identifiers of the components."""
    sampling: tuple[int, ...]
    """Sampling factors per component: horizontal in the byte's high half, vertical in the low."""
    jfif: bool
    adobe: int | None
    """Transform of the Adobe marker (APP14): 0 none, 1 YCbCr, 2 YCCK; None without one."""
    scan: int
    """Offset of the first scan in the stream."""

    @property
    def channels(self) -> int:
        """The number of components."""
        return len(self.components)

    def colours(self) -> str | None:
        """The colour space by the stream, "RGB" or "YCBCR"; None if the stream does not tell.

        Subsampled colour is YCbCr in any case: nobody subsamples green and blue. Then the Adobe
        marker, JFIF and the identifiers R, G, B decide, in libjpeg's order.
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
    """Parse the headers of a JPEG stream; None if they do not lead to a scan."""
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
    """Whether an end marker follows the first scan (the data of scans cannot contain one)."""
    return data.find(EOI, stream.scan) >= 0


def check_data(data: bytes, stream: Stream) -> tuple[str, ...]:
    """What is to be remarked of the compressed data of a stream with an end marker.

    libjpeg decodes whatever it finds, grey or shifted where data are missing or wrong, and warns.
    Its warnings are asked for here, for Pillow and imagecodecs drop them: a second decoding, in
    grey and at the smallest scale. Refused where the data are damaged. Of streams that are not of
    8 bits, or lossless, nothing is said: simplejpeg (1.9) does not read them.
    """
    if stream.process not in READ or stream.precision != 8:
        return ()
    import simplejpeg  # not before: reading DICOM or PNG alone does not want it

    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, strict=True)
    except ValueError as error:
        # Other errors are of kinds that others read.
        stray = re.search(r"(\d+) extraneous bytes", str(error))
        if stray and int(stray[1]) <= MOST_STRAY:
            return (STRAY,)
        if "Corrupt JPEG data" in str(error):
            reason = "broken JPEG: its data are damaged, so that part of the picture is wrong"
            raise Refused("decode_failed", reason) from None
    return ()


def decode_sound(data: bytes, stream: Stream, shrink: int) -> np.ndarray | None:
    """Decode a colour JPEG without any fault, in one pass; None for other streams.

    Args:
        data: the stream.
        stream: its headers.
        shrink: 1, 2, 4 or 8: the picture is decoded at this part of its scale.

    Returns:
        HWC uint8 RGB, the same pixels as Pillow's.
    """
    if stream.process not in READ or stream.precision != 8 or stream.colours() != "YCBCR":
        return None
    import simplejpeg  # not before: reading DICOM or PNG alone does not want it

    height, width = (-(-side // shrink) for side in (stream.height, stream.width))
    try:
        found = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, strict=True)
    except ValueError:
        return None
    return found if found.shape == (height, width, 3) else None


def joined(data: bytes) -> list[bytes]:
    """Split concatenated streams, as `cat` makes them.

    Other bytes after the end of a stream belong to it: cameras store notes and previews there.
    """
    starts, at = [0], 0
    while len(starts) <= MOST_FRAMES and (stream := parse(data[at : at + MOST_HEADERS])):
        at = data.find(EOI, at + stream.scan) + 2
        if at < 2 or data[at : at + 3] != b"\xff\xd8\xff":
            break
        starts.append(at)
    return [data[one:other] for one, other in pairwise([*starts, len(data)])]


def mended(data: bytes, stream: Stream, decode: Callable[[bytes], np.ndarray]) -> np.ndarray | None:
    """The pixels of a stream that lacks only its end marker; None if it lacks more.

    Args:
        data: the stream.
        stream: its headers.
        decode: decodes a JPEG stream, and fills missing data in any way.
    """
    if not _all_scans(data, stream):
        return None
    data = data.rstrip(b"\xff")  # half of the marker
    found, *others = (decode(data + filler + EOI) for filler in _FILLERS)
    return found if all(np.array_equal(found, other) for other in others) else None


def _all_scans(data: bytes, stream: Stream) -> bool:
    """Whether the scans in the data contain every coefficient to its last bit."""
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
    """Raise Refused for a JPEG file of a process that readers of photographs do not know."""
    if stream.process == LOSSLESS:
        raise Refused("unsupported", "a lossless JPEG, which is read in DICOM alone")
    if stream.precision != 8:
        raise Refused("unsupported", f"a JPEG of another depth than 8 bits ({stream.precision})")
    if stream.process not in READ:
        raise Refused("unsupported", "a JPEG of an arithmetic or hierarchical process")
