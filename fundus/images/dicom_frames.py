"""The bytes of each frame of a DICOM object, as far as the file goes.

pydicom gives no pixels at all where the sequence delimiter or a part of the last frame is missing,
so its reading ends before the pixels and this begins.
"""

import struct
from dataclasses import dataclass

import pydicom

PIXEL_DATA = 0x7FE00010
UNDEFINED = 0xFFFFFFFF
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
"""Of the JPEG kinds' streams."""


@dataclass(frozen=True)
class Element:
    """The element (7FE0,0010)."""

    data: bytes
    """From the element's value to the end of the file or of the value."""
    vr: str
    encapsulated: bool
    cut: bool
    """The value is shorter than its length says. Of encapsulated pixels, see `fragments`."""


@dataclass(frozen=True)
class Frames:
    """A frame's bytes each; None where the file ends before it."""

    data: list[bytes | None]
    cut: bool
    """The file ends within the pixels; the last frame that is there may be a part."""
    partial: int | None = None
    """Index of the frame of which a part is missing."""


def pixel_element(plain: bytes, at: int, implicit: bool, little: bool) -> Element | None:
    """The pixels' element where it begins at `at`; None where another one or nothing does."""
    order = "<" if little else ">"
    try:
        group, element = struct.unpack_from(order + "HH", plain, at)
        vr = "OW" if implicit else plain[at + 4 : at + 6].decode("ascii", "replace")
        start = at + (8 if implicit else 12)
        (length,) = struct.unpack_from(order + "I", plain, start - 4)
    except struct.error:
        return None
    if group << 16 | element != PIXEL_DATA:
        return None
    if length == UNDEFINED:
        return Element(plain[start:], vr, True, False)
    data = plain[start : start + length]
    return Element(data, vr, data.startswith(_ITEM), len(data) < length)


def encapsulated(element: Element, dataset: pydicom.Dataset, count: int) -> Frames:
    """The frames of a compressed object that says it has `count` of them.

    By the offset tables where they are true, else one a fragment, else from one start of a stream
    to the next. All that are there are given, also beyond `count`.
    """
    parts, offsets, table, cut = _fragments(element.data)
    starts = _table(dataset) or table
    first = [offsets.index(start) for start in starts if start in offsets]
    if not starts or starts != sorted(set(starts)) or len(first) < min(len(starts), len(offsets)):
        begins = [number for number, part in enumerate(parts) if part.startswith(_STARTS)]
        streams = bool(begins) and begins[0] == 0
        if len(parts) == count:
            first = list(range(len(parts)))
        elif streams:
            first = begins
        else:
            first = [0] if count == 1 else list(range(len(parts)))
    grouped: list[bytes | None] = [
        b"".join(parts[start:end])
        for start, end in zip(first, [*first[1:], len(parts)], strict=True)
        if start < len(parts)
    ]
    partial = len(grouped) - 1 if element.cut or cut == "part" else None
    missing = max(count, len(starts)) - len(grouped) if parts else count
    return Frames(grouped + [None] * missing, bool(cut) or element.cut, partial)


def _fragments(data: bytes) -> tuple[list[bytes], list[int], list[int], str]:
    """The fragments, where each begins, the basic offset table, and whether the data are cut:
    "" where a delimiter ends them, "end" between two of them, "part" within the last."""
    bodies: list[bytes] = []
    places: list[int] = []
    at, cut = 0, "end"
    while data[at : at + 4] == _ITEM and len(data) >= at + 8:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + length]
        bodies.append(body)
        places.append(at)
        at += 8 + length
        if len(body) < length:
            cut = "part"
            break
    if data[at : at + 4] == _DELIMITER:
        cut = ""
    if not bodies:
        return [], [], [], cut
    head = bodies[0]
    table = [value for (value,) in struct.iter_unpack("<I", head[: len(head) // 4 * 4])]
    return bodies[1:], [place - 8 - len(head) for place in places[1:]], table, cut


def _table(dataset: pydicom.Dataset) -> list[int]:
    """The extended offset table."""
    data = dataset.get("ExtendedOffsetTable") or b""
    return [value for (value,) in struct.iter_unpack("<Q", data[: len(data) // 8 * 8])]


def native(element: Element, size: int, count: int) -> Frames:
    """The frames of `size` bytes of an uncompressed object that says it has `count` of them.

    More than it says are given where the length is theirs exactly, but for a byte of padding.
    """
    data = element.data
    there = len(data) // size
    if there > count and len(data) - there * size > 1:
        there = count
    frames: list[bytes | None] = [data[k * size : (k + 1) * size] for k in range(there)]
    return Frames(frames + [None] * (count - there), element.cut or there < count)
