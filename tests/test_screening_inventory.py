import os

import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from fundus.screening.inventory import FetchFailed, fetch, local_folder, walk, write


def names(entries):
    return [entry.uri.rsplit("/", 1)[1] for entry in entries]


def test_every_file_is_listed_once_hidden_and_deep_ones_too(tmp_path):
    for name in ("b.jpg", "a.png", ".hidden", "notes.txt", "day/eye.jpg", "day/more/eye.tif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    entries = list(walk(str(tmp_path)))
    assert names(entries) == [".hidden", "a.png", "b.jpg", "eye.jpg", "eye.tif", "notes.txt"]
    for entry in entries:
        assert entry.uri.endswith(fetch(entry.uri, entry.etag).decode())
        assert entry.status == "" and entry.size == len(fetch(entry.uri, entry.etag))


@pytest.mark.parametrize("name", [b"100% a#b?c.jpg", "äuge \u2603.jpg".encode(), b"\xff\xe9.jpg"])
def test_any_file_name_makes_a_uri_that_leads_back(tmp_path, name):
    (tmp_path / os.fsdecode(name)).write_bytes(b"bytes")
    (entry,) = walk(str(tmp_path))
    assert entry.uri.isascii() and fetch(entry.uri, entry.etag) == b"bytes"
    assert list(walk(tmp_path.as_uri())) == [entry]


def test_a_changed_file_has_another_etag_and_its_old_entry_is_not_read(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"one")
    (before,) = walk(str(tmp_path))
    path.write_bytes(b"two")
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    (after,) = walk(str(tmp_path))
    assert before.uri == after.uri and before.etag != after.etag
    with pytest.raises(FetchFailed) as caught:
        fetch(before.uri, before.etag)
    assert caught.value.status == "read_failed" and "changed" in caught.value.reason
    path.unlink()
    with pytest.raises(FetchFailed, match="No such file"):
        fetch(after.uri, after.etag)


def test_what_is_no_plain_file_is_listed_with_its_reason_and_never_opened(tmp_path):
    archive = tmp_path / "archive"
    (archive / "x.png").mkdir(parents=True)
    (archive / "x.png" / "inside.jpg").write_bytes(b"1")
    (tmp_path / "secret.jpg").write_bytes(b"2")
    (archive / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (archive / "nowhere.jpg").symlink_to("nothing")
    (archive / "loop").symlink_to(archive)
    (archive / "same.jpg").symlink_to(archive / "x.png" / "inside.jpg")
    os.mkfifo(archive / "pipe.jpg")
    found = {entry.uri.rsplit("/", 1)[1]: entry for entry in walk(str(archive))}
    assert {name: entry.status for name, entry in found.items()} == {
        "x.png": "unsupported",
        "inside.jpg": "",
        "out.jpg": "unsupported",
        "nowhere.jpg": "read_failed",
        "loop": "unsupported",
        "same.jpg": "",
        "pipe.jpg": "unsupported",
    }
    assert found["x.png"].error == "a directory, not a file"
    assert all(entry.error for entry in found.values() if entry.status)


def test_a_pipe_that_took_a_files_name_is_not_waited_for(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"1")
    (entry,) = walk(str(tmp_path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FetchFailed):
        fetch(entry.uri, entry.etag)


def test_results_inside_the_archive_are_left_out(tmp_path):
    for name in ("a.jpg", "results/runs/1/rows/part.parquet", "results.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    entries = walk(str(tmp_path), leave_out=str(tmp_path / "results"))
    assert names(entries) == ["a.jpg", "results.jpg"]


def test_the_inventory_is_written_as_parquet_up_to_the_limit(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(7):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(b"1")
    listing = tmp_path / "inventory.parquet"
    assert write(walk(str(tmp_path / "in")), str(listing), fs.LocalFileSystem(), limit=5) == 5
    assert [uri[-5:] for uri in pq.read_table(listing)["uri"].to_pylist()] == [
        f"{number}.jpg" for number in range(5)
    ]


def test_a_foreign_scheme_and_a_missing_folder_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="s3:// is not read yet"):
        local_folder("s3://bucket/prefix")
    with pytest.raises(ValueError, match="is not a folder"):
        list(walk(str(tmp_path / "missing")))
