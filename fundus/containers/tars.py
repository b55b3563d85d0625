"""Tars and tar.gz: headers are read one after the other, and the data between them is skipped."""

import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from operator import itemgetter
from typing import Any, BinaryIO

from fundus.containers.members import RATIO, RATIO_FROM, Member, Where, path_of
from fundus.storage.objects import BLOCK, FetchFailed

MOST_HEADER = 1 << 20
"""Bytes of one extension header: a long name, or other attributes of a member."""
MOST_EXTENSIONS, MOST_EXTENDED = 300_000, 1 << 26
"""Extension headers per container, three for each possible member, and bytes in all of them."""
MOST_STREAM = 1 << 36
"""Bytes of a decompressed tar.gz."""
MOST_ZEROS = 1 << 26
"""Bytes of zeros after the end of a tar that are searched for another tar."""
MARK = 1 << 27
"""Decompressed bytes between two positions from which a tar.gz can be read."""
EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.XGLTYPE,
)
RECORD = re.compile(rb"(\d{1,8}) ([^=]{1,100})=")
"""The beginning of a record of a pax header: the length of the record, and a keyword."""
SPARSE = b"GNU.sparse"
LABEL = b"V"
"""Type of the header that names a whole tape."""


def tar_members(file: "Plain | Inflated", kind: str, container: int) -> Iterator[Member]:
    """The members in the order of the file, without folders.

    Concatenated tars are read as one. A hard link to an earlier member has that member's bytes.

    Args:
        file: the tar, decompressed.
        kind: `TAR` or `TAR_GZ`.
        container: bytes of the whole tar.gz; 0 for a tar.

    Raises:
        FetchFailed: the tar is broken; only after its readable members.
    """
    extended: dict[str, str] = {}
    regular: dict[str, Where] = {}
    count = extensions = length = 0
    while header := _header(file, count):
        if header.type in EXTENSIONS:
            content = _extension(file, header)
            extensions, length = extensions + 1, length + len(content)
            if extensions > MOST_EXTENSIONS or length > MOST_EXTENDED:
                reason = f"too many headers: {extensions} of {length} bytes beside {count} members"
                raise FetchFailed("too_large", reason)
            extended |= _extended(header.type, content)
            continue
        size = header.size
        if re.fullmatch(r"\d{1,15}", extended.get("size", "")):
            size = int(extended["size"])
        if not header.isreg() and header.type in tarfile.SUPPORTED_TYPES:
            size = 0  # links, folders and devices have no data, whatever their header states
        at = Where(kind, file.tell(), container or size, size)
        whole = file.skip(size)
        count += 1
        name = extended.get("path", header.name).encode("utf-8", "surrogateescape")
        if not header.isdir() and not name.endswith(b"/") and header.type != LABEL:
            refusal = _refusal(header, extended, whole)
            if header.islnk() and (target := regular.get(_target(header, extended))):
                at, refusal = target, ("", "")
            path = path_of(name)
            if refusal[0]:
                regular.pop(path, None)
            else:
                regular[path] = at
            yield Member(path, at, *refusal)
        if not whole:
            raise _cut_off(count)
        file.skip(-size % tarfile.BLOCKSIZE)
        extended = {}


def _target(header: tarfile.TarInfo, extended: dict[str, str]) -> str:
    """The path of the member to which a hard link points."""
    return path_of(extended.get("linkpath", header.linkname).encode("utf-8", "surrogateescape"))


def _header(file: "Plain | Inflated", count: int) -> tarfile.TarInfo | None:
    """The next header, also after the zeros that end a tar; None at the end of the last tar."""
    zeros = 0
    while not (block := file.read(tarfile.BLOCKSIZE)).strip(b"\0"):
        if len(block) < tarfile.BLOCKSIZE:
            if not zeros:
                raise _cut_off(count)
            if file.more:
                raise _more(count)
            return None
        zeros += len(block)
        if zeros > MOST_ZEROS:
            raise _more(count)
    if len(block) < tarfile.BLOCKSIZE:
        raise _more(count) if zeros else _cut_off(count)
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        if zeros:
            raise _more(count) from error
        reason = f"a broken tar archive: {count} members were read"
        raise FetchFailed("decode_failed", reason) from error
    if header.size < 0:
        raise FetchFailed("decode_failed", "a broken tar archive: a size below 0")
    if header.type == tarfile.GNUTYPE_SPARSE and block[482]:
        # The rest of the map of a sparse file precedes its data.
        for _ in range(MOST_HEADER // tarfile.BLOCKSIZE):
            if file.read(tarfile.BLOCKSIZE)[504:505] in (b"", b"\0"):
                return header
        raise FetchFailed("too_large", f"the map of a sparse file of over {MOST_HEADER} bytes")
    return header


def _cut_off(count: int) -> FetchFailed:
    return FetchFailed("decode_failed", f"a tar archive that is cut off: {count} members were read")


def _more(count: int) -> FetchFailed:
    follows = "more follows the end of the tar archive, which is not read"
    return FetchFailed("decode_failed", f"{follows}: {count} members were read")


def _extension(file: "Plain | Inflated", header: tarfile.TarInfo) -> bytes:
    if header.size > MOST_HEADER:
        raise FetchFailed("too_large", f"a header of {header.size} bytes (at most {MOST_HEADER})")
    content = file.read(header.size)
    file.skip(-header.size % tarfile.BLOCKSIZE)
    return content


def _extended(kind: bytes, content: bytes) -> dict[str, str]:
    """Attributes of the next member from an extension: path, linkpath, size, sparse."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    if kind == tarfile.GNUTYPE_LONGLINK:
        return {"linkpath": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    found: dict[str, str] = {}
    position = 0
    while kind == tarfile.XHDTYPE and (record := RECORD.match(content, position)):
        end = position + int(record[1])
        # All other keywords are ignored: a hostile header has thousands.
        if record[2] in (b"path", b"linkpath", b"size"):
            value = content[record.end() : end - 1]
            found[record[2].decode()] = value.decode("utf-8", "surrogateescape")
        elif record[2].startswith(SPARSE):
            found["sparse"] = ""
        position = max(record.end(), end)
    return found


def _refusal(header: tarfile.TarInfo, extended: dict[str, str], whole: bool) -> tuple[str, str]:
    if header.issym() or header.islnk():
        return "unsupported", "a link, which is not followed"
    if header.type == tarfile.GNUTYPE_SPARSE or "sparse" in extended:
        return "unsupported", "a sparse file, which is not read"
    if not header.isreg():
        return "unsupported", "a device, a pipe or another member that is not a file"
    if not whole:
        return "decode_failed", "it is cut off by the end of its container"
    return "", ""


class Plain:
    """An uncompressed tar. Skipped bytes are not read."""

    more = False

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.read, self.tell = file.read, file.tell

    def skip(self, size: int) -> bool:
        """Skip `size` bytes; False if the container ends before."""
        return self.file.seek(size, os.SEEK_CUR) <= self.size


class Inflated:
    """A tar.gz, read as a tar within bounds.

    Deflated data can only be read from its start or from a copy of the decompressor's state. One
    copy, of at most 300 kB, is stored for every `MARK` bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.position = 0
        self.more = False
        """Whether bytes that are not a gzip file follow the last gzip file."""
        self.state = _gunzip()
        self.marks = [(0, 0, self.state.copy())]

    def tell(self) -> int:
        """The position in the decompressed data."""
        return self.position

    def read(self, size: int) -> bytes:
        """Read `size` bytes, fewer at the end; FetchFailed if the data is broken or a bomb."""
        parts = []
        while size and (part := self._part(min(size, BLOCK))):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> bool:
        """Skip `size` bytes; False if the container ends before."""
        while size and (part := self._part(min(size, BLOCK))):
            size -= len(part)
        return not size

    def go(self, offset: int) -> bool:
        """Go to an offset in the decompressed data; False if the container ends before."""
        position, stored, state = max(
            (mark for mark in self.marks if mark[0] <= offset), key=itemgetter(0)
        )
        if not position <= self.position <= offset:
            self.file.seek(stored)
            self.position, self.state, self.more = position, state.copy(), False
        return self.skip(offset - self.position)

    def _part(self, most: int) -> bytes:
        """At most `most` bytes; none at the end."""
        while stored := self._stored():
            try:
                part = self.state.decompress(stored, most)
            except zlib.error as error:
                reason = "a broken tar.gz: it cannot be inflated"
                raise FetchFailed("decode_failed", reason) from error
            if part:
                self.position += len(part)
                self._look_out()
                return part
        return b""

    def _stored(self) -> bytes:
        """Compressed bytes for `state`: its unconsumed ones, else the next of the file."""
        if not self.state.eof:
            return self.state.unconsumed_tail or self.file.read(BLOCK)
        if self.more:
            return b""
        rest = self.state.unused_data or self.file.read(BLOCK)
        while rest and not (rest := rest.lstrip(b"\0")):
            rest = self.file.read(BLOCK)
        if len(rest) == 1:
            rest += self.file.read(BLOCK)
        if rest and not rest.startswith(b"\x1f\x8b"):
            self.more = True
            return b""
        self.state = _gunzip()  # gzip files may follow one another
        return rest

    def _look_out(self) -> None:
        stored = self.file.tell()
        if self.position > min(MOST_STREAM, max(RATIO_FROM, RATIO * stored)):
            grows = f"grows from {stored} to {self.position} bytes and more"
            reason = f"a tar.gz that {grows}, as a bomb does"
            raise FetchFailed("too_large", reason)
        if self.position >= self.marks[-1][0] + MARK:
            self.marks.append((self.position, stored, self.state.copy()))


def _gunzip() -> Any:
    return zlib.decompressobj(zlib.MAX_WBITS | 16)
