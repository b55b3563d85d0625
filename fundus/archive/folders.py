"""Listing of a local folder: ordered by name, without following links out of the folder."""

import os
from collections.abc import Iterator
from functools import partial
from itertools import islice

from fundus.archive import entries
from fundus.archive.entries import FOLDER, LINK, Entry
from fundus.errors import ConfigurationError
from fundus.storage.uris import encode, local_folder

PICTURE_SUFFIXES = frozenset(
    b".jpg .jpeg .jpe .png .tif .tiff .bmp .ppm .pgm .webp .gif .jp2 .j2k .dcm".split()
)
SORTED = 10_000
"""A folder of fewer items is listed by name; in a larger one the rest follows in any order."""


def existing_folder(archive: str) -> bytes:
    """The path of an archive that is a folder; ConfigurationError if it is none."""
    root = local_folder(archive)
    if not root.is_dir():
        raise ConfigurationError(f"the archive {archive} is not a folder: check the path")
    return os.fsencode(root)


def files(root: bytes, skip: bytes | None) -> Iterator[Entry]:
    """Entries of all files below `root`, depth first, without the folder `skip`.

    It has a stack of its own, because folders may be nested deeper than function calls.
    """
    stack = [_scanned(root)]
    while stack:
        item = next(stack[-1], None)
        if item is None:
            stack.pop()
        elif isinstance(item, Entry):
            yield item
        elif item.path != skip and item.is_dir(follow_symlinks=False):
            if os.path.splitext(item.name)[1].lower() in PICTURE_SUFFIXES:  # noqa: PTH122 bytes
                yield entries.of_path(item.path)
            stack.append(_scanned(item.path))
        elif item.path != skip:
            yield _link(item.path, root) if item.is_symlink() else entries.of_path(item.path)


def _scanned(folder: bytes) -> Iterator[os.DirEntry[bytes] | Entry]:
    """The items of a folder; an entry for the folder itself if it cannot be listed."""
    try:
        with os.scandir(folder) as listing:
            first = sorted(islice(listing, SORTED), key=lambda item: item.name)
            if len(first) == SORTED:  # a smaller one is closed before the folders below are read
                yield from first
                yield from listing
                return
        yield from first
    except OSError as error:
        reason = f"the folder cannot be listed: {error.strerror}"
        yield Entry("file://" + encode(folder), FOLDER, 0, "read_failed", reason)


def _link(path: bytes, root: bytes) -> Entry:
    target = os.path.realpath(path)
    refused = partial(Entry, "file://" + encode(path), LINK, 0, "unsupported")
    if target != root and not target.startswith(root + b"/"):
        return refused("a link that leads out of the archive")
    if os.path.isdir(target):  # noqa: PTH112 bytes
        return refused("a link to a folder, which is not followed")
    return entries.of_path(path)
