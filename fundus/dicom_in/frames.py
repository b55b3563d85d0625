"""The bytes of each frame of a DICOM object, also of a file that is cut off.

pydicom returns no pixels at all if the sequence delimiter or a part of the last frame is missing.
It therefore reads only the elements before the pixels, and this module reads the pixels.
"""

import struct
from dataclasses import dataclass

import pydicom

PIXEL_DATA = 0x7FE00010
UNDEFINED = 0xFFFFFFFF
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
"""The first bytes of JPEG, JPEG-LS and JPEG 2000 streams."""


@dataclass(frozen=True)
class Element:
    """The element (7FE0,0010)."""

    data: bytes
    """From the element's value to the end of the file or of the value."""
    vr: str
    encapsulated: bool
    length: int
    """Bytes of the value. In a file that is cut off, the declared number."""
    cut: bool
    """The value is shorter than its declared length. For encapsulated pixels, see
    `_fragments`."""


@dataclass(frozen=True)
class Frames:
    """The bytes of each frame."""

    data: list[bytes | None]
    """One item per frame; None if the file ends before the frame."""
    cut: bool
    """The file ends within the pixels, so the last frame present may be incomplete."""
    partial: int | None = None
    """Index of the incomplete frame."""


def pixel_element(plain: bytes, at: int, little: bool) -> Element | None:
    """Return the element of the pixels; None if it does not begin at `at`.

    Whether its VR is written out is read from the bytes, because some objects declare one
    encoding and use the other.
    """
    order = "<" if little else ">"
    try:
        group, element = struct.unpack_from(order + "HH", plain, at)
        explicit = plain[at + 4 : at + 6] in (b"OB", b"OW", b"UN")
        vr = plain[at + 4 : at + 6].decode() if explicit else "OW"
        start = at + (12 if explicit else 8)
        (length,) = struct.unpack_from(order + "I", plain, start - 4)
    except struct.error:
        return None
    if group << 16 | element != PIXEL_DATA:
        return None
    if length == UNDEFINED:
        return Element(plain[start:], vr, True, len(plain) - start, False)
    data = plain[start : start + length]
    return Element(data, vr, data.startswith(_ITEM), length, len(data) < length)


def encapsulated(element: Element, dataset: pydicom.Dataset, count: int) -> Frames:
    """Return the frames of a compressed object that declares `count` of them.

    The offset tables are used if they are correct. Otherwise each fragment is a frame if there are
    `count` fragments; if not, a frame extends from the start of one stream to the next. All frames
    present are returned, even if there are more than `count`.
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


def first_stream(element: Element) -> bytes:
    """Return the first fragment of encapsulated pixels; empty if there is none."""
    return next(iter(_fragments(element.data)[0]), b"")


def _fragments(data: bytes) -> tuple[list[bytes], list[int], list[int], str]:
    """Return the fragments, the offset of each, the basic offset table, and how the data end.

    The last is "" if a delimiter ends them, "end" if they are cut off between two fragments, and
    "part" if they are cut off within the last.
    """
    bodies: list[bytes] = []
    starts: list[int] = []
    at, cut = 0, "end"
    while data[at : at + 4] == _ITEM and len(data) >= at + 8:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + length]
        bodies.append(body)
        starts.append(at)
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
    return bodies[1:], [start - 8 - len(head) for start in starts[1:]], table, cut


def _table(dataset: pydicom.Dataset) -> list[int]:
    """The extended offset table."""
    data = dataset.get("ExtendedOffsetTable") or b""
    return [value for (value,) in struct.iter_unpack("<Q", data[: len(data) // 8 * 8])]


def native(element: Element, size: int, count: int) -> Frames:
    """Return the frames of an uncompressed object that declares `count` frames of `size` bytes.

    More than `count` are returned only if the length is an exact number of frames, except for a
    byte of padding.
    """
    data = element.data
    there = len(data) // size
    if there > count and len(data) - there * size > 1:
        there = count
    frames: list[bytes | None] = [data[k * size : (k + 1) * size] for k in range(there)]
    return Frames(frames + [None] * (count - there), element.cut or there < count)
