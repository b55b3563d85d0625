"""The inventory: one entry for every object in the archive, and the bytes behind an entry.

An entry's identity is its URI and etag. A local file's etag is its size and its time of last
change in nanoseconds: both come with the listing, and writing to a file changes them.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

MAX_BYTES = 1 << 30
"""Larger files are not read: the largest sound fundus photographs hold a tenth of it."""

PICTURE_SUFFIXES = frozenset(
    b".jpg .jpeg .jpe .png .tif .tiff .bmp .ppm .pgm .webp .gif .jp2 .j2k .dcm".split()
)

SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
    ]
)


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


class FetchFailed(Exception):
    """The bytes of an entry could not be had; `status` and `reason` are the row's."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


def walk(archive: str, *, leave_out: str | None = None) -> Iterator[Entry]:
    """Every object under a folder (path or file:// URI), hidden ones too, by name within a folder.

    `leave_out` is a folder that is not the archive's: the results, when they lie inside. Folders
    are no objects, but one named like a picture is listed as refused, and so are symbolic links
    that lead out of the archive, to a folder or to nothing, pipes, sockets and devices. Links to
    folders are not followed. An archive that is no folder raises ValueError.
    """
    root = local_folder(archive)
    if not root.is_dir():
        raise ValueError(f"the archive {archive} is not a folder")
    skip = os.fsencode(local_folder(leave_out)) if leave_out else None
    yield from _walk(os.fsencode(root), os.fsencode(root), skip)


def local_folder(uri: str) -> Path:
    """A path or file:// URI as an absolute path, links resolved; ValueError for another scheme."""
    scheme, colon, path = uri.partition("://")
    if not colon:
        return Path(uri).expanduser().resolve()
    if scheme != "file":
        raise ValueError(f"{scheme}:// is not read yet: give a folder of this machine")
    return Path(os.fsdecode(unquote_to_bytes(path))).resolve()


def _walk(folder: bytes, root: bytes, skip: bytes | None) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as listing:
            items = sorted(listing, key=lambda item: item.name)
    except OSError as error:
        reason = f"the folder cannot be listed: {error.strerror}"
        yield Entry(_uri(folder), "folder", 0, "read_failed", reason)
        return
    for item in items:
        if item.path == skip:
            continue
        if item.is_dir(follow_symlinks=False):
            if os.path.splitext(item.name)[1].lower() in PICTURE_SUFFIXES:  # noqa: PTH122 bytes
                yield Entry(_uri(item.path), "folder", 0, "unsupported", "a directory, not a file")
            yield from _walk(item.path, root, skip)
        else:
            yield _entry(item, root)


def _entry(item: os.DirEntry[bytes], root: bytes) -> Entry:
    uri = _uri(item.path)
    if item.is_symlink():
        target = os.path.realpath(item.path)
        if target != root and not target.startswith(root + b"/"):
            return Entry(uri, "link", 0, "unsupported", "a link that leads out of the archive")
        if os.path.isdir(target):  # noqa: PTH112 bytes
            return Entry(uri, "link", 0, "unsupported", "a link to a folder, which is not followed")
    try:
        found = item.stat()
    except OSError as error:
        return Entry(uri, "unknown", 0, "read_failed", f"it cannot be read: {error.strerror}")
    if not stat.S_ISREG(found.st_mode):
        return Entry(uri, "special", 0, "unsupported", "a pipe, socket or device, not a file")
    if found.st_size > MAX_BYTES:
        reason = f"too many bytes ({found.st_size}; at most {MAX_BYTES})"
        return Entry(uri, _etag(found), found.st_size, "too_large", reason)
    return Entry(uri, _etag(found), found.st_size)


def fetch(uri: str, etag: str) -> bytes:
    """The bytes of an entry as it was listed; FetchFailed when they cannot be had."""
    try:
        # No waiting on a pipe that took the file's name since the listing.
        handle = os.open(unquote_to_bytes(urlsplit(uri).path), os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or _etag(found) != etag:
                raise FetchFailed("read_failed", "it changed after it was listed")
            return file.read()
    except OSError as error:
        raise FetchFailed("read_failed", f"it cannot be read: {error.strerror}") from error


def write(
    entries: Iterator[Entry], path: str, filesystem: fs.FileSystem, limit: int | None = None
) -> int:
    """Write entries (the first `limit`) as one Parquet file; their count. Memory stays constant."""
    count = 0
    with (
        filesystem.open_output_stream(path) as stream,
        pq.ParquetWriter(stream, SCHEMA, compression="zstd") as writer,
    ):
        wanted = islice(entries, limit)
        while some := list(islice(wanted, 10_000)):
            writer.write_table(pa.Table.from_pylist([asdict(entry) for entry in some], SCHEMA))
            count += len(some)
    return count


def _uri(path: bytes) -> str:
    return "file://" + quote_from_bytes(path)


def _etag(found: os.stat_result) -> str:
    return f"{found.st_size:x}-{found.st_mtime_ns:x}"
