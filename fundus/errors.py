"""Errors that a user can mend. Everything else is a bug and keeps its traceback."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class ConfigurationError(ValueError):
    """A wrong argument, path, set or bundle; the message is one sentence that says what to do.

    Jobs print the sentence and exit with code 2. Any other exception, a bare ValueError included,
    is a bug: it keeps its traceback and exits with code 1.
    """


class MissingFile(ConfigurationError, FileNotFoundError):
    """A file or folder that a set or a place needs is not there; the message names it."""


class UnusablePlace(ConfigurationError, OSError):
    """A folder, bucket or file cannot be listed, read or written; the message says why."""


@contextmanager
def usable(what: str) -> Iterator[None]:
    """Raise what the operating system refuses in the block as UnusablePlace, which names `what`."""
    try:
        yield
    except ConfigurationError:
        raise
    except OSError as error:
        raise UnusablePlace(f"{what}: {error.strerror or error}") from error


@contextmanager
def full_disk_explained() -> Iterator[None]:
    """Raise a full disk in the block, on a worker too, as UnusablePlace; else let errors pass."""
    try:
        yield
    except Exception as error:
        full = _full_disk(error)
        if full is None:
            raise
        where = f" for {full.filename}" if full.filename else ""
        raise UnusablePlace(
            f"no space is left on the disk{where}: free some, or let the environment variable"
            " TMPDIR name a larger disk, and give the same command again, which keeps what is done"
        ) from error


def _full_disk(error: BaseException | None) -> OSError | None:
    """The error, or one that it was caused by, that says that a disk or a quota is full.

    Ray hands a worker's error over as `cause`, Python one that was raised anew as `__cause__`. The
    two form a circle where Ray's `cause` is raised `from` the error that holds it.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return error
        seen.add(id(error))
        error = getattr(error, "cause", None) or error.__cause__
    return None
