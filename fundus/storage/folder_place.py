"""A folder as a location for results: each write is complete or absent, and atomic."""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import fs

from fundus.storage.uris import checked_name

LOCK, UNFINISHED = ".lock", ".new-"


class FolderPlace:
    """A local folder, or one that several machines mount. Methods are those of `S3Place`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def uri(self) -> str:
        """The folder as a file:// URI."""
        return self.folder.as_uri()

    def join(self, name: str) -> "FolderPlace":
        """The location of this name below this one."""
        return FolderPlace(self._path(name))

    def read(self, name: str) -> tuple[bytes, str] | None:
        """(content, etag) of an object; None if there is none."""
        try:
            data = self._path(name).read_bytes()
        except FileNotFoundError:
            return None
        return data, _digest(data)

    def put(self, name: str, data: bytes) -> str:
        """Write an object, over an existing one too, and return its etag."""
        with self._locked(name) as path:
            _replace(path, data)
        return _digest(data)

    def put_if_absent(self, name: str, data: bytes) -> str | None:
        """Write a new object and return its etag; None if one with other content exists."""
        with self._locked(name) as path:
            unfinished = _unfinished(path, data)
            try:
                os.link(unfinished, path)
            except FileExistsError:
                return self._won(name, data)
            finally:
                unfinished.unlink()
            _sync(path.parent)
        return _digest(data)

    def put_if_match(self, name: str, data: bytes, etag: str) -> str | None:
        """Overwrite the object of this etag and return the new one; None if it has changed."""
        with self._locked(name) as path:
            found = self.read(name)
            if not found or found[1] != etag:
                return self._won(name, data)
            _replace(path, data)
        return _digest(data)

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""
        with self._locked(name) as path:
            path.unlink(missing_ok=True)

    def list(self, prefix: str = "") -> list[str]:
        """Sorted names of all objects below, at any depth, that begin with `prefix`.

        Hidden files are left out.
        """
        found = (
            (Path(folder) / file).relative_to(self.folder).as_posix()
            for folder, _, files in os.walk(self.folder)
            for file in files
            if not file.startswith(".")
        )
        return sorted(name for name in found if name.startswith(prefix))

    def age_s(self, name: str) -> float | None:
        """Seconds since an object's last change, by the clock of the folder's file system.

        None if there is no such object.
        """
        with self._locked(name) as path:
            try:
                changed = path.stat().st_mtime
            except FileNotFoundError:
                return None
            probe = _unfinished(path, b"")
            now = probe.stat().st_mtime
            probe.unlink()
        return max(0.0, now - changed)

    def arrow(self) -> tuple[fs.FileSystem, str]:
        """The folder for pyarrow: (filesystem, path)."""
        return fs.LocalFileSystem(), str(self.folder)

    def delta_options(self) -> dict[str, str]:
        """deltalake's `storage_options`, of which a folder needs none."""
        return {}

    def _path(self, name: str) -> Path:
        return self.folder / checked_name(name)

    def _won(self, name: str, data: bytes) -> str | None:
        found = self.read(name)
        return found[1] if found and found[0] == data else None

    @contextmanager
    def _locked(self, name: str) -> Iterator[Path]:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield path


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _unfinished(path: Path, data: bytes) -> Path:
    """Write the content to a new file beside `path`, and sync it to the disk."""
    new = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
    with new.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return new


def _replace(path: Path, data: bytes) -> None:
    new = _unfinished(path, data)
    try:
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Sync a folder to the disk, and with it the renames in the folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
