"""Which pictures of a file are pictures of their own, and which are copies at a smaller size."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fundus.images.refusal import MOST_FRAMES

WIDTH, HEIGHT, SUBFILE, OLD_SUBFILE, SUB_IFDS = 256, 257, 254, 255, 330
"""Numbers of TIFF tags."""
REDUCED, MASK = 1, 4
"""Bits of NewSubfileType."""
SAME_ASPECT = 0.05
"""Relative difference of the ratio of the sides, at most."""
SMALLER = 0.7
"""Of the other's longer side, at most."""
TINY = 200
"""Pixels of the longer side below which nothing can be measured."""
COMPARED = 32
"""Pixels of a side at which two pictures are compared."""
ALIKE = 2.5
"""Mean difference, 8-bit levels, below which one is a copy of the other. Thumbnails differ from
their picture by 1.0 at most, and two eyes from each other by 3.8 at least: 55,616 pairs of one
camera's frames (REFUGE, ORIGA, Drishti-GS, MESSIDOR)."""


@dataclass(frozen=True)
class Page:
    """A directory of a TIFF file."""

    offset: int
    """In the file."""
    width: int
    height: int
    marked: bool
    """As a reduced copy or a mask."""


def tiff_pages(data: bytes) -> list[Page]:
    """The directories that hold pictures, in the file's order, each one's sub-directories after it.

    Pages that are marked as reduced copies or masks are left out where another page is larger. An
    offset beyond the end of the data gives a page of no size: it was cut off.
    """
    pages = list(_directories(data))
    largest = max((p.width * p.height for p in pages if not p.marked), default=0)
    return [p for p in pages if not p.marked or p.width * p.height > largest]


def page_alone(data: bytes, page: Page) -> bytes:
    """The file with this page as its first."""
    order = "<" if data[:2] == b"II" else ">"
    if data[2:4] in (b"+\0", b"\0+"):
        return data[:8] + struct.pack(order + "Q", page.offset) + data[16:]
    return data[:4] + struct.pack(order + "I", page.offset) + data[8:]


def _directories(data: bytes) -> Iterator[Page]:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    # Of classic and of BigTIFF: a directory's count, an entry's number of values, an offset.
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
    """An entry's values: of types SHORT, LONG, IFD and their 8-byte kin. ValueError for others."""
    letter = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
    if letter is None or not 1 <= number <= MOST_FRAMES:
        raise ValueError("no number of a directory")
    values = order + str(number) + letter
    if struct.calcsize(values) > (8 if big else 4):
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, at)
    return struct.unpack_from(values, data, at)


def is_copy(small: np.ndarray, large: np.ndarray) -> bool:
    """Whether one HWC uint8 picture is another at a smaller size: a thumbnail, or what it may be.

    A tiny picture of the same shape counts as one whatever it shows.
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
