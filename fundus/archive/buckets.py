"""Listing of an S3 prefix: in pages, in parallel, and in constant memory."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from queue import Full, Queue, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, Generic, TypeVar

from fundus.archive import entries
from fundus.archive.containers import opened
from fundus.archive.entries import Entry, Wanted
from fundus.containers.system_files import is_folder
from fundus.errors import ConfigurationError
from fundus.storage import s3
from fundus.storage.retry import Retry, StorageFailed
from fundus.storage.uris import is_container, split_s3

T = TypeVar("T")
Page = list[dict[str, Any]]
"""At most 1,000 objects as S3 lists them: Key, ETag, Size, LastModified."""

THREADS = 8
ENOUGH = 64
"""Number of prefixes that keeps the threads busy; no more are searched."""
WAITING = 16
"""Most pages that wait for the reader."""
BATCH = 1_000
"""Entries per item of the queue."""


def existing_prefix(archive: str, retry: Retry) -> tuple[str, str]:
    """(bucket, prefix with a slash at its end) of an s3:// URI.

    Raises:
        ConfigurationError: the prefix is empty or cannot be listed.
    """
    bucket, key = split_s3(archive)
    prefix = key.strip("/") + "/" if key.strip("/") else ""
    try:
        page = _page(retry, Bucket=bucket, Prefix=prefix)
    except StorageFailed as failed:
        raise ConfigurationError(
            f"the archive {archive} cannot be listed: {failed.reason}"
        ) from failed
    if not page.get("Contents"):
        raise ConfigurationError(
            f"the archive {archive} is not there: it has no objects; check bucket and prefix"
        )
    return bucket, prefix


def objects(
    bucket: str, prefix: str, leave_out: str | None, wanted: Wanted, retry: Retry
) -> Iterator[Entry]:
    """Entries of all objects and of all members of containers.

    Several prefixes and containers are listed at once, so the order varies.

    Args:
        bucket, prefix: of the archive.
        leave_out: prefix of keys that are not listed.
        wanted: which entries are listed.
        retry: patience with failures that may pass.
    """
    seen, prefixes = shares(bucket, prefix, retry)
    pool = Pool[list[Entry]]()

    def listed(found: Iterator[Page]) -> Iterator[list[Entry]]:
        for page in found:
            plain: list[Entry] = []
            for item in page:
                mark = is_folder(item["Key"], item["Size"])
                if mark or (leave_out and item["Key"].startswith(leave_out)):
                    continue
                entry = entries.of_listed(bucket, item)
                if not is_container(entry.uri):
                    plain += opened(entry, wanted)
                elif pool.busy():
                    yield from _batches(entry, wanted)
                else:
                    pool.give(partial(_batches, entry, wanted))
            yield plain

    pool.give(partial(listed, iter(seen)))
    for share in prefixes:
        pool.give(partial(listed, pages(bucket, share, retry)))
    for batch in pool.found():
        yield from batch


def _batches(entry: Entry, wanted: Wanted) -> Iterator[list[Entry]]:
    found = iter(opened(entry, wanted))
    while batch := list(islice(found, BATCH)):
        yield batch


def shares(bucket: str, prefix: str, retry: Retry) -> tuple[list[Page], list[str]]:
    """Split a prefix into (pages already listed, prefixes yet to be listed), each object once.

    Folders are split level by level until there are enough. A folder of more than one page is not
    split: a request for each of a million small folders would cost a million requests, while
    listing them in order costs a thousand.
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
    """All objects whose keys begin with the prefix, page by page."""
    more: dict[str, str] = {}
    while True:
        page = _page(retry, Bucket=bucket, Prefix=prefix, **more)
        yield page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _page(retry: Retry, **request: str) -> dict[str, Any]:
    return s3.patient("list_objects_v2", retry, **request)


class Pool(Generic[T]):
    """Threads that run jobs, each an iterator, and put their items into one bounded queue.

    The threads are daemons, so a process can end while they wait for a reader. The threads of
    `ThreadPoolExecutor` would prevent that.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self.jobs: SimpleQueue[Callable[[], Iterator[T]] | None] = SimpleQueue()
        self.results: Queue[T | Exception | None] = Queue(WAITING)
        self.stopped = Event()
        self.lock = Lock()
        self.begun = self.ended = 0
        self.threads = [Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def give(self, job: Callable[[], Iterator[T]]) -> None:
        """Run a job on the next free thread."""
        with self.lock:
            self.begun += 1
        self.jobs.put(job)

    def busy(self) -> bool:
        """Whether every thread has a job."""
        return self.begun - self.ended >= len(self.threads)

    def found(self) -> Iterator[T]:
        """Items of all jobs, in any order, until the last job has ended; raise their failures."""
        try:
            while self.ended < self.begun:
                item = self.results.get()
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    with self.lock:
                        self.ended += 1
                else:
                    yield item
        finally:
            self.stopped.set()
            for _ in self.threads:
                self.jobs.put(None)
            for thread in self.threads:
                thread.join()

    def _work(self) -> None:
        while (job := self.jobs.get()) and not self.stopped.is_set():
            try:
                for item in job():
                    if not self._put(item):
                        return
            except Exception as error:
                self._put(error)
            self._put(None)

    def _put(self, item: T | Exception | None) -> bool:
        """Put an item into the queue; False once the reader has stopped."""
        while not self.stopped.is_set():
            try:
                self.results.put(item, timeout=0.1)
            except Full:
                continue
            return True
        return False
