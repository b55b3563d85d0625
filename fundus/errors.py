"""Errors that a user can mend. Everything else is a bug and keeps its traceback."""


class ConfigurationError(ValueError):
    """A wrong argument, path, set or bundle; the message is one sentence that says what to do.

    Jobs print the sentence and exit with code 2. Any other exception, a bare ValueError included,
    is a bug: it keeps its traceback and exits with code 1.
    """
