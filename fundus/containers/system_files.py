"""System files, which NAS and desktop systems create among pictures.

Their thumbnails would count an eye several times, and their indexes are not pictures.
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
    *(".snapshot", ".snapshots", "~snapshot", ".zfs", "lost+found", ".thumbnails"),
    *("@tmp", ".@upload_cache", ".stversions", ".dropbox.cache", ".picasaoriginals"),
    *(".AppleDB", ".AppleDesktop", "Network Trash Folder", "Temporary Items"),
)
"""Names of folders of system files; case does not count."""
NAMES = (
    *("Thumbs.db", "ehthumbs*.db", "desktop.ini", "SYNOPHOTO_THUMB_*", "SYNOFILE_THUMB_*"),
    *("._*", ".DS_Store", ".localized", "Icon\r", ".directory"),
    *("Thumbs.db:encryptable", "*:Zone.Identifier", ".nfs*", ".fuse_hidden*", "~$*"),
    *("Picasa.ini", ".picasa.ini", "autorun.inf", "DICOMDIR"),
)
"""Names of system files; case does not count."""

_counting = Lock()


def kind(path: str) -> str:
    """The name or pattern above that a path below an archive's root matches; empty if none."""
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
    """Count one file of a kind; several threads may do so at once."""
    if left_out is not None:
        with _counting:
            left_out[found] += 1


def is_folder(name: str, size: int) -> bool:
    """Whether an empty object or member stands for a folder, as some programs create them."""
    return not size and name.endswith(("/", "\\", "_$folder$"))
