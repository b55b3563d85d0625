"""Entries: what is known of an object before it is read, and which of them are wanted."""

import os
import stat
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from fundus.storage import s3, system_files
from fundus.storage.objects import local_etag, other, other_etag, time_etag, too_large
from fundus.storage.retry import Retry, StorageFailed
from fundus.storage.uris import (
    S3,
    decode,
    encode,
    is_archive,
    join_s3,
    local_path,
    scheme_of,
    split_member,
    split_s3,
)

FOLDER, LINK, SPECIAL, UNKNOWN = "folder", "link", "special", "unknown"
"""Etags of what has none and is refused."""


@dataclass(frozen=True)
class Entry:
    """One object of the archive."""

    uri: str
    """Where it lies; percent-encoded, so that any file name fits."""
    etag: str
    """Changes when its content changes."""
    size: int
    """Bytes."""
    status: str = ""
    """Empty, or the row's status where the listing already tells that it cannot be read."""
    error: str = ""
    """Why, in one sentence."""
    modified: datetime | None = None
    """Last change in UTC, a member's being its archive's; None where it is unknown."""


def of_path(path: bytes) -> Entry:
    """Of a path of this machine, links followed."""
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
    """In UTC; None for a time that no calendar has, such as the year 11476."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def of_listed(bucket: str, item: dict[str, Any]) -> Entry:
    """Of an object as an S3 listing has it."""
    changed = item["LastModified"].astimezone(UTC)
    etag = item.get("ETag", "").strip('"') or time_etag(item["Size"], changed)
    return _bounded(Entry(join_s3(bucket, item["Key"]), etag, item["Size"], modified=changed))


def of_other(uri: str, about: dict[str, Any]) -> Entry:
    """Of an object as fsspec tells it."""
    modified = about.get("last_modified") or about.get("mtime") or about.get("created")
    known = modified if isinstance(modified, datetime) else None
    return _bounded(Entry(uri, other_etag(about), about["size"], modified=known))


def of_uri(uri: str, retry: Retry) -> Entry:
    """Of one object, asked for by its URI. ConfigurationError where it can be none of ours."""
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
    """Too large, unless it is an archive: of one no more than a member is read at once."""
    reason = too_large(entry.size)
    if not reason or is_archive(entry.uri):
        return entry
    return replace(entry, status="too_large", error=reason)


@dataclass(frozen=True)
class Wanted:
    """Which entries are listed. What cannot be opened always is: nobody knows what it holds."""

    root: str
    """URI of the archive; names are matched below it."""
    suffixes: tuple[str, ...] = ()
    """Such as (".jpg", ".dcm"); case does not count. Empty: all."""
    glob: str | None = None
    """For the name below the archive, such as "2027/*.jpg"; `*` crosses folders. None: all."""
    since: datetime | None = None
    """Only what changed at this time or later."""
    system_files: bool = False
    """List what NAS and desktop systems leave among pictures, too."""
    left_out: Counter[str] | None = field(default=None, compare=False)
    """Gets the count of the system files that are not listed, by kind."""

    def __call__(self, entry: Entry) -> bool:
        """Whether the entry is listed."""
        unlisted = entry.etag == FOLDER and entry.status == "read_failed"
        chosen = unlisted or (self.recent(entry) and self._named(entry.uri.partition("#")[0]))
        return chosen and not self.passed_over(entry.uri)

    def passed_over(self, uri: str) -> bool:
        """Whether it is a system file, which is counted then; what a list names never is."""
        if self.system_files:
            return False
        name = uri.partition("#")[0]
        below = name.removeprefix(self.root) if self.root else split_member(name)[1]
        if found := system_files.kind(decode(below)):
            system_files.count(self.left_out, found)
        return bool(found)

    def recent(self, entry: Entry) -> bool:
        """Whether it changed late enough, as far as that is known."""
        return not (self.since and entry.modified and entry.modified < self.since)

    def _named(self, uri: str) -> bool:
        if self.suffixes and not uri.lower().endswith(self.suffixes):
            return False
        name = decode(uri.removeprefix(self.root)).lstrip("/")
        return not self.glob or fnmatchcase(name, self.glob)
