"""Local copies of S3 prefixes, and folders that are sent to S3."""

import os
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fundus.archive import mirror
from fundus.archive.mirror import mirrored, written
from fundus.errors import UnusablePlace
from fundus.storage.places import S3Place, open_place

pytestmark = pytest.mark.s3
PNG = (".png",)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def place(bucket: str) -> S3Place:
    found = open_place(f"s3://{bucket}/new-hospital")
    assert isinstance(found, S3Place)
    for name in ("1.png", "deep/2.PNG", "notes.txt", "all.zip"):
        found.put(name, name.encode())
    return found


def names(folder: Path) -> list[str]:
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


def test_only_the_wanted_files_of_a_prefix_are_copied(place: S3Place, temporary: Path) -> None:
    folder = mirrored(place.uri, suffixes=PNG)
    assert folder.name == "new-hospital"
    assert names(folder) == ["1.png", "deep/2.PNG"]
    assert (folder / "deep/2.PNG").read_bytes() == b"deep/2.PNG"
    assert names(mirrored(place.uri, names={"notes.txt"})) == ["notes.txt"]
    (cache,) = temporary.iterdir()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_a_prefix_is_copied_once_and_again_after_a_change(
    place: S3Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = []
    copy = mirror._copy
    monkeypatch.setattr(mirror, "_copy", lambda *args: (copies.append(1), copy(*args)))
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(mirrored, place.uri + end, suffixes=PNG) for end in ("", "/") * 4]
    (folder,) = {future.result() for future in futures}
    assert len(copies) == 1
    place.put("1.png", b"another")
    again = mirrored(place.uri, suffixes=PNG)
    assert again != folder and (again / "1.png").read_bytes() == b"another"
    assert (folder / "1.png").read_bytes() == b"1.png", "the old copy stays readable"
    (again / "1.png").unlink()  # as a cleaner of temporary files would
    assert (mirrored(place.uri, suffixes=PNG) / "1.png").read_bytes() == b"another"


@pytest.mark.parametrize("key", ["../out.png", "a/../../out.png", "/out.png"])
def test_a_key_that_leaves_the_prefix_is_refused(
    place: S3Place, bucket: str, key: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers accept such keys; the test's server does not, so the listing is faked."""
    item = {"Key": place.prefix + key, "ETag": "e", "Size": 1, "LastModified": datetime.now(UTC)}
    monkeypatch.setattr(mirror, "pages", lambda *_: [[item]])
    with pytest.raises(ValueError, match="not a path below"):
        mirrored(place.uri, suffixes=PNG)
    with pytest.raises(ValueError, match="not a path below"):
        mirrored(f"s3://{bucket}/a/%2E%2E", suffixes=PNG)
    assert not list(temporary.rglob("out.png"))


@pytest.mark.parametrize("name", ["../out.png", "/etc/passwd"])
def test_a_name_that_leaves_the_prefix_is_refused(place: S3Place, name: str) -> None:
    with pytest.raises(ValueError, match="not a path below"):
        mirrored(place.uri, names={name})


def test_missing_files_prefixes_and_buckets_are_named(place: S3Place, bucket: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"new-hospital/3\.png is not there"):
        mirrored(place.uri, names={"1.png", "3.png"})
    with pytest.raises(FileNotFoundError, match="no files that could be read"):
        mirrored(f"s3://{bucket}/elsewhere", suffixes=PNG)
    with pytest.raises(OSError, match="the bucket does not exist"):
        mirrored("s3://no-such-bucket/x", suffixes=PNG)


def test_a_cache_that_others_may_write_is_refused(place: S3Place, temporary: Path) -> None:
    planted = temporary / f"fundus-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    with pytest.raises(UnusablePlace, match="not private to this user"):
        mirrored(place.uri, suffixes=PNG)


def test_written_files_are_sent_with_the_mark_of_completion_last(
    place: S3Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    put = S3Place.put
    monkeypatch.setattr(S3Place, "put", lambda *args: (sent.append(args[1]), put(*args)))
    with written(place) as folder:
        for name in ("bundle.json", "a.safetensors", "curves.csv"):
            (folder / name).write_text(name)
        assert not sent
    assert sent == ["a.safetensors", "curves.csv", "bundle.json"]
    assert place.read("curves.csv")[0] == b"curves.csv"
    assert place.read("notes.txt"), "other files in the place stay"


def test_nothing_is_sent_if_writing_fails(place: S3Place) -> None:
    with pytest.raises(ZeroDivisionError), written(place) as folder:
        (folder / "half").write_text("half")
        _ = 1 / 0
    assert place.read("half") is None


def test_a_folder_is_written_in_place(tmp_path: Path) -> None:
    with written(open_place(str(tmp_path / "new"))) as folder:
        assert folder == tmp_path / "new"
        assert folder.is_dir()
