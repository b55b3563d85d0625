"""Listing an S3 prefix: paged, in parallel, and with as little memory for a million as for ten."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from queue import Full, Queue
from threading import Event, Lock
from typing import Any, Generic, TypeVar

from fundus.errors import ConfigurationError
from fundus.storage import entries, s3
from fundus.storage.archives import opened
from fundus.storage.entries import Entry, Wanted
from fundus.storage.retry import Retry, StorageFailed
from fundus.storage.system_files import is_folder
from fundus.storage.uris import is_archive, split_s3

T = TypeVar("T")
Page = list[dict[str, Any]]
"""Objects as S3 lists them: Key, ETag, Size, LastModified; at most 1,000."""

THREADS = 8
ENOUGH = 64
"""Prefixes that keep the threads busy: no more are looked for."""
WAITING = 16
"""Pages that wait for the reader at most."""
BATCH = 1_000
"""Entries that are handed over at once."""


def existing_prefix(archive: str, retry: Retry) -> tuple[str, str]:
    """(bucket, prefix that ends at a slash) of an s3:// URI; refused where nothing is below."""
    bucket, key = split_s3(archive)
    prefix = key.strip("/") + "/" if key.strip("/") else ""
    try:
        page = _page(retry, Bucket=bucket, Prefix=prefix)
    except StorageFailed as failed:
        raise ConfigurationError(
            f"the archive {archive} cannot be listed: {failed.reason}"
        ) from failed
    if not page.get("Contents"):
        raise ConfigurationError(f"the archive {archive} is not there: nothing lies below it")
    return bucket, prefix


def objects(
    bucket: str, prefix: str, leave_out: str | None, wanted: Wanted, retry: Retry
) -> Iterator[Entry]:
    """Entries of all objects, and of what lies in archives: many prefixes and archives at once."""
    gang = Gang[list[Entry]]()

    def listed(found: Iterator[Page]) -> Iterator[list[Entry]]:
        for page in found:
            plain: list[Entry] = []
            for item in page:
                mark = is_folder(item["Key"], item["Size"])
                if mark or (leave_out and item["Key"].startswith(leave_out)):
                    continue
                entry = entries.of_listed(bucket, item)
                if not is_archive(entry.uri):
                    plain += opened(entry, wanted)
                elif gang.busy():
                    yield from _batches(entry, wanted)
                else:
                    gang.give(partial(_batches, entry, wanted))
            yield plain

    seen, prefixes = shares(bucket, prefix, retry)
    gang.give(partial(listed, iter(seen)))
    for share in prefixes:
        gang.give(partial(listed, pages(bucket, share, retry)))
    for batch in gang.found():
        yield from batch


def _batches(entry: Entry, wanted: Wanted) -> Iterator[list[Entry]]:
    found = iter(opened(entry, wanted))
    while batch := list(islice(found, BATCH)):
        yield batch


def shares(bucket: str, prefix: str, retry: Retry) -> tuple[list[Page], list[str]]:
    """(pages already seen, prefixes yet to be listed): together all below the prefix, each once.

    Folders are split level by level, until there are enough. One of more than a page is not split:
    to ask for each of a million small folders costs a million requests, in order a thousand.
    """
    pages: list[Page] = []
    whole: list[str] = []
    waiting = deque([prefix])
    for _ in range(ENOUGH):
        if not waiting or len(waiting) + len(whole) >= ENOUGH:
            break
        folder = waiting.popleft()
        page = _page(retry, Bucket=bucket, Prefix=folder, Delimiter="/")
        if page.get("IsTruncated"):
            whole.append(folder)
        else:
            pages.append(page.get("Contents", []))
            waiting += [found["Prefix"] for found in page.get("CommonPrefixes", [])]
    return pages, whole + list(waiting)


def pages(bucket: str, prefix: str, retry: Retry) -> Iterator[Page]:
    """All objects whose keys begin with the prefix, a page at a time."""
    more: dict[str, str] = {}
    while True:
        page = _page(retry, Bucket=bucket, Prefix=prefix, **more)
        yield page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _page(retry: Retry, **asked: str) -> dict[str, Any]:
    return s3.patient("list_objects_v2", retry, **asked)


class Gang(Generic[T]):
    """A bounded number of threads that run jobs, each an iterator, into one bounded queue."""

    def __init__(self, threads: int = THREADS) -> None:
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads)
        self.queue: Queue[T | Exception | None] = Queue(WAITING)
        self.stopped = Event()
        self.lock = Lock()
        self.begun = self.ended = 0

    def give(self, job: Callable[[], Iterator[T]]) -> None:
        """A job for a thread that is free."""
        with self.lock:
            self.begun += 1
        self.pool.submit(self._run, job)

    def busy(self) -> bool:
        """Whether every thread has a job."""
        return self.begun - self.ended >= self.threads

    def found(self) -> Iterator[T]:
        """What the jobs find, in no order, until the last has ended; a failure is raised."""
        try:
            while self.ended < self.begun:
                item = self.queue.get()
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    with self.lock:
                        self.ended += 1
                else:
                    yield item
        finally:
            self.stopped.set()
            self.pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, job: Callable[[], Iterator[T]]) -> None:
        try:
            for item in job():
                if not self._put(item):
                    return
        except Exception as error:
            self._put(error)
        self._put(None)

    def _put(self, item: T | Exception | None) -> bool:
        while not self.stopped.is_set():
            try:
                self.queue.put(item, timeout=0.1)
            except Full:
                continue
            return True
        return False
