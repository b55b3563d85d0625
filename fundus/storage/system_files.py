"""System files: what NAS and desktop systems leave among pictures, and no camera made.

Their thumbnails would count an eye several times, and their indexes are no pictures.
"""

import re
from collections import Counter
from fnmatch import translate
from functools import lru_cache
from threading import Lock

FOLDERS = (
    *("@eaDir", "@Recycle", "@Recently-Snapshot", ".@__thumb", "#recycle", "#snapshot"),
    *("__MACOSX", ".Trash*", ".Spotlight-V100", ".fseventsd", ".TemporaryItems", ".AppleDouble"),
    *("$RECYCLE.BIN", "RECYCLER", "System Volume Information"),
    *(".snapshot", ".snapshots", ".zfs", "lost+found", ".thumbnails"),
)
"""Names of what holds system files; case does not count."""
NAMES = (
    *("Thumbs.db", "ehthumbs*.db", "desktop.ini", "SYNOPHOTO_THUMB_*", "SYNOFILE_THUMB_*"),
    *("._*", ".DS_Store", ".localized", "Icon\r", ".directory"),
)
"""Names of system files; case does not count."""

_counting = Lock()


def kind(path: str) -> str:
    """The name or pattern above that a path below an archive's root matches; empty for none."""
    parts = re.split(r"[/\\]", path.lower())
    for part in parts:
        if found := _matched(part):
            return found
    return _matched(parts[-1], last=True)


@lru_cache(4096)
def _matched(name: str, last: bool = False) -> str:
    for pattern, matches in _PATTERNS[last]:
        if matches(name):
            return pattern
    return ""


_PATTERNS = {
    last: [(one, re.compile(translate(one.lower())).match) for one in names]
    for last, names in ((False, FOLDERS), (True, NAMES))
}


def count(left_out: Counter[str] | None, found: str) -> None:
    """One more of a kind; several threads may count at once."""
    if left_out is not None:
        with _counting:
            left_out[found] += 1


def is_folder(name: str, size: int) -> bool:
    """Whether an empty object or member stands for a folder: programs leave such marks."""
    return not size and name.endswith(("/", "\\", "_$folder$"))
