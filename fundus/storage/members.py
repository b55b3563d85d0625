"""What lies in a zip, a tar or a tar.gz: its members, found and read where they lie.

Nothing is unpacked to disk. A member's etag is its archive's, `!`, and where and what it is, so
that its bytes are one ranged read away. What a member claims is checked against bounds first.
"""

import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from gzip import GzipFile
from typing import BinaryIO

from fundus.storage.objects import BLOCK, FetchFailed, too_large
from fundus.storage.uris import encode

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
ZIP, TAR, TAR_GZ = "z", "t", "g"

MOST_MEMBERS = 100_000
MOST_INDEX = 1 << 24
"""Bytes of a zip's index, or of a tar's long name, that are read into memory."""
MOST_STREAM = 1 << 36
"""Bytes that a tar.gz may hold when decompressed."""
RATIO, RATIO_FROM = 100, 1 << 26
"""Decompressed over compressed bytes, from so many decompressed bytes on: more is a bomb."""
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
LOCAL = struct.Struct("<4sHHHHHLLLHH")
SLACK = 4096
"""Bytes for the name and the extra field before a zip member's data, whose length is not listed."""
BROKEN_ZIP = (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError)
EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
)

Read = Callable[[int, int], bytes]
"""Bytes [start, stop) of the archive."""


@dataclass(frozen=True)
class Where:
    """Where a member's bytes lie; its text is the second half of the member's etag."""

    kind: str
    offset: int
    """Of the local header in a zip, of the data in a tar, of the decompressed data in a tar.gz."""
    stored: int
    """Bytes in the archive; of a tar.gz, which is read from its beginning, the whole archive's."""
    size: int
    """Bytes of the member."""
    crc: int = 0
    """CRC-32 of the member in a zip."""

    def __str__(self) -> str:
        return f"{self.kind}-{self.offset:x}-{self.stored:x}-{self.size:x}-{self.crc:08x}"


def where(etag: str) -> tuple[str, Where]:
    """(etag of the archive, place in it) of a member's etag."""
    archive, _, text = etag.rpartition("!")
    kind, *numbers = text.split("-")
    return archive, Where(kind, *(int(number, 16) for number in numbers))


@dataclass(frozen=True)
class Member:
    """One member of an archive."""

    path: str
    """Percent-encoded; a name that comes again has `#2`, `#3` and so on after it."""
    where: Where
    status: str = ""
    error: str = ""


def members(file: BinaryIO, name: str, size: int) -> Iterator[Member]:
    """The members of an archive of `size` bytes, folders left out, in the order they lie.

    What is refused has its status and reason. FetchFailed, at the end, when the archive itself is
    broken, cut off or out of bounds: what came before is sound.
    """
    if name.lower().endswith(".zip"):
        found = _zip_members(file)
    elif file.read(2) == b"\x1f\x8b":
        file.seek(0)
        found = _tar_members(Inflated(file), TAR_GZ, size)
    else:
        file.seek(0)
        found = _tar_members(Plain(file, size), TAR, 0)
    names: Counter[str] = Counter()
    for member in found:
        if names.total() >= MOST_MEMBERS:
            raise FetchFailed("too_large", f"more than {MOST_MEMBERS} members: the rest is left")
        names[member.path] += 1
        again = f"#{names[member.path]}" if names[member.path] > 1 else ""
        yield _refused(replace(member, path=member.path + again))


def _refused(member: Member) -> Member:
    """The member with the reason why it is not read, where what it claims is out of bounds."""
    at = member.where
    if member.status:
        return member
    if not member.path or _leads_out(member.path):
        return replace(member, status="unsupported", error="a name that leads out of the archive")
    if member.path.lower().endswith(SUFFIXES):
        reason = "an archive inside an archive, which is not opened"
        return replace(member, status="unsupported", error=reason)
    if reason := too_large(at.size):
        return replace(member, status="too_large", error=reason)
    if at.size > max(RATIO_FROM, RATIO * at.stored):
        reason = f"it would grow {at.size // max(1, at.stored)}-fold, as a decompression bomb does"
        return replace(member, status="too_large", error=reason)
    return member


def _leads_out(path: str) -> bool:
    absolute = re.match(r"%2F|%5C|[A-Za-z]%3A", path)
    return bool(absolute) or not {"..", "%2E%2E"}.isdisjoint(re.split("/|%5C", path))


def _path(name: bytes) -> str:
    """A member's name for its URI: `./` at its front dropped, a slash there encoded."""
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    return re.sub("^/", "%2F", encode(name))


# Zip


def _zip_members(file: BinaryIO) -> Iterator[Member]:
    try:
        index = zipfile.ZipFile(_Limited(file))
    except BROKEN_ZIP as error:
        raise FetchFailed("decode_failed", "a broken zip archive") from error
    infos = sorted(index.infolist(), key=lambda info: info.header_offset)
    ends = [i.header_offset + LOCAL.size + len(i.filename) + i.compress_size for i in infos]
    nexts = [*(info.header_offset for info in infos), index.start_dir][1:]
    furthest = 0
    for info, end, following in zip(infos, ends, nexts, strict=True):
        overlaps = end > following or info.header_offset < furthest
        furthest = max(furthest, end)
        if not info.orig_filename.endswith("/"):
            refusal = _zip_refusal(info, overlaps)
            yield Member(_path(_raw_name(info)), _zip_where(info), *refusal)


def _zip_where(info: zipfile.ZipInfo) -> Where:
    # A negative offset is refused as overlapping; it only needs a text.
    offset = max(0, info.header_offset)
    return Where(ZIP, offset, info.compress_size, info.file_size, info.CRC)


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    utf8 = info.flag_bits & 0x800
    return info.orig_filename.encode("utf-8" if utf8 else "cp437", "surrogateescape")


def _zip_refusal(info: zipfile.ZipInfo, overlaps: bool) -> tuple[str, str]:
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


class _Limited:
    """A file that refuses to be read into memory beyond a bound."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        if size > MOST_INDEX:
            raise FetchFailed("too_large", f"an index of {size} bytes (at most {MOST_INDEX})")
        return self.file.read(size)


# Tar


def _tar_members(file: "Plain | Inflated", kind: str, archive: int) -> Iterator[Member]:
    """Header after header; the data between them is passed over. `archive`: bytes of a tar.gz."""
    said: dict[str, str] = {}
    count = 0
    while header := _header(file, count):
        if header.type in (*EXTENSIONS, tarfile.XGLTYPE):
            content = _extension(file, header)
            said |= {} if header.type == tarfile.XGLTYPE else _said(header.type, content)
            continue
        size = int(said["size"]) if re.fullmatch(r"\d{1,15}", said.get("size", "")) else header.size
        if not header.isreg() and header.type in tarfile.SUPPORTED_TYPES:
            size = 0  # links, folders and devices have no data, whatever their header says
        at = Where(kind, file.tell(), archive or size, size)
        whole = file.skip(size)
        count += 1
        name = said.get("path", header.name).encode("utf-8", "surrogateescape")
        if not header.isdir() and not name.endswith(b"/"):
            yield Member(_path(name), at, *_tar_refusal(header, said, whole))
        if not whole:
            raise _cut_off(count)
        file.skip(-size % tarfile.BLOCKSIZE)
        said = {}


def _header(file: "Plain | Inflated", count: int) -> tarfile.TarInfo | None:
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise _cut_off(count)
    if not block.strip(b"\0"):
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        reason = f"a broken tar archive: {count} members were read"
        raise FetchFailed("decode_failed", reason) from error
    if header.size < 0:
        raise FetchFailed("decode_failed", "a broken tar archive: a size below 0")
    if header.type == tarfile.GNUTYPE_SPARSE and block[482]:
        while file.read(tarfile.BLOCKSIZE)[504:505] not in (b"", b"\0"):
            pass  # more of the map of a sparse file, before its data
    return header


def _cut_off(count: int) -> FetchFailed:
    return FetchFailed("decode_failed", f"a tar archive that is cut off: {count} members were read")


def _extension(file: "Plain | Inflated", header: tarfile.TarInfo) -> bytes:
    if header.size > MOST_INDEX:
        raise FetchFailed("too_large", f"a header of {header.size} bytes (at most {MOST_INDEX})")
    content = file.read(header.size)
    file.skip(-header.size % tarfile.BLOCKSIZE)
    return content


def _said(kind: bytes, content: bytes) -> dict[str, str]:
    """What an extension says of the next member: its path, its size, that it is sparse."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    found = {}
    while record := re.match(rb"(\d{1,8}) ([^=]{1,100})=", content):
        value = content[record.end() : int(record[1]) - 1]
        found[record[2].decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        content = content[max(record.end(), int(record[1])) :]
    return found if kind == tarfile.XHDTYPE else {}


def _tar_refusal(header: tarfile.TarInfo, said: dict[str, str], whole: bool) -> tuple[str, str]:
    if header.issym() or header.islnk():
        return "unsupported", "a link, which is not followed"
    if header.issparse() or any(key.startswith("GNU.sparse") for key in said):
        return "unsupported", "a sparse file, which is not read"
    if not header.isreg():
        return "unsupported", "a device, a pipe or another thing that is no file"
    if not whole:
        return "decode_failed", "it is cut off by the end of its archive"
    return "", ""


class Plain:
    """A tar as it lies: what is passed over is not read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.read, self.tell = file.read, file.tell

    def skip(self, size: int) -> bool:
        """Pass over so many bytes; False where the archive ends before."""
        return self.file.seek(size, os.SEEK_CUR) <= self.size


class Inflated:
    """A tar.gz as a tar, read once from its beginning to its end, within bounds."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.gzip = GzipFile(fileobj=file)
        self.tell = self.gzip.tell

    def read(self, size: int) -> bytes:
        """So many bytes, fewer at the end. FetchFailed where it is broken, cut off or a bomb."""
        try:
            data = self.gzip.read(size)
        except EOFError:
            return b""
        except (OSError, zlib.error) as error:
            raise FetchFailed("decode_failed", "a broken tar.gz: it cannot be inflated") from error
        here, stored = self.tell(), self.file.tell()
        if here > min(MOST_STREAM, max(RATIO_FROM, RATIO * stored)):
            reason = f"a tar.gz that grows from {stored} to {here} bytes and more, as a bomb does"
            raise FetchFailed("too_large", reason)
        return data

    def skip(self, size: int) -> bool:
        """Pass over so many bytes; False where the archive ends before."""
        while size and (data := self.read(min(size, BLOCK))):
            size -= len(data)
        return not size
