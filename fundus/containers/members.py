"""Members of a zip, a tar or a tar.gz, each of which is read by range.

The etag of a member is the etag of its container, `!`, and the member's location and size.
"""

import re
from dataclasses import dataclass

from fundus.storage.uris import encode

ZIP, TAR, TAR_GZ = "z", "t", "g"
MOST_INDEX = 1 << 24
"""Bytes of names that are read into memory: a zip's index, all names of a container."""
RATIO, RATIO_FROM = 100, 1 << 26
"""A member that grows more than RATIO-fold, to more than RATIO_FROM bytes, is a bomb."""


@dataclass(frozen=True)
class Where:
    """The location of a member's bytes; as text, the second half of the member's etag."""

    kind: str
    offset: int
    """Offset of the local header in a zip, of the data in a tar, of the decompressed data in a
    tar.gz."""
    stored: int
    """Bytes in the container; for a tar.gz, which is read from its beginning, its whole size."""
    size: int
    """Bytes of the member."""
    crc: int = 0
    """CRC-32 of the member in a zip."""

    def __str__(self) -> str:
        return f"{self.kind}-{self.offset:x}-{self.stored:x}-{self.size:x}-{self.crc:08x}"


def where(etag: str) -> tuple[str, Where]:
    """Split a member's etag into (etag of the container, location in it)."""
    container, _, text = etag.rpartition("!")
    kind, *numbers = text.split("-")
    return container, Where(kind, *(int(number, 16) for number in numbers))


@dataclass(frozen=True)
class Member:
    """One member of a container."""

    path: str
    """Percent-encoded; repeated names end with `#2`, `#3` and so on."""
    where: Where
    status: str = ""
    """Empty, or the row's status if the member is not read."""
    error: str = ""
    """Why the member is not read, in one sentence."""


def path_of(name: bytes) -> str:
    """A member's name for its URI: a leading `./` is removed, a leading slash is encoded."""
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    return re.sub("^/", "%2F", encode(name))
