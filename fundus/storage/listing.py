"""The listing: one entry for every object of an archive, members of zips and tars among them.

Memory stays the same, however many objects there are.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from fundus.errors import ConfigurationError
from fundus.storage import entries
from fundus.storage.archives import opened
from fundus.storage.buckets import THREADS, existing_prefix, objects
from fundus.storage.entries import UNKNOWN, Entry, Wanted
from fundus.storage.folders import existing_folder, files
from fundus.storage.objects import other
from fundus.storage.retry import PATIENT, Retry, StorageFailed
from fundus.storage.uris import MEMBER, S3, encode, local_folder, normal, scheme_of, split_s3

LIST = "@"
"""Before the name of a file that lists URIs."""
LINES = 256
"""Lines of a list that are looked up at once."""


def walk(
    archive: str,
    *,
    leave_out: str | None = None,
    suffixes: Collection[str] | None = None,
    glob: str | None = None,
    modified_since: datetime | None = None,
    system_files: bool = False,
    left_out: Counter[str] | None = None,
    retry: Retry = PATIENT,
) -> Iterator[Entry]:
    """Every object of an archive, in place of each zip, tar and tar.gz what lies in it.

    An archive is a folder (path or file:// URI: hidden files too, by name within a folder), an
    s3://, gs:// or az:// prefix (in no order), or `@FILE`, a text file with a path or URI a line
    (blank lines and those that begin with # left out, what is named twice listed once).
    `leave_out` is a folder or prefix that is not the archive's: the results, when they lie inside.
    The filters are those of `Wanted`; `modified_since` needs a time zone.
    `left_out` gets the count of the system files that are not listed, by kind.

    Folders are no objects, but one named like a picture is listed as refused, and so are symbolic
    links that lead out of the archive, to a folder or to nothing, pipes, sockets and devices.
    Links to folders are not followed. Listing that fails raises StorageFailed: nothing is left out
    unseen. An archive that is not there raises ValueError, at once.
    """
    if modified_since and not modified_since.tzinfo:
        raise ConfigurationError("modified since a time without a time zone")
    chosen = partial(
        Wanted,
        suffixes=tuple("." + suffix.lower().lstrip(".") for suffix in suffixes or ()),
        glob=glob,
        since=modified_since,
        system_files=system_files,
        left_out=left_out,
    )
    if archive.startswith(LIST):
        wanted = chosen("")
        return _listed(_list_file(archive), wanted, retry)
    kind = scheme_of(archive)
    if kind in ("", "file"):
        root = existing_folder(archive)
        skip = _path(leave_out)
        wanted = chosen("file://" + encode(root))
        return chain.from_iterable(opened(entry, wanted) for entry in files(root, skip))
    wanted = chosen(normal(archive).rstrip("/"))
    if kind == S3:
        bucket, prefix = existing_prefix(archive, retry)
        return objects(bucket, prefix, _key_below(leave_out, bucket), wanted, retry)
    return chain.from_iterable(opened(entry, wanted) for entry in _other(*_existing_other(archive)))


def _path(uri: str | None) -> bytes | None:
    if uri is None or scheme_of(uri) not in ("", "file"):
        return None
    return os.fsencode(local_folder(uri))


def _key_below(uri: str | None, bucket: str) -> str | None:
    if uri is None or scheme_of(uri) != S3 or split_s3(uri)[0] != bucket:
        return None
    return split_s3(uri)[1].rstrip("/") + "/"


# Other storage, by fsspec


def _existing_other(archive: str) -> tuple[str, Any, str]:
    """(scheme, fsspec's filesystem, path in it)."""
    system, root = other(archive)
    try:
        there = system.exists(root)
    except Exception as error:  # fsspec's plugins raise what their own libraries do
        reason = f"the archive {archive} cannot be listed ({type(error).__name__})"
        raise ConfigurationError(reason) from error
    if not there:
        raise ConfigurationError(f"the archive {archive} is not there")
    return scheme_of(archive), system, root


def _other(scheme: str, system: Any, root: str) -> Iterator[Entry]:
    """Folder after folder."""
    try:
        for _, _, found in system.walk(root, detail=True, on_error="raise"):
            for about in found.values():
                yield entries.of_other(f"{scheme}://{encode(about['name'].lstrip('/'))}", about)
    except OSError as error:
        reason = f"the archive cannot be listed to its end ({type(error).__name__})"
        raise StorageFailed(reason) from error


# Lists


def _list_file(archive: str) -> Path:
    file = Path(archive.removeprefix(LIST)).expanduser()
    if not file.is_file():
        raise ConfigurationError(f"the list {file} is not a file")
    return file


def _listed(file: Path, wanted: Wanted, retry: Retry) -> Iterator[Entry]:
    """What a list names, in its order. Memory grows by some 100 bytes a line: each once."""
    with ThreadPoolExecutor(THREADS) as pool:
        names = _names(file)
        while some := list(islice(names, LINES)):
            for entry in pool.map(partial(_named, retry=retry), some):
                yield from opened(entry, wanted)


def _encoding(file: Path) -> str:
    """UTF-16, as PowerShell 5 writes lists, with its mark or without; else UTF-8."""
    with file.open("rb") as beginning:
        first = beginning.read(64)
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\0" in first:
        return "utf-16-le" if first[1:2] == b"\0" else "utf-16-be"
    return "utf-8-sig"


def _names(file: Path) -> Iterator[str]:
    seen: set[bytes] = set()
    with file.open(encoding=_encoding(file), errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            name = line.strip()
            if not name or name.startswith("#"):
                continue
            try:
                scheme_of(name)
                uri = normal(name)
            except ConfigurationError as error:
                raise ConfigurationError(f"line {number} of {file}: {error}") from None
            digest = hashlib.blake2b(uri.encode(), digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                yield name


def _named(name: str, retry: Retry) -> Entry:
    if MEMBER in name:
        reason = "a list names archives, not what lies in them"
        return Entry(normal(name), UNKNOWN, 0, "unsupported", reason)
    try:
        return entries.of_uri(normal(name), retry)
    except ValueError as error:
        return Entry(normal(name), UNKNOWN, 0, "unsupported", str(error))
