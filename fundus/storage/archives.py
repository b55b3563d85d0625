"""Archives in an archive: in place of each zip, tar and tar.gz, what lies in it.

What a member claims is checked against bounds before any byte of it is read.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from fundus.storage.entries import Entry, Wanted
from fundus.storage.members import MOST_INDEX, RATIO, RATIO_FROM, TAR, TAR_GZ, Member
from fundus.storage.objects import BLOCK, STREAM_BLOCK, FetchFailed, open_object, too_large
from fundus.storage.tars import Inflated, Plain, tar_members
from fundus.storage.uris import MEMBER, is_archive
from fundus.storage.zips import zip_members

MOST_MEMBERS = 100_000


def opened(entry: Entry, wanted: Wanted) -> Iterator[Entry]:
    """The entry, or what lies in it: as far as it is wanted."""
    if entry.status or not is_archive(entry.uri):
        return filter(wanted, [entry])
    if not wanted.recent(entry) or wanted.passed_over(entry.uri):
        return iter([])
    return (one for one in _inside(entry) if one.uri == entry.uri or wanted(one))


def _inside(entry: Entry) -> Iterator[Entry]:
    """The members, and at their end the archive itself where it is broken, out of bounds, empty."""
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
    """The members of an archive of `size` bytes; FetchFailed, at the end, where it is broken."""
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
    if name.lower().endswith(".zip"):
        return zip_members(file)
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if compressed:
        return tar_members(Inflated(file), TAR_GZ, size)
    return tar_members(Plain(file, size), TAR, 0)


def _refused(member: Member) -> Member:
    """The member with the reason why it is not read, where what it claims is out of bounds."""
    at = member.where
    if member.status:
        return member
    if not member.path or _leads_out(member.path):
        return replace(member, status="unsupported", error="a name that leads out of the archive")
    if is_archive(member.path):
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
