import os
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import chain

import fsspec
import pytest
from fault_proxy import FaultProxy

from fundus.archive import buckets, entries, folders
from fundus.archive.fetch import FetchFailed, fetch
from fundus.archive.listing import walk
from fundus.errors import ConfigurationError
from fundus.storage import objects
from fundus.storage.uris import decode


def names(entries):
    return [entry.uri.rsplit("/", 1)[1] for entry in entries]


def test_every_file_is_listed_once_including_hidden_and_deep_ones(tmp_path):
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
def test_any_file_name_makes_a_uri_by_which_it_is_read(tmp_path, name):
    (tmp_path / os.fsdecode(name)).write_bytes(b"bytes")
    (entry,) = walk(str(tmp_path))
    assert entry.uri.isascii() and fetch(entry.uri, entry.etag) == b"bytes"
    assert list(walk(tmp_path.as_uri())) == [entry]


def test_a_changed_file_has_another_etag_and_its_old_entry_is_refused(tmp_path):
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


def test_special_files_are_listed_with_a_reason_and_never_opened(tmp_path):
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


def test_a_pipe_that_replaced_a_file_is_not_waited_for(tmp_path):
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


def test_unknown_schemes_and_missing_places_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="ftp:// is not read: give a folder or one of s3://, gs:"):
        walk("ftp://server/eyes")
    with pytest.raises(ValueError, match="is not a folder"):
        walk(str(tmp_path / "missing"))
    with pytest.raises(ValueError, match="is not a file"):
        walk(f"@{tmp_path}/missing.txt")
    with pytest.raises(ValueError) as refused:
        walk("s3://AKIA:SECRET@bucket/eyes")
    assert "SECRET" not in str(refused.value)


def test_folders_deeper_than_the_recursion_limit_are_listed(tmp_path):
    deep = tmp_path
    for _ in range(sys.getrecursionlimit() + 100):
        deep = deep / "d"
        deep.mkdir()
    (deep / "eye.jpg").write_bytes(b"1")
    assert names(walk(str(tmp_path))) == ["eye.jpg"]
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # pytest could not


def test_a_folder_too_large_to_sort_is_listed_completely(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "SORTED", 3)
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(b"1")
    assert sorted(names(walk(str(tmp_path)))) == sorted(f"{n}.jpg" for n in range(20))


def test_filters_select_by_suffix_name_and_time(tmp_path):
    for name in ("a.JPG", "b.png", "2027/c.jpg", "2028/d.jpg", "old.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    os.utime(tmp_path / "old.jpg", (1_000_000_000, 1_000_000_000))
    archive = str(tmp_path)
    assert names(walk(archive, suffixes=["jpg"])) == ["c.jpg", "d.jpg", "a.JPG", "old.jpg"]
    assert names(walk(archive, glob="2027/*")) == ["c.jpg"]
    since = datetime(2020, 1, 1, tzinfo=UTC)
    assert "old.jpg" not in names(walk(archive, modified_since=since))
    assert len(list(walk(archive, modified_since=since))) == 4
    with pytest.raises(ValueError, match="without a time zone"):
        walk(archive, modified_since=datetime(2020, 1, 1))


SYSTEM = {
    "@eaDir": ["@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", "day/@EADIR/x"],
    "#recycle": ["#recycle/b.jpg"],
    ".Trash*": [".Trash-1000/files/a.jpg", ".Trashes/501/a.jpg"],
    "System Volume Information": ["System Volume Information/IndexerVolumeGuid"],
    "lost+found": ["lost+found/#12.jpg", "lost+found/old.zip"],
    "._*": ["._a.jpg", "day/._b.png"],
    "Thumbs.db": ["thumbs.db"],
    "ehthumbs*.db": ["ehthumbs_vista.db"],
    ".DS_Store": ["day/.DS_Store"],
    "Icon\r": ["Icon\r"],
    "SYNOPHOTO_THUMB_*": ["SYNOPHOTO_THUMB_M.jpg"],
    "~snapshot": ["~snapshot/hourly.0/a.jpg"],
    ".stversions": [".stversions/a~20260101-120000.jpg"],
    "*:Zone.Identifier": ["day/a.jpg:Zone.Identifier"],
    ".nfs*": [".nfs000000000123"],
    "DICOMDIR": ["cd 1/DICOMDIR"],
}
PICTURES = ["a.jpg", "day/Thumbs.db.jpg", "day/_b.jpg", "eaDir/c.jpg", "icon", "nfs", "trash/d.jpg"]


def test_system_files_are_left_out_and_counted_unless_requested(tmp_path):
    root = tmp_path / "@Recycle"  # the root's own name does not count
    for name in [*PICTURES, *chain.from_iterable(SYSTEM.values())]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1")
    left_out = Counter()
    found = [decode(e.uri).partition("/@Recycle/")[2] for e in walk(str(root), left_out=left_out)]
    assert sorted(found) == PICTURES
    left_out["@eaDir"] -= 1  # its folder a.jpg is an entry too, since its name is that of a picture
    assert left_out == {kind: len(names) for kind, names in SYSTEM.items()}
    assert len(list(walk(str(root), system_files=True))) == len(PICTURES) + left_out.total() + 1
    left_out.clear()
    assert len(list(walk(str(root), suffixes=[".png"], left_out=left_out))) == 0
    # A file of another suffix is not counted; a zip is, as its members are unknown.
    assert left_out == {"._*": 1, "lost+found": 1}
    (tmp_path / "list.txt").write_text(f"{root}/._a.jpg\n{root}/lost+found/old.zip")
    assert names(walk(f"@{tmp_path}/list.txt")) == ["._a.jpg", "old.zip"]


def test_a_list_may_mix_paths_and_uris_and_gives_each_once(tmp_path):
    for name in ("a b.jpg", "c.jpg", "d.jpg"):
        (tmp_path / name).write_bytes(b"1")
    listing = tmp_path / "list.txt"
    lines = [str(tmp_path / "a b.jpg"), (tmp_path / "c.jpg").as_uri(), "# a remark", ""]
    lines += [str(tmp_path / "a b.jpg"), str(tmp_path / "gone.jpg"), str(tmp_path)]
    listing.write_text("\n".join(lines))
    found = list(walk(f"@{listing}"))
    assert names(found)[:3] == ["a%20b.jpg", "c.jpg", "gone.jpg"]
    assert [entry.status for entry in found] == ["", "", "read_failed", "unsupported"]
    listing.write_text("c.jpg\ns3://AKIA:SECRET@bucket/x.jpg")
    with pytest.raises(ValueError, match=r"line 2 of .*credentials") as refused:
        list(walk(f"@{listing}"))
    assert "SECRET" not in str(refused.value)


def test_a_list_that_names_an_object_in_several_ways_lists_it_once(tmp_path, monkeypatch):
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "c.jpg").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "a b")
    monkeypatch.chdir(tmp_path)
    real = str(tmp_path.resolve())
    names = [f"{real}/a b/c.jpg", f"{real}/a b/./c.jpg", "a b/c.jpg", f"{real}/link/c.jpg"]
    names += [f"file://{real}/a%20b/c.jpg", f"file://{real}/./a b//c.jpg"]
    names += [f"file://localhost{real}/link/../a%20b/c.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    assert list(walk("@list.txt")) == list(walk(f"{real}/a b"))
    (tmp_path / "list.txt").write_text("file:///a%00b.jpg")
    with pytest.raises(ValueError, match=r"line 1 of .*null"):
        list(walk("@list.txt"))


# S3


@pytest.fixture
def fill(s3, bucket):
    """Puts objects into the bucket: empty, or with the contents of their key."""

    def put(*keys, **contents):
        for key in keys:
            s3.client.put_object(Bucket=bucket, Key=key, Body=contents.get(key, b""))

    return put


@pytest.mark.s3
def test_every_object_below_a_prefix_is_listed_once_with_the_etag_that_reads_it(s3, bucket, fill):
    keys = ["eyes/a.jpg", "eyes/day 1/ü?#%.jpg", "eyes/day-1/b.jpg", "eyes/day/b!/c.jpg"]
    fill(*keys, "eyes.jpg", "eyes2/x.jpg", "other/y.jpg")
    s3.client.put_object(Bucket=bucket, Key="eyes/day/", Body=b"")  # a folder marker
    for archive in (f"s3://{bucket}/eyes", f"s3://{bucket}/eyes/"):
        found = list(walk(archive))
        assert len(found) == 4 and all(entry.uri.isascii() for entry in found)
        for entry in found:
            assert fetch(entry.uri, entry.etag) == b"" and '"' not in entry.etag
            assert entry.modified.tzinfo
    assert {e.uri for e in found} >= {f"s3://{bucket}/eyes/day%201/%C3%BC%3F%23%25.jpg"}
    assert len(list(walk(f"s3://{bucket}"))) == 7


@pytest.mark.s3
def test_pages_and_prefixes_are_joined_without_loss(s3, bucket, fill, monkeypatch):
    """With pages of 7, a wide folder is listed in order and narrow ones are split."""
    once = buckets.s3.once
    monkeypatch.setattr(buckets.s3, "once", lambda *a, **kw: once(*a, **kw, MaxKeys=7))
    keys = [f"wide/{n:02}/{m}.jpg" for n in range(12) for m in range(3)]
    # Neighbouring keys, which different servers sort differently.
    keys += [f"wide/03{mark}{n}.jpg" for mark in "-. +" for n in "ab"]
    keys += [f"narrow/{n}/{m}/{k}.jpg" for n in "abc" for m in "de" for k in range(9)]
    fill(*keys, "top.jpg")
    found = [decode(entry.uri).removeprefix(f"s3://{bucket}/") for entry in walk(f"s3://{bucket}")]
    assert sorted(found) == sorted([*keys, "top.jpg"])
    _, prefixes = buckets.shares(bucket, "", buckets.Retry())
    assert "wide/" in prefixes and "narrow/a/d/" in prefixes


@pytest.mark.s3
def test_filters_apply_to_an_s3_archive_and_results_are_left_out(s3, bucket, fill):
    fill("in/a.jpg", "in/b.png", "in/results/c.jpg", "in/results2/d.jpg")
    archive, results = f"s3://{bucket}/in", f"s3://{bucket}/in/results"
    found = names(walk(archive, leave_out=results, suffixes=[".jpg"]))
    assert sorted(found) == ["a.jpg", "d.jpg"]
    assert sorted(names(walk(archive, glob="results*"))) == ["c.jpg", "d.jpg"]


@pytest.mark.s3
def test_a_listing_without_etags_is_read_by_modification_time(s3, bucket, fill, monkeypatch):
    once = buckets.s3.once

    def bare(call, *args, **request):
        reply = once(call, *args, **request)
        for item in reply.get("Contents", []):
            del item["ETag"]
            if item["Key"] == "changed.jpg":
                item["LastModified"] -= timedelta(days=1)
        return reply

    monkeypatch.setattr(buckets.s3, "once", bare)
    fill("a.jpg", "changed.jpg", **{"a.jpg": b"eye", "changed.jpg": b"other"})
    found = {entry.uri.rpartition("/")[2]: entry for entry in walk(f"s3://{bucket}")}
    assert all(entry.etag.startswith("~") for entry in found.values())
    assert fetch(found["a.jpg"].uri, found["a.jpg"].etag) == b"eye"
    with pytest.raises(FetchFailed, match="changed"):
        fetch(found["changed.jpg"].uri, found["changed.jpg"].etag)


@pytest.mark.s3
def test_system_files_and_folder_markers_on_s3_are_left_out(s3, bucket, fill):
    fill("@Recycle/1 2/a.jpg", "@Recycle/1 2/day_$folder$", "@Recycle/1 2/day\\")
    fill("@Recycle/1 2/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "@Recycle/1 2/b/._a.jpg")
    left_out = Counter()
    found = walk(f"s3://{bucket}/@Recycle/1 2", left_out=left_out)
    assert names(found) == ["a.jpg"] and left_out == {"@eaDir": 1, "._*": 1}


@pytest.mark.s3
def test_a_listing_can_be_closed_halfway(s3, bucket, fill):
    """It leaves no thread behind."""
    fill(*(f"{n}/{m}.jpg" for n in range(20) for m in range(5)))
    before = set(threading.enumerate())
    found = walk(f"s3://{bucket}")
    next(found)
    assert set(threading.enumerate()) > before
    found.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.s3
def test_a_process_that_fails_in_the_middle_of_a_listing_exits(s3, bucket, fill):
    """Its threads once waited forever for a reader that was gone."""
    fill(*(f"{n}/{m}.jpg" for n in range(30) for m in range(3)))
    script = (
        "from fundus.archive.listing import walk\n"
        f"found = walk('s3://{bucket}')\n"
        "next(found)\n"
        "raise SystemExit('failed')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=60, capture_output=True)
    assert done.returncode == 1 and done.stderr.strip() == b"failed"


@pytest.mark.s3
def test_an_archive_that_cannot_be_listed_is_refused_at_once(s3, bucket, monkeypatch):
    with pytest.raises(ValueError, match="the bucket does not exist"):
        walk("s3://no-such-bucket/eyes")
    with pytest.raises(ValueError, match="it has no objects"):
        walk(f"s3://{bucket}/mistyped")
    for name, value in s3.stranger.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="access to it is denied"):
        walk(f"s3://{bucket}")


@pytest.mark.s3
def test_a_list_names_s3_objects(s3, bucket, fill, tmp_path):
    fill("a 1.jpg", "b.jpg")
    (tmp_path / "list.txt").write_text(
        f"s3://{bucket}/a%201.jpg\ns3://{bucket}/b.jpg\ns3://{bucket}/gone.jpg\n"
        f"s3://{bucket}/a 1.jpg\ns3://{bucket}/%62.jpg"
    )
    found = list(walk(f"@{tmp_path}/list.txt"))
    assert [entry.status for entry in found] == ["", "", "read_failed"]
    assert found[:2] == sorted(walk(f"s3://{bucket}"), key=lambda entry: entry.uri)


@pytest.mark.s3
def test_a_listing_through_faults_is_complete(s3, bucket, fill, monkeypatch):
    keys = [f"{n}/{m}.jpg" for n in range(30) for m in range(3)]
    fill(*keys)
    with FaultProxy(s3.endpoint, seed=3, share=0.05) as proxy:
        proxy.stall_s = 5
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        patient = buckets.Retry(first_s=0.02, stall_s=0.5)
        found = [entry.uri for entry in walk(f"s3://{bucket}", retry=patient)]
        assert sorted(found) == sorted(f"s3://{bucket}/{key}" for key in keys)
        assert proxy.faults.total() >= 3


def test_other_storage_is_listed_and_read_through_fsspec(monkeypatch):
    """fsspec's memory:// stands in for gs:// and az://, which use the same code."""
    monkeypatch.setitem(objects.PACKAGES, "memory", "fsspec")
    memory = fsspec.filesystem("memory")
    for name in ("/clinic/a b.jpg", "/clinic/day/c.jpg"):
        memory.pipe(name, b"eye " * 5)
    found = list(walk("memory://clinic"))
    assert names(found) == ["a%20b.jpg", "c.jpg"]
    assert [fetch(entry.uri, entry.etag) for entry in found] == [b"eye " * 5] * 2
    memory.pipe("/clinic/day/c.jpg", b"other")
    memory.rm("/clinic/a b.jpg")
    for entry, reason in zip(found, ("not there", "changed"), strict=True):
        with pytest.raises(FetchFailed, match=reason):
            fetch(entry.uri, entry.etag)
    with pytest.raises(ValueError, match="is not there"):
        walk("memory://nothing")


def test_an_error_of_other_storage_is_a_reason_that_names_only_its_type(monkeypatch):
    class HttpError(Exception):
        """Like that of gcsfs: no OSError."""

    def refuse(*_, **__):
        raise HttpError("Planted")

    monkeypatch.setitem(objects.PACKAGES, "memory", "fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/ward/a.jpg", b"1")
    (entry,) = walk("memory://ward")
    quick = objects.Retry(tries=2, first_s=0.01)
    monkeypatch.setattr(type(memory), "cat_file", refuse)
    with pytest.raises(FetchFailed) as failed:
        fetch(entry.uri, entry.etag, retry=quick)
    assert failed.value.status == "read_failed"
    assert failed.value.reason == "the connection to the storage failed (HttpError)"
    monkeypatch.setattr(type(memory), "exists", refuse)
    with pytest.raises(ValueError, match=r"cannot be listed \(HttpError\)"):
        walk("memory://ward")


def test_storage_without_its_package_names_the_package(monkeypatch):
    with pytest.raises(ValueError, match="gs:// needs the package gcsfs"):
        walk("gs://clinic/eyes")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-8"])
def test_a_list_is_read_in_all_common_encodings(tmp_path, encoding):
    (tmp_path / "ü.jpg").write_bytes(b"1")
    listing = tmp_path / "list.txt"
    listing.write_bytes(f"{tmp_path}/ü.jpg\r\n".encode(encoding))
    assert [entry.status for entry in walk(f"@{listing}")] == [""]


def test_a_list_with_quotation_marks_and_byte_order_marks_is_read(tmp_path):
    for name in ("a b.jpg", "c.jpg", "d'e.jpg"):
        (tmp_path / name).write_bytes(b"1")
    listing = tmp_path / "list.txt"
    text = f"\ufeff\"{tmp_path}/a b.jpg\"\r\n\ufeff'{tmp_path}/c.jpg'\n{tmp_path}/d'e.jpg\n"
    listing.write_bytes(text.encode())
    assert [entry.status for entry in walk(f"@{listing}")] == [""] * 3


def test_a_list_in_utf_16_that_begins_with_a_chinese_letter_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "眼 right.jpg").write_bytes(b"1")
    (tmp_path / "list.txt").write_bytes("眼 right.jpg\n".encode("utf-16-le"))
    assert [entry.status for entry in walk("@list.txt")] == [""]


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("/a/eye.jpg\n".encode("utf-16")[:-1], "cut off"),
        (b"/a/1.jpg\0/a/2.jpg\0", "null character"),  # as find -print0 writes it
    ],
)
def test_an_unreadable_list_is_refused_in_a_sentence(tmp_path, content, fact):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ConfigurationError, match=fact):
        list(walk(f"@{tmp_path}/list.txt"))


@pytest.mark.parametrize("seconds", [300_000_000_000, -300_000_000_000, float("nan")])
def test_an_absurd_modification_time_is_ignored(tmp_path, monkeypatch, seconds):
    """For example the year 11476. Most file systems cannot store it, so the time is faked."""

    class FakeStat:
        def __init__(self, found):
            self.found = found
            self.st_mtime = seconds

        def __getattr__(self, name):
            return getattr(self.found, name)

    (tmp_path / "a.jpg").write_bytes(b"1")
    real = os.stat
    monkeypatch.setattr("fundus.archive.entries.os.stat", lambda path: FakeStat(real(path)))
    found = entries.of_path(os.fsencode(tmp_path / "a.jpg"))
    assert (found.status, found.modified) == ("", None)
