"""Fetching of entries: whole objects and members of containers, one or many at a time."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock

from fundus.archive.entries import Entry
from fundus.containers.members import TAR_GZ, ZIP, Where, where
from fundus.containers.tars import Inflated
from fundus.containers.zips import read_zip_member
from fundus.storage.objects import MAX_BYTES, STREAM_BLOCK, FetchFailed, open_object, read
from fundus.storage.retry import PATIENT, Retry, retries
from fundus.storage.uris import split_member

__all__ = ["FetchFailed", "Retry", "fetch", "fetch_many", "retries"]

IN_FLIGHT = 1 << 28
"""Most bytes that `fetch_many` holds, unless a single object is larger."""
STREAMS = 2
"""Streams of tar.gz that a process keeps open, because the next member is usually near."""


def fetch(uri: str, etag: str, *, retry: Retry = PATIENT) -> bytes:
    """Fetch the bytes of an entry as it was listed.

    A member of a zip or tar takes one ranged read. A tar.gz is decompressed from its beginning, or
    from near the member if this process has read that part before.

    Raises:
        FetchFailed: the bytes cannot be read, or changed since the listing.
    """
    container, member = split_member(uri)
    if not member:
        return read(container, etag, retry=retry)
    container_etag, at = where(etag)
    if at.kind == TAR_GZ:
        return _from_stream(container, container_etag, at, retry)
    part = partial(read, container, container_etag, retry=retry)
    if at.kind == ZIP:
        return read_zip_member(part, at)
    return part(at.offset, at.offset + at.size) if at.size else b""


def fetch_many(
    entries: Iterable[Entry], at_once: int = 8, *, retry: Retry = PATIENT
) -> Iterator[tuple[int, bytes | FetchFailed]]:
    """Fetch entries, several at once, in their order.

    The order is fixed, because a task that Ray runs again must yield the same as before. Entries
    that the listing refused are not fetched.

    Args:
        entries: listed entries.
        at_once: entries that are fetched, and held in memory, at the same time.
        retry: patience with failures that may pass.

    Yields:
        The number of the entry, and its bytes or the reason why there are none.
    """
    waiting: deque[tuple[Entry, Future[bytes | FetchFailed]]] = deque()
    done = 0
    # A single thread reads the members of a tar.gz in their order.
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


def _from_stream(container: str, etag: str, at: Where, retry: Retry) -> bytes:
    """Read a member of a tar.gz from an open stream, if there is one, or from a new one."""
    with _streams_lock:
        stream = _streams.pop((container, etag), None)
        if stream is None:
            stream = Inflated(open_object(container, etag, at.stored, STREAM_BLOCK, retry))
        whole = stream.go(at.offset)
        data = stream.read(at.size)
        if not whole or len(data) < at.size:
            raise FetchFailed("decode_failed", "it is cut off by the end of its container")
        _streams[container, etag] = stream
        while len(_streams) > STREAMS:
            _streams.popitem(last=False)
        return data
