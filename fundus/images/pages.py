"""Tells the separate pictures of a file from copies at a smaller size."""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from fundus.images import jpeg
from fundus.images.refusal import MOST_FRAMES, Refused

WIDTH, HEIGHT, SUBFILE, OLD_SUBFILE, SUB_IFDS = 256, 257, 254, 255, 330
"""Numbers of TIFF tags."""
REDUCED, MASK = 1, 4
"""Bits of NewSubfileType."""
SAME_ASPECT = 0.05
"""Largest relative difference between the aspect ratios of a picture and its copy."""
SMALLER = 0.7
"""Longer side of a copy, at most, relative to that of its picture."""
TINY = 200
"""Pixels of the longer side up to which a picture is too small to be measured."""
COMPARED = 32
"""Side, in pixels, to which two pictures are reduced for comparison."""
ALIKE = 2.5
"""Mean difference, in 8-bit levels, below which one picture is a copy of the other. Thumbnails
differ from their picture by at most 1.0, and two eyes from each other by at least 3.8, in 55,616
pairs of frames of one camera (REFUGE, ORIGA, Drishti-GS, MESSIDOR)."""
JOINED: dict[str, bytes | tuple[bytes, ...]] = {
    "PNG": b"\x89PNG\r\n",
    "BMP": b"BM",
    "WEBP": b"RIFF",
    "PPM": (b"P5", b"P6"),
}
"""First bytes of the formats, by Pillow's names, whose end can be found without decoding."""
MAPS = (b"hdrgm:", b":hdrgm=", b":hdrgainmap", b"GDepth:")
"""Names in the XMP of what is no picture: maps of gain and of depth."""
_MP = b"MPF\0"
WIDEST = 16
"""Bytes of a pixel, at most."""
_JPEG, _DEFLATE = 7, (8, 32946)
"""Compressions of a TIFF."""
_PNG_END = b"IEND\xaeB`\x82"
_PPM_HEADER = re.compile(rb"P([56])\s+(?:#[^\n]*\s+)*(\d{1,9})\s+(\d{1,9})\s+(\d{1,9})\s")


@dataclass(frozen=True)
class Page:
    """A directory of a TIFF file."""

    offset: int
    """Offset in the file."""
    width: int
    height: int
    marked: bool
    """Whether the file marks it as a reduced copy or a mask."""


def tiff_pages(data: bytes) -> list[Page]:
    """The directories with pictures, in the file's order, each followed by its sub-directories.

    Pages that are marked as reduced copies or masks are left out if another page is larger. An
    offset beyond the end of the data, where the file was cut off, gives a page without a size.
    """
    pages = list(_directories(data))
    largest = max((p.width * p.height for p in pages if not p.marked), default=0)
    return [p for p in pages if not p.marked or p.width * p.height > largest]


def page_alone(data: bytes, page: Page) -> bytes:
    """The file with this page as its first one."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    at, offset = (8 if big else 4), struct.pack(order + ("Q" if big else "I"), page.offset)
    if data.startswith(offset, at):
        return data
    return data[:at] + offset + data[at + len(offset) :]


def check_strips(data: bytes, tags: Mapping[int, Any]) -> None:
    """Refused where the strips or tiles of a TIFF page are damaged in a way that libtiff ignores.

    It drops libjpeg's warnings and does not read as far as the checksum of Deflate.

    Args:
        data: the file.
        tags: of the page.
    """
    starts, sizes = tags.get(273, tags.get(324, ())), tags.get(279, tags.get(325, ()))
    for start, size in zip(starts, sizes, strict=False):
        part = data[start : start + size]
        if tags.get(259) == _JPEG:
            tables = tags.get(347)
            whole = tables[:-2] + part[2:] if tables else part
            stream = jpeg.parse(whole)
            if stream and jpeg.has_end(whole, stream):
                jpeg.check_data(whole, stream)
        elif tags.get(259) in _DEFLATE:
            _check_deflated(part, tags[WIDTH] * tags[HEIGHT] * WIDEST)


def _check_deflated(part: bytes, most: int) -> None:
    """Inflate at most so many bytes: more than the page has are a bomb, and libtiff stops."""
    inflate = zlib.decompressobj()
    try:
        while part and not inflate.eof and most > 0:
            most -= len(inflate.decompress(part, 1 << 20))
            part = inflate.unconsumed_tail
    except zlib.error:
        reason = "broken TIFF: its data are damaged, so that part of the picture is wrong"
        raise Refused("decode_failed", reason) from None


def views(data: bytes, entries: list[dict]) -> list[bytes]:
    """The pictures of an MPO by its index, each as a JPEG of its own.

    Left out are those that are marked as previews and the maps that phones add.
    """
    base = data.find(_MP) + len(_MP)
    found = []
    for number, entry in enumerate(entries):
        start = base + entry["DataOffset"] if number else 0
        part = data[start : start + entry["Size"]]
        stream = jpeg.parse(part)
        head = part[: stream.scan] if stream else b""
        marked = "Thumbnail" in str(entry["Attribute"]["MPType"])
        if number and (marked or any(name in head for name in MAPS)):
            continue
        if _MP in head:  # without its index, which would make it the whole again
            at = head.find(_MP) - 4
            part = part[:at] + part[at + 2 + int.from_bytes(part[at + 2 : at + 4], "big") :]
        found.append(part)
    return found


def joined(data: bytes, kind: str | None) -> list[bytes]:
    """Split concatenated files of one format, given by Pillow's name.

    Other bytes after the end of a picture are not a picture of their own.
    """
    if kind == "JPEG":
        return jpeg.joined(data)
    starts = [0]
    while kind and kind in JOINED and len(starts) <= MOST_FRAMES:
        end = _end(data, starts[-1], kind)
        if end <= starts[-1] or not data.startswith(JOINED[kind], end):
            break
        starts.append(end)
    return [data[one:other] for one, other in pairwise([*starts, len(data)])]


def _end(data: bytes, at: int, kind: str) -> int:
    """The end of the file that begins at `at`; 0 if it is unknown."""
    if kind == "PNG":
        found = data.find(_PNG_END, at)
        return found + len(_PNG_END) if found > 0 else 0
    if kind == "BMP":
        return at + int.from_bytes(data[at + 2 : at + 6], "little")
    if kind == "WEBP":
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        return at + 8 + length + length % 2
    header = _PPM_HEADER.match(data, at)
    if not header:
        return 0
    width, height, most = (int(number) for number in header.groups()[1:])
    samples = (3 if header[1] == b"6" else 1) * width * height
    return header.end() + samples * (1 if most < 256 else 2)


def _directories(data: bytes) -> Iterator[Page]:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    # In classic TIFF and in BigTIFF: a directory's count, an entry's number of values, an offset.
    count_of, number_of = (order + "Q", order + "Q") if big else (order + "H", order + "I")
    (first,) = struct.unpack_from(number_of, data, 8 if big else 4)
    waiting: list[int] = [first]
    seen: set[int] = set()
    while waiting and len(seen) <= MOST_FRAMES:
        offset = waiting.pop(0)
        if not offset or offset in seen:
            continue
        seen.add(offset)
        try:
            (count,) = struct.unpack_from(count_of, data, offset)
            at = offset + struct.calcsize(count_of)
            size = 20 if big else 12
            tags = {}
            for entry in range(at, at + count * size, size):
                tag, kind, number = struct.unpack_from(order + "HH" + number_of[1], data, entry)
                if tag in (WIDTH, HEIGHT, SUBFILE, OLD_SUBFILE, SUB_IFDS):
                    tags[tag] = _values(data, entry + (12 if big else 8), order, kind, number, big)
            (following,) = struct.unpack_from(number_of, data, at + count * size)
        except (struct.error, ValueError):
            yield Page(offset, 0, 0, False)
            continue
        waiting = [*tags.get(SUB_IFDS, ()), *waiting, following]
        subfile = tags.get(SUBFILE, (0,))[0]
        marked = bool(subfile & (REDUCED | MASK)) or tags.get(OLD_SUBFILE) == (2,)
        width, height = (tags.get(tag, (0,))[0] for tag in (WIDTH, HEIGHT))
        yield Page(offset, width, height, marked)


def _values(data: bytes, at: int, order: str, kind: int, number: int, big: bool) -> tuple[int, ...]:
    """The values of an entry of type SHORT, LONG, IFD, LONG8 or IFD8; ValueError for others."""
    letter = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
    if letter is None or not 1 <= number <= MOST_FRAMES:
        raise ValueError("no number of a directory")
    values = order + str(number) + letter
    if struct.calcsize(values) > (8 if big else 4):
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, at)
    return struct.unpack_from(values, data, at)


def is_copy(small: np.ndarray, large: np.ndarray) -> bool:
    """Whether one HWC uint8 picture is a copy of another at a smaller size, such as a thumbnail.

    A tiny picture of the same aspect ratio counts as a copy, whatever it shows.
    """
    (height, width), (rows, columns) = small.shape[:2], large.shape[:2]
    aspects = width / height, columns / rows
    if max(aspects) > (1 + SAME_ASPECT) * min(aspects):
        return False
    if max(height, width) > SMALLER * max(rows, columns):
        return False
    if max(height, width) <= TINY and 4 * max(height, width) <= max(rows, columns):
        return True
    one, other = (
        np.asarray(Image.fromarray(p).resize((COMPARED,) * 2, Image.Resampling.BOX), np.float32)
        for p in (small, large)
    )
    return float(abs(one - other).mean()) < ALIKE
