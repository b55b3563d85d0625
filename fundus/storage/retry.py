"""Patience: what is tried again, how often, and how long it is waited for."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Retry:
    """How failures that may pass are waited out. Every pause is drawn anew from 0 to its bound."""

    tries: int = 10
    """Attempts in a row that bring no byte, before it is given up."""
    first_s: float = 0.25
    """Bound of the first pause, in seconds; it doubles with every attempt that brings nothing."""
    longest_s: float = 15.0
    """Bound of every pause, in seconds; a server that asks for more (Retry-After) gets it."""
    stall_s: float = 20.0
    """Seconds without a byte, after which an attempt is given up."""
    deadline_s: float = 300.0
    """Seconds for everything: attempts and pauses."""

    def __post_init__(self) -> None:
        if self.tries < 1 or min(self.first_s, self.longest_s, self.stall_s, self.deadline_s) <= 0:
            raise ValueError(f"{self} cannot be: one try or more, and times above 0")


PATIENT = Retry()


class StorageFailed(Exception):
    """Storage did not do what was asked; `reason` says why in a sentence, without credentials."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Passing(StorageFailed):
    """A failure that may pass: throttling, a fault of the server, a broken connection."""

    def __init__(self, reason: str, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.after_s = after_s
        """Seconds that the server asked to be left alone."""


class Patience:
    """What is left of the attempts and the time for one piece of work."""

    def __init__(self, retry: Retry) -> None:
        self.retry = retry
        self.failed = 0
        self.deadline = time.monotonic() + retry.deadline_s

    def progress(self) -> None:
        """Bytes came: the next failure is a first one."""
        self.failed = 0

    def wait(self, failure: Passing) -> None:
        """Pause before the next attempt. Without patience left, the failure is raised."""
        bound = min(self.retry.longest_s, self.retry.first_s * 2**self.failed)
        pause = max(random.uniform(0, bound), failure.after_s)
        self.failed += 1
        if self.failed >= self.retry.tries or time.monotonic() + pause > self.deadline:
            raise failure
        _count()
        time.sleep(pause)


def patiently(work: Callable[[], T], retry: Retry) -> T:
    """What `work` returns, tried again after each `Passing`; the last one is raised."""
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
    """How often this process has tried again so far, over all its threads."""
    return _retries
