"""Removes two harmless messages of Ray from stderr. Everything else passes.

Both come with ordinary runs and need no action. Ray's core reports for each pool of actors that its
arguments are in the object store. Ray Train's PlacementGroupCleaner prints a traceback if several
Ray clusters run on one machine.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

CORE = r"core_worker\.cc:[0-9]+: Actor with class name: .* max_restarts > 0"
"""Extended regular expression for a line that Ray's C++ writes directly to the file descriptor."""
CLEANER = "(PlacementGroupCleaner pid="
"""Text in each line that Ray's driver prints for this actor."""


@contextmanager
def hidden() -> Iterator[None]:
    """Drop the two messages from stderr while the block runs.

    A separate `grep` process filters the descriptor, so that the last lines of a crashing driver
    still get through. Python's own stream stays connected to the terminal, for progress bars.
    """
    grep = shutil.which("grep")
    if grep is None or not _is_stderr(sys.stderr):
        yield
        return
    stream, shown = sys.stderr, os.dup(2)
    stream.flush()
    quiet = subprocess.Popen(
        [grep, "--line-buffered", "--invert-match", "--extended-regexp", CORE],
        stdin=subprocess.PIPE,
        stdout=shown,
        start_new_session=True,  # Ctrl-C must not end it before the driver's last lines
    )
    assert quiet.stdin
    os.dup2(quiet.stdin.fileno(), 2)
    quiet.stdin.close()
    own = os.fdopen(os.dup(shown), "w", buffering=1, encoding=stream.encoding, errors="replace")
    sys.stderr = cast(TextIO, WithoutCleaner(own))
    try:
        yield
    finally:
        sys.stderr = stream
        own.close()
        os.dup2(shown, 2)  # closes the last writing end here: the filter ends with Ray's processes
        os.close(shown)


class WithoutCleaner:
    """A text stream without the lines that name the PlacementGroupCleaner."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._dropped = stream, False

    def write(self, text: str) -> int:
        """Write a text, unless it names the cleaner."""
        if CLEANER in text:
            self._dropped = not text.endswith("\n")
            return len(text)
        if self._dropped and text == "\n":
            self._dropped = False
            return 1
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_stderr(stream: TextIO) -> bool:
    """Whether the stream is the process's own stderr, not a notebook's or a test's."""
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, ValueError):
        return False
