"""Errors that a user can correct. Every other exception is a bug and keeps its traceback."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class ConfigurationError(ValueError):
    """A wrong argument, path, set or bundle; the message states what is wrong and what to do.

    Jobs print the message, one sentence, and exit with code 2. Any other exception, including a
    bare ValueError, is a bug: it keeps its traceback and exits with code 1.
    """


class MissingFile(ConfigurationError, FileNotFoundError):
    """A required file or folder is missing; the message names it."""


class UnusablePlace(ConfigurationError, OSError):
    """A folder, bucket or file cannot be listed, read or written; the message gives the reason."""


@contextmanager
def usable(what: str) -> Iterator[None]:
    """Convert an OSError of the block into UnusablePlace, whose message begins with `what`."""
    try:
        yield
    except ConfigurationError:
        raise
    except OSError as error:
        raise UnusablePlace(f"{what}: {error.strerror or error}") from error


@contextmanager
def full_disk_explained() -> Iterator[None]:
    """Convert the error of a full disk, also on a worker, into UnusablePlace; others pass."""
    try:
        yield
    except Exception as error:
        full = _full_disk(error)
        if full is None:
            raise
        where = f" for {full.filename}" if full.filename else ""
        raise UnusablePlace(
            f"no space is left on the disk{where}: free some, or set the environment variable"
            " TMPDIR to a larger disk, and run the same command again, which keeps finished work"
        ) from error


def _full_disk(error: BaseException | None) -> OSError | None:
    """The error, or one of its causes, that reports a full disk or quota.

    The cause is `cause` for a worker's error in Ray, and `__cause__` for one that was raised again
    in Python. The two form a circle if Ray's `cause` is raised `from` the error that contains it.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return error
        seen.add(id(error))
        error = getattr(error, "cause", None) or error.__cause__
    return None
