"""Zips: the index is read, then each member by one ranged read; nothing is unpacked to disk."""

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from fundus.storage.members import ZIP, Member, Where, path_of
from fundus.storage.objects import FetchFailed
from fundus.storage.system_files import is_folder
from fundus.storage.zip_parts import LOCAL, parts

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
SLACK = 4096
"""Bytes for the name and the extra field before a member's data, whose length is not listed."""

Read = Callable[[int, int], bytes]
"""Bytes [start, stop) of the archive."""


def zip_members(file: BinaryIO) -> Iterator[Member]:
    """In the order they lie, folders left out, those of several zips that were joined too.

    FetchFailed where an index is broken or too large and, at the end, where more than zips lies
    in the file.
    """
    found, strange = parts(file)
    count = 0
    for index in found:
        for member in _members(index):
            count += 1
            yield member
    if strange:
        raise FetchFailed("decode_failed", f"{strange}: {count} members were read")


def _members(index: zipfile.ZipFile) -> Iterator[Member]:
    infos = sorted(index.infolist(), key=lambda info: info.header_offset)
    ends = [i.header_offset + LOCAL.size + len(i.filename) + i.compress_size for i in infos]
    nexts = [*(info.header_offset for info in infos), index.start_dir][1:]
    furthest = 0
    for info, end, following in zip(infos, ends, nexts, strict=True):
        overlaps = end > following or info.header_offset < furthest
        furthest = max(furthest, end)
        name = info.orig_filename
        if not name.endswith("/") and not is_folder(name, info.file_size):
            refusal = _refusal(info, overlaps)
            yield Member(path_of(name.encode("cp437")), _where(info), *refusal)


def _where(info: zipfile.ZipInfo) -> Where:
    # A negative offset is refused as overlapping; it only needs a text.
    offset = max(0, info.header_offset)
    return Where(ZIP, offset, info.compress_size, info.file_size, info.CRC)


def _refusal(info: zipfile.ZipInfo, overlaps: bool) -> tuple[str, str]:
    if overlaps:
        return "unsupported", "its bytes overlap those of another member, as in a bomb"
    if info.flag_bits & 0x1:
        return "unsupported", "an encrypted member"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "unsupported", "a link, which is not followed"
    if info.compress_type not in (STORED, DEFLATED):
        return "unsupported", f"compressed by a method that is not read ({info.compress_type})"
    return "", ""


def read_zip_member(read: Read, at: Where) -> bytes:
    """A member's bytes, checked against its CRC; FetchFailed where they are not what was listed."""
    data = read(at.offset, at.offset + LOCAL.size + SLACK + at.stored)
    if len(data) < LOCAL.size or not data.startswith(b"PK\x03\x04"):
        raise FetchFailed("decode_failed", "a broken zip archive: no member lies there")
    *_, method, _, _, _, _, _, name, extra = LOCAL.unpack_from(data)
    start = LOCAL.size + name + extra
    if len(data) < start + at.stored:
        data, start = read(at.offset + start, at.offset + start + at.stored), 0
    stored = memoryview(data)[start : start + at.stored]
    content = bytes(stored) if method == STORED else _inflated(stored, at.size)
    if len(content) != at.size or zlib.crc32(content) != at.crc:
        raise FetchFailed("decode_failed", "a broken member: it is not what the archive lists")
    return content


def _inflated(stored: memoryview, size: int) -> bytes:
    """At most one byte more than was listed, whatever is in there."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, size + 1)
    except zlib.error as error:
        raise FetchFailed("decode_failed", "a broken member: it cannot be inflated") from error
