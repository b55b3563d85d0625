"""For code that wants paths: copies of what lies on s3://, and folders that are sent there."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from fundus.errors import MissingFile, UnusablePlace, usable
from fundus.storage import entries
from fundus.storage.buckets import pages
from fundus.storage.entries import Entry
from fundus.storage.fetch import FetchFailed, fetch_many
from fundus.storage.places import FolderPlace, Place, S3Place
from fundus.storage.retry import PATIENT, StorageFailed
from fundus.storage.uris import checked_name, split_s3


@contextmanager
def written(place: Place, last: str = "bundle.json") -> Iterator[Path]:
    """A folder to write into: the place's own, or one that is sent to S3 once all is written.

    What is sent replaces what has its name, the file `last` after all others; what else lies there
    stays. Nothing is sent where writing failed. UnusablePlace where the place
    cannot be written.
    """
    if isinstance(place, FolderPlace):
        with usable(f"{place.folder} cannot be written"):
            place.folder.mkdir(parents=True, exist_ok=True)
            yield place.folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        yield folder
        files = [file for file in folder.rglob("*") if file.is_file()]
        try:
            for file in sorted(files, key=lambda file: (file.name == last, file)):
                place.put(file.relative_to(folder).as_posix(), file.read_bytes())
        except StorageFailed as failed:
            raise UnusablePlace(f"{place.uri} cannot be written: {failed.reason}") from failed


def mirrored(uri: str, *, suffixes: tuple[str, ...] = (), names: Set[str] | None = None) -> Path:
    """A folder of this machine that holds what lies below an s3:// prefix, under the same names.

    Only what ends in one of the suffixes, in either case, or is one of the names, which must be
    there. Copied once a machine into the folder for temporary files, whatever processes ask at
    once: the copy is known by its names and ETags, so that a changed prefix is copied anew. The
    folder's own name is the prefix's. ConfigurationError, in a sentence, where it cannot be had.
    """
    place = S3Place(*split_s3(uri))
    found = _listed(place, suffixes, names)
    if not found:
        raise MissingFile(f"{uri}: nothing to be read lies there")
    told = repr((place.uri, sorted((name, entry.etag) for name, entry in found.items())))
    cache = _cache()
    copy = cache / hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    own = checked_name(PurePosixPath(place.bucket, place.prefix).name)
    with copy.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # What cleans up temporary files may have taken some.
        if not all((copy / own / name).is_file() for name in found):
            partial = copy.with_suffix(".partial")
            for old in (copy, partial):
                shutil.rmtree(old, ignore_errors=True)
            _copy(found, partial / own)
            partial.rename(copy)
    return copy / own


def _listed(place: S3Place, suffixes: tuple[str, ...], names: Set[str] | None) -> dict[str, Entry]:
    """The entries that are wanted, by their names below the place."""
    found: dict[str, Entry] = {}
    try:
        for page in pages(place.bucket, place.prefix, PATIENT):
            for item in page:
                name = item["Key"].removeprefix(place.prefix)
                if name.lower().endswith(suffixes) if names is None else name in names:
                    found[checked_name(name)] = entries.of_listed(place.bucket, item)
    except StorageFailed as failed:
        raise UnusablePlace(f"{place.uri} cannot be listed: {failed.reason}") from failed
    for name in sorted(names or ()):
        if name not in found:
            raise MissingFile(f"{place.uri}/{checked_name(name)}: not there")
    return found


def _copy(found: Mapping[str, Entry], folder: Path) -> None:
    wanted = list(found.items())
    for number, content in fetch_many(entry for _, entry in wanted):
        name, entry = wanted[number]
        if isinstance(content, FetchFailed):
            raise UnusablePlace(f"{entry.uri}: {content.reason}")
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        # "x": two keys may be one path, as a//b and a/b are.
        with file.open("xb") as out:
            out.write(content)


def _cache() -> Path:
    """This user's folder among the temporary files, which nobody else may read or write."""
    folder = Path(tempfile.gettempdir()) / f"fundus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UnusablePlace(f"{folder} is not this user's alone: remove it")
    return folder
