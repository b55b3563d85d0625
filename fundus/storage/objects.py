"""One object in any storage: its bytes by range, exactly as they were listed.

The etag of a local file is its size and its time of last change in nanoseconds: both come with the
listing, and writing to the file changes them. The etag of an S3 object is S3's own, without quotes.
"""

import errno
import io
import os
import stat
import time
from datetime import UTC, datetime
from typing import Any

import fsspec

from fundus.errors import ConfigurationError
from fundus.storage import s3
from fundus.storage.retry import PATIENT, Passing, Patience, Retry, StorageFailed, patiently
from fundus.storage.uris import S3, decode, local_path, scheme_of, split_s3

MAX_BYTES = 1 << 30
"""Larger objects are not read. The largest sound fundus photographs have a tenth of this size."""
CHUNK = 1 << 16
"""Bytes of a body that are read at once. If it breaks, at most this many are fetched again."""
BLOCK = 1 << 18
"""Bytes per request while a container is searched for its members."""
STREAM_BLOCK = 1 << 22
"""Bytes per request from a tar.gz, all of which is needed."""
PACKAGES = {"gs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""Storage that fsspec reads: the package that each scheme needs."""
TIMED = "~"
"""Prefix of an etag that is made of size and time."""
CHANGED = "it changed after it was listed"


class FetchFailed(Exception):
    """The bytes of an entry could not be fetched; `status` and `reason` go into its row."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


def read(
    uri: str,
    etag: str,
    start: int = 0,
    stop: int | None = None,
    retry: Retry = PATIENT,
) -> bytes:
    """Read bytes [start, stop) of an object; fewer if the object ends before `stop`.

    Args:
        uri: the object's URI, as it was listed.
        etag: the object's etag, as it was listed.
        start, stop: range of bytes; None for `stop` reads to the end.
        retry: patience with failures that may pass.

    Raises:
        FetchFailed: the bytes cannot be read, are too many, or changed since the listing.
    """
    kind = scheme_of(uri)
    try:
        if kind in ("", "file"):
            return _read_local(uri, etag, start, stop)
        if kind == S3:
            return _read_s3(uri, etag, start, stop, retry)
        return patiently(lambda: _read_other(uri, etag, start, stop), retry)
    except StorageFailed as failed:
        raise FetchFailed("read_failed", failed.reason) from failed


def too_large(size: int) -> str:
    """Why an object of `size` bytes is not read; empty if it is."""
    return f"too many bytes ({size}; at most {MAX_BYTES})" if size > MAX_BYTES else ""


def local_etag(found: os.stat_result) -> str:
    """The etag of a local file."""
    return f"{found.st_size:x}-{found.st_mtime_ns:x}"


def _read_local(uri: str, etag: str, start: int, stop: int | None) -> bytes:
    try:
        # Do not wait for a pipe that replaced the file since the listing.
        handle = os.open(local_path(uri), os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or local_etag(found) != etag:
                raise FetchFailed("read_failed", CHANGED)
            stop = found.st_size if stop is None else min(stop, found.st_size)
            _bounded(stop - start)
            file.seek(start)
            data = file.read(max(0, stop - start))
            if len(data) < stop - start:
                raise FetchFailed("read_failed", CHANGED)
            return data
    except OSError as error:
        raise FetchFailed("read_failed", f"it cannot be read: {error.strerror}") from error


def _read_s3(uri: str, etag: str, start: int, stop: int | None, retry: Retry) -> bytes:
    """Resume a body where it breaks; a condition ensures that all of it is from one object."""
    bucket, key = split_s3(uri)
    request = {"Bucket": bucket, "Key": key, **_unchanged(etag)}
    got, patience = bytearray(), Patience(retry)
    while True:
        here = start + len(got)
        if here or stop is not None:
            request["Range"] = f"bytes={here}-{'' if stop is None else stop - 1}"
        try:
            reply = s3.once("get_object", retry, **request)
            if "Range" in request:
                _check_range(reply, here, stop)
            _bounded(len(got) + reply["ContentLength"])
            _drain(reply, got, patience)
            return bytes(got)
        except Passing as failure:
            patience.wait(failure)


def time_etag(size: int, changed: datetime) -> str:
    """The etag of an S3 object that is listed without one: its size and last change in seconds."""
    return f"{TIMED}{size:x}-{int(changed.timestamp())}"


def _unchanged(etag: str) -> dict[str, Any]:
    """The condition under which S3 sends the object only as it was listed."""
    if not etag.startswith(TIMED):
        return {"IfMatch": f'"{etag}"'}
    return {"IfUnmodifiedSince": datetime.fromtimestamp(int(etag.rpartition("-")[2]), UTC)}


def _check_range(reply: dict[str, Any], start: int, stop: int | None) -> None:
    """Raise FetchFailed if the server sends other bytes than requested: some ignore the range."""
    last = start + reply["ContentLength"] - 1
    whole = reply["ResponseMetadata"]["HTTPStatusCode"] != 206
    stated = reply.get("ContentRange", "").startswith(f"bytes {start}-{last}/")
    if whole or not stated or (stop is not None and last >= stop):
        reply["Body"].close()
        raise FetchFailed("read_failed", "the storage sends other bytes than were asked for")


def _drain(reply: dict[str, Any], got: bytearray, patience: Patience) -> None:
    body = reply["Body"]
    try:
        for chunk in body.iter_chunks(CHUNK):
            got += chunk
            patience.progress()
            if time.monotonic() > patience.deadline:
                raise StorageFailed(f"the storage was too slow ({patience.retry.deadline_s:g} s)")
    except s3.FAILURES as error:
        raise s3.meaning(error) from error
    finally:
        body.close()


def _read_other(uri: str, etag: str, start: int, stop: int | None) -> bytes:
    system, path = other(uri)
    try:
        about = system.info(path)
        if other_etag(about) != etag:
            raise FetchFailed("read_failed", CHANGED)
        _bounded((about["size"] if stop is None else stop) - start)
        return system.cat_file(path, start=start, end=stop)
    except FileNotFoundError as error:
        raise FetchFailed("read_failed", s3.MEANINGS[404]) from error
    except PermissionError as error:
        raise FetchFailed("read_failed", s3.MEANINGS[403]) from error
    except FetchFailed:
        raise
    except Exception as error:  # fsspec's plugins raise what their own libraries do
        raise Passing(f"the connection to the storage failed ({type(error).__name__})") from error


def other(uri: str) -> tuple[Any, str]:
    """A gs://, az:// or abfs:// URI for fsspec: (filesystem, path).

    Raises:
        ConfigurationError: another scheme, or a package that is not installed.
    """
    scheme = scheme_of(uri)
    if scheme not in PACKAGES:
        known = ", ".join(f"{name}://" for name in ("s3", *PACKAGES))
        raise ConfigurationError(f"{scheme}:// is not read: give a folder or one of {known}")
    try:
        return fsspec.core.url_to_fs(f"{scheme}://{decode(uri.partition('://')[2])}")
    except ImportError as error:
        package = PACKAGES[scheme]
        raise ConfigurationError(
            f"{scheme}:// needs the package {package}: pip install {package}"
        ) from error


def other_etag(about: dict[str, Any]) -> str:
    """A value of fsspec that changes with the object: its etag, else its size and time."""
    for name in ("etag", "ETag", "md5Hash", "generation"):
        if about.get(name):
            return str(about[name]).strip('"')
    changed = about.get("last_modified") or about.get("mtime") or about.get("created")
    # One file system may give the time as another type in listings than in look-ups.
    seconds = changed.timestamp() if isinstance(changed, datetime) else changed
    return f"{about['size']:x}-{seconds}"


def _bounded(size: int) -> None:
    if reason := too_large(size):
        raise FetchFailed("too_large", reason)


class _ObjectFile(io.RawIOBase):
    """An object as a seekable file of ranged reads. Its end, which a zip needs, is read once."""

    def __init__(self, uri: str, etag: str, size: int, retry: Retry = PATIENT) -> None:
        self.uri, self.etag, self.size, self.retry = uri, etag, size, retry
        self.position = 0
        self.end = b""

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "a position before the beginning")
        self.position = base + offset
        return self.position

    def readinto(self, buffer: Any) -> int:
        data = self._at(self.position, min(self.position + len(buffer), self.size))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def readall(self) -> bytes:
        data = self._at(self.position, self.size)
        self.position += len(data)
        return data

    def _at(self, start: int, stop: int) -> bytes:
        if start >= stop:
            return b""
        cached = max(0, self.size - BLOCK)
        if start < cached:
            return read(self.uri, self.etag, start, stop, self.retry)
        if not self.end:
            self.end = read(self.uri, self.etag, cached, self.size, self.retry)
        return self.end[start - cached : stop - cached]


def open_object(
    uri: str, etag: str, size: int, block: int = BLOCK, retry: Retry = PATIENT
) -> io.BufferedReader:
    """Open an object of `size` bytes as a buffered, seekable file; reading raises FetchFailed."""
    return io.BufferedReader(_ObjectFile(uri, etag, size, retry), block)
