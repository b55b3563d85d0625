"""Entries: the facts about an object before it is read, and the filters of a listing."""

import os
import stat
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from fundus.containers import system_files
from fundus.storage import s3
from fundus.storage.objects import local_etag, other, other_etag, time_etag, too_large
from fundus.storage.retry import Retry, StorageFailed
from fundus.storage.uris import (
    S3,
    decode,
    encode,
    is_container,
    join_s3,
    local_path,
    scheme_of,
    split_member,
    split_s3,
)

FOLDER, LINK, SPECIAL, UNKNOWN = "folder", "link", "special", "unknown"
"""Etags of refused entries, which have none of their own."""


@dataclass(frozen=True)
class Entry:
    """One object of the archive."""

    uri: str
    """Percent-encoded, so that any file name fits."""
    etag: str
    """Changes when the content changes."""
    size: int
    """Bytes."""
    status: str = ""
    """Empty, or the row's status if the listing already shows that the object cannot be read."""
    error: str = ""
    """Why it cannot be read, in one sentence."""
    modified: datetime | None = None
    """Last change in UTC, for a member that of its container; None if it is unknown."""


def of_path(path: bytes) -> Entry:
    """The entry of a local path; links are followed."""
    uri = "file://" + encode(path)
    try:
        found = os.stat(path)  # noqa: PTH116 bytes
    except OSError as error:
        return Entry(uri, UNKNOWN, 0, "read_failed", f"it cannot be read: {error.strerror}")
    modified = _time(found.st_mtime)
    if stat.S_ISDIR(found.st_mode):
        return Entry(uri, FOLDER, 0, "unsupported", "a directory, not a file")
    if not stat.S_ISREG(found.st_mode):
        return Entry(uri, SPECIAL, 0, "unsupported", "a pipe, socket or device, not a file")
    return _bounded(Entry(uri, local_etag(found), found.st_size, modified=modified))


def _time(seconds: float) -> datetime | None:
    """A time in UTC; None for one outside the calendar, such as the year 11476."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def of_listed(bucket: str, item: dict[str, Any]) -> Entry:
    """The entry of an object in an S3 listing."""
    changed = item["LastModified"].astimezone(UTC)
    etag = item.get("ETag", "").strip('"') or time_etag(item["Size"], changed)
    return _bounded(Entry(join_s3(bucket, item["Key"]), etag, item["Size"], modified=changed))


def of_other(uri: str, about: dict[str, Any]) -> Entry:
    """The entry of an object that fsspec describes."""
    modified = about.get("last_modified") or about.get("mtime") or about.get("created")
    known = modified if isinstance(modified, datetime) else None
    return _bounded(Entry(uri, other_etag(about), about["size"], modified=known))


def of_uri(uri: str, retry: Retry) -> Entry:
    """Look up the entry of one object; ConfigurationError for a URI that is not supported."""
    if scheme_of(uri) == "file":
        return of_path(os.fsencode(local_path(uri)))
    try:
        if scheme_of(uri) != S3:
            system, path = other(uri)
            return of_other(uri, system.info(path))
        bucket, key = split_s3(uri)
        reply = s3.patient("head_object", retry, Bucket=bucket, Key=key)
        item = {"Key": key, "Size": reply["ContentLength"]}
        return of_listed(bucket, reply | item)
    except (StorageFailed, OSError) as failed:
        reason = failed.reason if isinstance(failed, StorageFailed) else s3.MEANINGS[404]
        return Entry(uri, UNKNOWN, 0, "read_failed", reason)


def _bounded(entry: Entry) -> Entry:
    """Refuse a too large entry, unless it is a container, of which one member is read at a time."""
    reason = too_large(entry.size)
    if not reason or is_container(entry.uri):
        return entry
    return replace(entry, status="too_large", error=reason)


@dataclass(frozen=True)
class Wanted:
    """The filters of a listing. A container that cannot be opened is always listed."""

    root: str
    """URI of the archive; names are matched below it."""
    suffixes: tuple[str, ...] = ()
    """Such as (".jpg", ".dcm"); case does not count. Empty for all."""
    glob: str | None = None
    """Pattern for names below the archive, such as "2027/*.jpg"; `*` crosses folders. None for
    all."""
    since: datetime | None = None
    """List only objects that changed at this time or later."""
    system_files: bool = False
    """Also list the files that NAS and desktop systems create among pictures."""
    left_out: Counter[str] | None = field(default=None, compare=False)
    """Counts the system files that are not listed, by kind."""

    def __call__(self, entry: Entry) -> bool:
        """Whether the entry is listed."""
        unlisted = entry.etag == FOLDER and entry.status == "read_failed"
        chosen = unlisted or (self.recent(entry) and self._named(entry.uri.partition("#")[0]))
        return chosen and not self.passed_over(entry.uri)

    def passed_over(self, uri: str) -> bool:
        """Whether the URI is that of a system file, which is then counted.

        A file that a list names is never a system file.
        """
        if self.system_files:
            return False
        name = uri.partition("#")[0]
        below = name.removeprefix(self.root) if self.root else split_member(name)[1]
        if found := system_files.kind(decode(below)):
            system_files.count(self.left_out, found)
        return bool(found)

    def recent(self, entry: Entry) -> bool:
        """Whether the entry changed at `since` or later, or at an unknown time."""
        return not (self.since and entry.modified and entry.modified < self.since)

    def _named(self, uri: str) -> bool:
        if self.suffixes and not uri.lower().endswith(self.suffixes):
            return False
        name = decode(uri.removeprefix(self.root)).lstrip("/")
        return not self.glob or fnmatchcase(name, self.glob)
