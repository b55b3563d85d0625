"""The listing: one entry per object of an archive, including members of zips and tars.

It takes constant memory for any number of objects.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from fundus.archive import entries
from fundus.archive.buckets import THREADS, existing_prefix, objects
from fundus.archive.containers import opened
from fundus.archive.entries import UNKNOWN, Entry, Wanted
from fundus.archive.folders import existing_folder, files
from fundus.errors import ConfigurationError
from fundus.storage.objects import other
from fundus.storage.retry import PATIENT, Retry, StorageFailed
from fundus.storage.uris import MEMBER, S3, encode, local_folder, normal, scheme_of, split_s3

LIST = "@"
"""Prefix of the name of a file that lists URIs."""
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
    """List every object of an archive, and in place of each zip, tar and tar.gz its members.

    Folders are not objects. These are listed as refused: folders named like a picture, pipes,
    sockets, devices, and symbolic links that lead out of the archive, to a folder or to nothing.

    Args:
        archive: a folder (path or file:// URI; listed by name, with hidden files), an s3://, gs://
            or az:// prefix (in any order), or `@FILE`, a text file with one path or URI per line.
            In such a file blank lines and lines that begin with # are ignored, and repeated names
            are listed once.
        leave_out: a folder or prefix to leave out, such as results inside the archive.
        suffixes, glob, modified_since, system_files: filters, as in `Wanted`; `modified_since`
            needs a time zone.
        left_out: counts the system files that are not listed, by kind.
        retry: patience with failures that may pass.

    Raises:
        ConfigurationError: there is no such archive; raised at once.
        StorageFailed: the listing fails, so that nothing is left out unnoticed.
    """
    if modified_since and not modified_since.tzinfo:
        raise ConfigurationError("modified since a time without a time zone: add one, such as Z")
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
        raise ConfigurationError(f"the archive {archive} is not there: check bucket and prefix")
    return scheme_of(archive), system, root


def _other(scheme: str, system: Any, root: str) -> Iterator[Entry]:
    """Entries of all objects, folder by folder."""
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
        raise ConfigurationError(f"the list {file} is not a file: check the path after @")
    return file


def _listed(file: Path, wanted: Wanted, retry: Retry) -> Iterator[Entry]:
    """Entries of the names in a list, in its order. Memory grows by about 100 bytes per name."""
    with ThreadPoolExecutor(THREADS) as pool:
        names = _names(file)
        while some := list(islice(names, LINES)):
            for entry in pool.map(partial(_named, retry=retry), some):
                yield from opened(entry, wanted)


def _encoding(file: Path) -> str:
    """UTF-16, which PowerShell 5 writes with or without its mark; else UTF-8."""
    with file.open("rb") as beginning:
        first = beginning.read(64)
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    # Most letters of a path are ASCII, of whose two bytes one is zero, always the same.
    for encoding, bytes_ in (("utf-16-le", first[1::2]), ("utf-16-be", first[::2])):
        if bytes_.count(0) > 0.4 * len(bytes_):
            return encoding
    return "utf-8-sig"


def _names(file: Path) -> Iterator[str]:
    seen: set[bytes] = set()
    encoding = _encoding(file)
    with file.open(encoding=encoding, errors="surrogateescape") as lines:
        for number, line in enumerate(_readable(lines, file, encoding), 1):
            # Lists that were joined have byte-order marks inside.
            name = _unquoted(line.strip("\ufeff").strip())
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


def _readable(lines: Iterable[str], file: Path, encoding: str) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"the list {file} is cut off, or is not {encoding} as it seems: save it as UTF-8"
        ) from error


def _unquoted(name: str) -> str:
    """A name without the quotation marks that "Copy as path" and CSV put around it."""
    return name[1:-1] if len(name) > 2 and name[0] == name[-1] and name[0] in "\"'" else name


def _named(name: str, retry: Retry) -> Entry:
    if MEMBER in name:
        reason = "a member of a container, which a list cannot name: name the container"
        return Entry(normal(name), UNKNOWN, 0, "unsupported", reason)
    try:
        return entries.of_uri(normal(name), retry)
    except ValueError as error:
        return Entry(normal(name), UNKNOWN, 0, "unsupported", str(error))
