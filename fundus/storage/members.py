"""Members: what a zip, a tar or a tar.gz holds, each one ranged read away.

A member's etag is its archive's, `!`, and where and what it is.
"""

import re
from dataclasses import dataclass

from fundus.storage.uris import encode

ZIP, TAR, TAR_GZ = "z", "t", "g"
MOST_INDEX = 1 << 24
"""Bytes of names that are read into memory: a zip's index, all names of an archive."""
RATIO, RATIO_FROM = 100, 1 << 26
"""Decompressed over compressed bytes, from so many decompressed bytes on: more is a bomb."""


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


def path_of(name: bytes) -> str:
    """A member's name for its URI: `./` at its front dropped, a slash there encoded."""
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    return re.sub("^/", "%2F", encode(name))
