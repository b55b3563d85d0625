"""Containers in an archive: the members of each zip, tar and tar.gz are listed in its place.

The sizes that a member states are checked before any byte of it is read.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from tarfile import BLOCKSIZE
from typing import BinaryIO
from zipfile import is_zipfile

from fundus.archive.entries import Entry, Wanted
from fundus.containers.members import MOST_INDEX, RATIO, RATIO_FROM, TAR, TAR_GZ, Member
from fundus.containers.tars import Inflated, Plain, tar_members
from fundus.containers.zips import zip_members
from fundus.storage.objects import BLOCK, STREAM_BLOCK, FetchFailed, open_object, too_large
from fundus.storage.uris import MEMBER, is_container

MOST_MEMBERS = 100_000
GZIP = b"\x1f\x8b"
ZIPS = (b"PK\3\4", b"PK\5\6", b"PK\7\x08")
"""Beginnings of a zip, before which a program may stand: then its name tells."""


def opened(entry: Entry, wanted: Wanted) -> Iterator[Entry]:
    """The entry or, if it is a container, its members: as far as they are wanted."""
    if entry.status or not is_container(entry.uri):
        return filter(wanted, [entry])
    if not wanted.recent(entry) or wanted.passed_over(entry.uri):
        return iter([])
    return (one for one in _inside(entry) if one.uri == entry.uri or wanted(one))


def _inside(entry: Entry) -> Iterator[Entry]:
    """The members, and after them the container itself if it is broken, too large or empty."""
    empty = True
    block = BLOCK if entry.uri.lower().endswith((".zip", ".tar")) else STREAM_BLOCK
    try:
        with open_object(entry.uri, entry.etag, entry.size, block) as file:
            for member in _members(file, entry.uri, entry.size):
                empty = False
                yield Entry(
                    entry.uri + MEMBER + member.path,
                    f"{entry.etag}!{member.where}",
                    member.where.size,
                    member.status,
                    member.error,
                    entry.modified,
                )
    except FetchFailed as failed:
        yield replace(entry, status=failed.status, error=failed.reason)
        return
    if empty:
        yield replace(entry, status="unsupported", error="an archive without members")


def _members(file: BinaryIO, name: str, size: int) -> Iterator[Member]:
    """The members of a container of `size` bytes; FetchFailed after them if it is broken."""
    names: Counter[str] = Counter()
    length = 0
    for number, member in enumerate(_found(file, name, size)):
        length += len(member.path)
        if number >= MOST_MEMBERS or length > MOST_INDEX:
            raise FetchFailed("too_large", f"too many members: {number} were read")
        names[member.path] += 1
        again = f"#{names[member.path]}" if names[member.path] > 1 else ""
        yield _refused(replace(member, path=member.path + again))


def _found(file: BinaryIO, name: str, size: int) -> Iterator[Member]:
    start = file.read(BLOCKSIZE)
    file.seek(0)
    is_tar = start.startswith(GZIP) or start[257:262] == b"ustar"
    named = name.lower().endswith(".zip")
    if start.startswith(ZIPS) or (named and (not is_tar or is_zipfile(file))):
        return zip_members(file)
    file.seek(0)
    if start.startswith(GZIP):
        return tar_members(Inflated(file), TAR_GZ, size)
    return tar_members(Plain(file, size), TAR, 0)


def _refused(member: Member) -> Member:
    """The member, with a status and a reason if it is not read."""
    at = member.where
    if member.status:
        return member
    if not member.path or _leads_out(member.path):
        return replace(member, status="unsupported", error="a name that leads out of the container")
    if is_container(member.path):
        reason = "a zip or tar inside another one, which is not opened"
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
