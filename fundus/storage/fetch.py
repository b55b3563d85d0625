"""The bytes behind entries: whole objects and members of archives, one or many at a time."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock

from fundus.storage.entries import Entry
from fundus.storage.members import TAR_GZ, ZIP, Where, where
from fundus.storage.objects import MAX_BYTES, STREAM_BLOCK, FetchFailed, open_object, read
from fundus.storage.retry import PATIENT, Retry, retries
from fundus.storage.tars import Inflated
from fundus.storage.uris import split_member
from fundus.storage.zips import read_zip_member

__all__ = ["FetchFailed", "Retry", "fetch", "fetch_many", "retries"]

IN_FLIGHT = 1 << 28
"""Bytes that `fetch_many` holds at most, unless a single object is larger."""
STREAMS = 2
"""Open tar.gz that a process keeps: their next member is not far."""


def fetch(uri: str, etag: str, *, retry: Retry = PATIENT) -> bytes:
    """The bytes of an entry as it was listed; FetchFailed when they cannot be had.

    One ranged read for a member of a zip or tar. A tar.gz is decompressed from its beginning, or
    from near the member where the process has been there before.
    """
    archive, member = split_member(uri)
    if not member:
        return read(archive, etag, retry=retry)
    archive_etag, at = where(etag)
    if at.kind == TAR_GZ:
        return _from_stream(archive, archive_etag, at, retry)
    part = partial(read, archive, archive_etag, retry=retry)
    if at.kind == ZIP:
        return read_zip_member(part, at)
    return part(at.offset, at.offset + at.size) if at.size else b""


def fetch_many(
    entries: Iterable[Entry], at_once: int = 8, *, retry: Retry = PATIENT
) -> Iterator[tuple[int, bytes | FetchFailed]]:
    """(number of the entry, its bytes or why there are none), in the order of the entries.

    So many are fetched at once, and so many are held. What the listing refused is not asked for.
    The order is kept since a task that Ray makes anew must yield what it yielded before.
    """
    waiting: deque[tuple[Entry, Future[bytes | FetchFailed]]] = deque()
    done = 0
    # A thread of its own keeps the members of a tar.gz in their order.
    with ThreadPoolExecutor(at_once) as pool, ThreadPoolExecutor(1) as streams:
        for entry in entries:
            while waiting and not _fits(entry, waiting, at_once):
                yield done, waiting.popleft()[1].result()
                done += 1
            chosen = streams if f"!{TAR_GZ}-" in entry.etag else pool
            waiting.append((entry, chosen.submit(_attempt, entry, retry)))
        while waiting:
            yield done, waiting.popleft()[1].result()
            done += 1


def _fits(entry: Entry, waiting: deque, at_once: int) -> bool:
    held = sum(min(one.size, MAX_BYTES) for one, _ in waiting)
    return len(waiting) < at_once and held + min(entry.size, MAX_BYTES) <= IN_FLIGHT


def _attempt(entry: Entry, retry: Retry) -> bytes | FetchFailed:
    if entry.status:
        return FetchFailed(entry.status, entry.error)
    try:
        return fetch(entry.uri, entry.etag, retry=retry)
    except FetchFailed as failed:
        return failed


_streams: OrderedDict[tuple[str, str], Inflated] = OrderedDict()
_streams_lock = Lock()


def _from_stream(archive: str, etag: str, at: Where, retry: Retry) -> bytes:
    """A member of a tar.gz, by the stream that a former member left open where one did."""
    with _streams_lock:
        stream = _streams.pop((archive, etag), None)
        if stream is None:
            stream = Inflated(open_object(archive, etag, at.stored, STREAM_BLOCK, retry))
        whole = stream.go(at.offset)
        data = stream.read(at.size)
        if not whole or len(data) < at.size:
            raise FetchFailed("decode_failed", "it is cut off by the end of its archive")
        _streams[archive, etag] = stream
        while len(_streams) > STREAMS:
            _streams.popitem(last=False)
        return data
