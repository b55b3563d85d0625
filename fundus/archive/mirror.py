"""Local copies of objects on S3, for code that needs paths, and folders that are sent to S3."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from fundus.archive import entries
from fundus.archive.buckets import pages
from fundus.archive.entries import Entry
from fundus.archive.fetch import FetchFailed, fetch_many
from fundus.errors import MissingFile, UnusablePlace, usable
from fundus.storage.places import FolderPlace, Place, S3Place
from fundus.storage.retry import PATIENT, StorageFailed
from fundus.storage.uris import checked_name, split_s3


@contextmanager
def written(place: Place, last: str = "bundle.json") -> Iterator[Path]:
    """A folder to write into: the location itself, or one that is sent to S3 when the block ends.

    The files that are sent replace those of the same name; all others stay. Nothing is sent if the
    block fails.

    Args:
        place: where the files belong.
        last: name of the file that is sent after all others.

    Raises:
        UnusablePlace: the location cannot be written.
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
    """Copy the objects below an s3:// prefix into a local folder, under the same names.

    They are copied once per machine into the folder for temporary files, even if several processes
    ask for them at once. The copy is identified by names and ETags, so a changed prefix is copied
    anew. The folder has the name of the prefix.

    Args:
        uri: the prefix.
        suffixes: copy only names that end in one of them; case does not count.
        names: copy only these, all of which must exist; None for all.

    Raises:
        ConfigurationError: there is nothing to copy, or it cannot be copied.
    """
    place = S3Place(*split_s3(uri))
    found = _listed(place, suffixes, names)
    if not found:
        raise MissingFile(f"{uri} has no files that could be read: check bucket and prefix")
    known = repr((place.uri, sorted((name, entry.etag) for name, entry in found.items())))
    cache = _cache()
    copy = cache / hashlib.sha256(known.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    own = checked_name(PurePosixPath(place.bucket, place.prefix).name)
    with copy.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Cleaning up of temporary files may have deleted some.
        if not all((copy / own / name).is_file() for name in found):
            partial = copy.with_suffix(".partial")
            for old in (copy, partial):
                shutil.rmtree(old, ignore_errors=True)
            _copy(found, partial / own)
            partial.rename(copy)
    return copy / own


def _listed(place: S3Place, suffixes: tuple[str, ...], names: Set[str] | None) -> dict[str, Entry]:
    """The entries to copy, by their names below the prefix."""
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
            raise MissingFile(f"{place.uri}/{checked_name(name)} is not there")
    return found


def _copy(found: Mapping[str, Entry], folder: Path) -> None:
    wanted = list(found.items())
    for number, content in fetch_many(entry for _, entry in wanted):
        name, entry = wanted[number]
        if isinstance(content, FetchFailed):
            raise UnusablePlace(f"{entry.uri}: {content.reason}")
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        # "x" because two keys may be the same path, such as a//b and a/b.
        with file.open("xb") as out:
            out.write(content)


def _cache() -> Path:
    """This user's folder for copies, which nobody else may read or write."""
    folder = Path(tempfile.gettempdir()) / f"fundus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UnusablePlace(f"{folder} is not private to this user: remove it")
    return folder
