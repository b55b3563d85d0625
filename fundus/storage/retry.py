"""Retries: failures that may pass are retried with jittered exponential backoff."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Retry:
    """How often and how long to retry. Each pause is drawn uniformly from 0 to its bound."""

    tries: int = 10
    """Attempts in a row without a byte before giving up."""
    first_s: float = 0.25
    """Bound of the first pause, in seconds; it doubles with every attempt without a byte."""
    longest_s: float = 15.0
    """Bound of every pause, in seconds, unless the server asks for a longer one (Retry-After)."""
    stall_s: float = 20.0
    """Seconds without a byte before an attempt is abandoned."""
    deadline_s: float = 300.0
    """Seconds for all attempts and pauses together."""

    def __post_init__(self) -> None:
        if self.tries < 1 or min(self.first_s, self.longest_s, self.stall_s, self.deadline_s) <= 0:
            raise ValueError(f"{self} cannot be: one try or more, and times above 0")


PATIENT = Retry()


class StorageFailed(Exception):
    """A request to the storage failed; `reason` explains it in one sentence without credentials."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Passing(StorageFailed):
    """A failure that may pass: throttling, a fault of the server, a broken connection."""

    def __init__(self, reason: str, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.after_s = after_s
        """Pause that the server asked for, in seconds."""


class Patience:
    """The attempts and the time that are left for one piece of work."""

    def __init__(self, retry: Retry) -> None:
        self.retry = retry
        self.failed = 0
        self.deadline = time.monotonic() + retry.deadline_s

    def progress(self) -> None:
        """Note that bytes arrived: the next failure counts as the first."""
        self.failed = 0

    def wait(self, failure: Passing) -> None:
        """Pause before the next attempt, or raise the failure if no attempt or time is left."""
        bound = min(self.retry.longest_s, self.retry.first_s * 2**self.failed)
        pause = max(random.uniform(0, bound), failure.after_s)
        self.failed += 1
        if self.failed >= self.retry.tries or time.monotonic() + pause > self.deadline:
            raise failure
        _count()
        time.sleep(pause)


def patiently(work: Callable[[], T], retry: Retry) -> T:
    """Call `work`, again after each `Passing`, and return its result; raise the last `Passing`."""
    patience = Patience(retry)
    while True:
        try:
            return work()
        except Passing as failure:
            patience.wait(failure)


_lock = Lock()
_retries = 0


def _count() -> None:
    global _retries
    with _lock:
        _retries += 1


def retries() -> int:
    """The number of retries of this process so far, in all its threads."""
    return _retries
