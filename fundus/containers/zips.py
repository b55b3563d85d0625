"""Zips: the index is read, then each member by range. Nothing is unpacked to the disk."""

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from fundus.containers.members import ZIP, Member, Where, path_of
from fundus.containers.system_files import is_folder
from fundus.containers.zip_parts import LOCAL, parts
from fundus.storage.objects import FetchFailed

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
SLACK = 4096
"""Bytes for the name and the extra field before a member's data; the index lacks their length."""

Read = Callable[[int, int], bytes]
"""Reads bytes [start, stop) of the container."""


def zip_members(file: BinaryIO) -> Iterator[Member]:
    """The members of all zips in the file, in its order, without folders.

    Raises:
        FetchFailed: an index is broken or too large; or, after all members, the file has bytes
            outside of its zips.
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
    # A member with a negative offset is refused as overlapping; its etag takes no such number.
    offset = max(0, info.header_offset)
    return Where(ZIP, offset, info.compress_size, info.file_size, info.CRC)


def _refusal(info: zipfile.ZipInfo, overlaps: bool) -> tuple[str, str]:
    if info.header_offset < 0:
        reason = "it lies before the beginning of its archive, which may be a part of a split one"
        return "decode_failed", reason
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
    """Read a member's bytes and check its CRC; FetchFailed if they differ from the listing."""
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
    """Inflate at most one byte more than the listed size."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, size + 1)
    except zlib.error as error:
        raise FetchFailed("decode_failed", "a broken member: it cannot be inflated") from error
