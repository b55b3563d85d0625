"""Errors that a user can mend. Everything else is a bug and keeps its traceback."""

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
