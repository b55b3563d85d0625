"""Members of zips and tars: each container is made by the standard library, or broken by hand."""

import gzip
import io
import random
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fundus.archive import containers
from fundus.archive import fetch as fetching
from fundus.archive.entries import Entry
from fundus.archive.fetch import FetchFailed, fetch, fetch_many
from fundus.archive.listing import walk
from fundus.containers import tars, zip_parts
from fundus.containers.members import where
from fundus.storage import objects

EYES = {
    "a.jpg": b"one eye" * 900,
    "day/b.jpg": b"another" * 70_000,
    "day/ü (2).dcm": b"",
    "c": b"3",
}


def a_zip(eyes=EYES, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as container:
        for name, data in eyes.items():
            container.writestr(name, data)
    return out.getvalue()


def a_tar(eyes=EYES, mode="w", form=tarfile.PAX_FORMAT, **attributes):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=form) as container:
        for name, data in eyes.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            container.addfile(info, io.BytesIO(data))
    return out.getvalue()


KINDS = {
    "day.zip": a_zip,
    "stored.ZIP": lambda eyes=EYES: a_zip(eyes, zipfile.ZIP_STORED),
    "day.tar": a_tar,
    "old.tar": lambda eyes=EYES: a_tar(eyes, form=tarfile.GNU_FORMAT),
    "day.tar.gz": lambda eyes=EYES: a_tar(eyes, "w:gz"),
    "day.tgz": lambda eyes=EYES: a_tar(eyes, "w:gz"),
}


def placed(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    return list(walk(str(tmp_path)))


def inside(entry):
    return entry.uri.partition("!/")[2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tgz"])
def test_the_content_decides_the_kind_of_a_container(tmp_path, kind, name):
    found = placed(tmp_path, name, KINDS[kind](EYES))
    assert [content for _, content in fetch_many(found)] == list(EYES.values())


def test_the_last_part_of_a_split_zip_says_what_is_missing(tmp_path):
    whole = a_zip(method=zipfile.ZIP_STORED)
    first, *_, last = placed(tmp_path, "x.zip", whole[len(whole) // 2 :])
    assert first.status == "decode_failed" and "split" in first.error and last.status == ""


def test_a_tape_label_is_no_member(tmp_path):
    label = tarfile.TarInfo("night 7")
    label.type = b"V"
    found = placed(tmp_path, "x.tar", label.tobuf(tarfile.GNU_FORMAT) + a_tar())
    assert [content for _, content in fetch_many(found)] == list(EYES.values())


@pytest.mark.parametrize("name", KINDS)
def test_members_are_listed_in_place_of_their_container_and_read(tmp_path, name):
    found = placed(tmp_path, name, KINDS[name]())
    assert [inside(e) for e in found] == ["a.jpg", "day/b.jpg", "day/%C3%BC%20%282%29.dcm", "c"]
    assert all(e.uri.startswith(f"{tmp_path.as_uri()}/{name}!/") for e in found)
    assert [e.size for e in found] == [len(data) for data in EYES.values()]
    assert [fetch(e.uri, e.etag) for e in reversed(found)] == list(EYES.values())[::-1]


@pytest.mark.s3
@pytest.mark.parametrize("name", KINDS)
def test_members_on_s3_are_read_by_range(s3, bucket, name, monkeypatch):
    eyes = {f"{n}.jpg": bytes([n]) * 700_000 for n in range(6)}
    body = KINDS[name](eyes)
    s3.client.put_object(Bucket=bucket, Key=f"in/{name}", Body=body)
    found = list(walk(f"s3://{bucket}/in"))
    assert [inside(entry) for entry in found] == list(eyes)
    requests = []
    once = objects.s3.once
    monkeypatch.setattr(objects.s3, "once", lambda *a, **kw: requests.append(kw) or once(*a, **kw))
    last = found[-1]
    assert fetch(last.uri, last.etag) == eyes["5.jpg"]
    if "gz" not in name:
        assert len(requests) == 1, "one ranged read per member"
        start, stop = requests[0]["Range"].removeprefix("bytes=").split("-")
        assert int(stop) - int(start) < 700_000 + 5_000


def test_the_name_of_a_member_never_leads_out_of_its_container(tmp_path):
    names = [
        "../up.jpg",
        "a/../../up.jpg",
        "/etc/passwd",
        "..\\up.jpg",
        "C:\\up.jpg",
        "\\\\host\\x",
    ]
    found = placed(tmp_path, "day.zip", a_zip(dict.fromkeys([*names, "..jpg", "a\\b.jpg"], b"1")))
    assert [e.status for e in found] == ["unsupported"] * 6 + ["", ""]
    assert {e.error for e in found[:6]} == {"a name that leads out of the container"}
    assert not any("/../" in e.uri or "!//" in e.uri for e in found)
    found = placed(tmp_path, "day.tar", a_tar(dict.fromkeys(["../up.jpg", "./a/./b.jpg"], b"1")))[
        :2
    ]
    assert [(inside(e), e.status) for e in found] == [
        ("%2E%2E/up.jpg", "unsupported"),
        ("a/%2E/b.jpg", ""),
    ]


def test_a_name_that_occurs_twice_makes_two_entries(tmp_path):
    with tarfile.open(tmp_path / "day.tar", "w") as container:
        for data in (b"old", b"newer"):
            info = tarfile.TarInfo("a.jpg")
            info.size = len(data)
            container.addfile(info, io.BytesIO(data))
    found = list(walk(str(tmp_path)))
    assert [inside(e) for e in found] == ["a.jpg", "a.jpg#2"]
    assert [fetch(e.uri, e.etag) for e in found] == [b"old", b"newer"]
    assert len(list(walk(str(tmp_path), suffixes=[".jpg"]))) == 2


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path, kind):
    container = a_tar({"x.jpg": b""}, type=kind, linkname="/etc/passwd")
    (entry,) = placed(tmp_path, "day.tar", container)
    assert entry.status == "unsupported" and entry.error
    info = zipfile.ZipInfo("link.jpg")
    info.external_attr = 0o120777 << 16
    (tmp_path / "day.tar").unlink()
    (entry,) = placed(tmp_path, "day.zip", a_zip({info: b"/etc/passwd"}))
    assert (entry.status, entry.error) == ("unsupported", "a link, which is not followed")


def test_a_hard_link_in_a_tar_has_the_bytes_of_its_earlier_target(tmp_path):
    deep = "deep/" * 30 + "a.jpg"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "day.tar", "w", format=form) as container:
            for name, data, link in [
                (f"./{deep}", b"one eye", ""),
                ("same.jpg", b"", deep),
                ("again.jpg", b"", "same.jpg"),
                ("none.jpg", b"", "later.jpg"),
                ("later.jpg", b"other", ""),
            ]:
                info = tarfile.TarInfo(name)
                info.size, info.linkname = len(data), link
                info.type = tarfile.LNKTYPE if link else tarfile.REGTYPE
                container.addfile(info, io.BytesIO(data))
        found = list(walk(str(tmp_path)))
        assert [e.status for e in found] == ["", "", "", "unsupported", ""]
        assert [e.size for e in found[:3]] == [7] * 3
        assert [fetch(e.uri, e.etag) for e in found[:3]] == [b"one eye"] * 3


@pytest.mark.parametrize("name", ["day.zip", "day.tar"])
def test_system_files_and_folder_markers_in_a_container_are_left_out(tmp_path, name):
    names = ["__MACOSX/._a.jpg", "day/Thumbs.db", "day/a.jpg", "day/a.jpg"]
    body = KINDS[name](dict.fromkeys(names[:3], b"1"))
    if name == "day.zip":
        body = a_zip({n: b"1" for n in names[:3]} | {"day\\sub\\": b"", "not\\empty\\": b"1"})
    left_out = Counter()
    (tmp_path / name).write_bytes(body)
    found = [inside(entry) for entry in walk(str(tmp_path), left_out=left_out)]
    assert found == ["day/a.jpg", "not%5Cempty%5C"][: 2 if name == "day.zip" else 1]
    assert left_out == {"__MACOSX": 1, "Thumbs.db": 1}
    (tmp_path / "list.txt").write_text(str(tmp_path / name))
    assert [inside(entry) for entry in walk(f"@{tmp_path}/list.txt")] == found


def joined_tars(name):
    first, second = a_tar({"a.jpg": b"1" * 700}), a_tar({"b.jpg": b"2", "a.jpg": b"3"})
    if name == "day.tar":
        return first + second
    if name == "inner.tar.gz":
        return gzip.compress(first + second)
    return gzip.compress(first) + bytes(9) + gzip.compress(second)


@pytest.mark.parametrize("name", ["day.tar", "inner.tar.gz", "outer.tar.gz"])
def test_joined_tars_are_read_as_one(tmp_path, name):
    found = placed(tmp_path, name, joined_tars(name))
    assert [(inside(e), e.status) for e in found] == [("a.jpg", ""), ("b.jpg", ""), ("a.jpg#2", "")]
    fetching._streams.clear()
    assert [fetch(e.uri, e.etag) for e in found[::-1]] == [b"3", b"2", b"1" * 700]


@pytest.mark.parametrize("rest", [b"more", b"x" * 2000, bytes(512) + b"x", b"\x1f"])
@pytest.mark.parametrize("name", ["day.tar", "inner.tar.gz", "outer.tar.gz"])
def test_other_bytes_after_the_end_of_a_tar_get_an_entry(tmp_path, name, rest):
    body = a_tar({"a.jpg": b"1"})
    if name == "outer.tar.gz":
        body = gzip.compress(body) + rest
    else:
        body = gzip.compress(body + rest) if "gz" in name else body + rest
    eye, container = placed(tmp_path, name, body)
    assert fetch(eye.uri, eye.etag) == b"1"
    assert container.status == "decode_failed" and container.uri.endswith(name)
    assert "more follows the end" in container.error and "1 members were read" in container.error


def test_zeros_after_a_tar_are_read_up_to_a_bound(tmp_path, monkeypatch):
    body = a_tar({"a.jpg": b"1"}) + bytes(60_000)
    assert len(placed(tmp_path, "day.tar", body)) == 1
    monkeypatch.setattr(tars, "MOST_ZEROS", 50_000)
    assert "more follows" in placed(tmp_path, "day.tar", body)[-1].error


@pytest.mark.parametrize("between", [b"", bytes(700), b"more"])
def test_joined_zips_are_read_as_one(tmp_path, between):
    """As `cat a.zip b.zip c.zip` makes them; other bytes between them get an entry."""
    zips = [a_zip({"a.jpg": b"1" * 700}), a_zip({}), a_zip({"b.jpg": b"2", "a.jpg": b"3"})]
    found = placed(tmp_path, "day.zip", between.join(zips))
    eyes = [("a.jpg", ""), ("b.jpg", ""), ("a.jpg#2", "")]
    more = [("", "decode_failed")] * (between == b"more")
    assert [(inside(e), e.status) for e in found] == eyes + more
    assert [fetch(e.uri, e.etag) for e in found[:3]] == [b"1" * 700, b"2", b"3"]
    assert not more or "more follows the end of the zip" in found[-1].error


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (b"PK\3\4, a zip that lost its end", b"", "more stands before the zip"),
        (a_zip()[:-60], b"", "more stands before the zip"),
        (a_tar(), b"", "more stands before the zip"),
        (b"", b"\0\0more", "more follows the end of the zip"),
        (b"", a_zip()[:-60], "more follows the end of the zip"),
        (b"MZ, a program that unpacks itself", b"", ""),
        (b"PK00", bytes(100), ""),
    ],
)
def test_other_bytes_before_or_after_a_zip_get_an_entry(tmp_path, before, after, text):
    eye, *rest = placed(tmp_path, "day.zip", before + a_zip({"a.jpg": b"1"}) + after)
    assert fetch(eye.uri, eye.etag) == b"1"
    found = [text in e.error and "1 members were read" in e.error for e in rest]
    assert found == [True] * bool(text)


def test_joined_zips_are_read_up_to_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_parts, "MOST_PARTS", 3)
    (entry,) = placed(tmp_path, "day.zip", a_zip({"a.jpg": b"1"}) * 4)
    assert entry.status == "too_large" and "more than 3 zip archives" in entry.error


@pytest.mark.parametrize("name", [b"\xff\xe9.jpg", b"\x95\\.jpg", b"a\\..\\b.jpg", b"nul\0.jpg"])
@pytest.mark.parametrize("flag", [0, 0x08])
def test_an_odd_name_in_a_zip_costs_no_other_member(tmp_path, name, flag):
    body = bytearray(a_zip({"x" * len(name): b"1", "ü.jpg": b"2"}))
    for header in (b"PK\1\2", b"PK\3\4"):
        at = body.index(header)
        flags, begins = (9, 46) if header == b"PK\1\2" else (7, 30)
        body[at + flags] = flag
        body[at + begins : at + begins + len(name)] = name
    odd, plain = placed(tmp_path, "day.zip", bytes(body))
    assert inside(plain) == "%C3%BC.jpg" and fetch(plain.uri, plain.etag) == b"2"
    assert odd.uri.isascii() and "/../" not in odd.uri and unquote_to_bytes(inside(odd)) == name
    if b".." in name:
        assert (odd.status, odd.error) == ("unsupported", "a name that leads out of the container")
    else:
        assert fetch(odd.uri, odd.etag) == b"1"


def test_a_zip_of_over_4_gb_from_macos_gives_its_members(tmp_path):
    """It has no zip64: sizes and offsets are written modulo 2**32. Here most of it is a hole."""
    sizes = [3 << 30, 3 << 30, 5, 3 << 30, 7]
    offsets, entries = [], []
    with (tmp_path / "day.zip").open("wb") as file:
        for number, size in enumerate(sizes):
            name = b"%d.jpg" % number
            offsets.append(file.tell())
            data = b"%d" % number * size if size < 9 else b""
            fixed = (0x08, 0, 0, 0, zlib.crc32(data), size, size, len(name))
            file.write(struct.pack("<4s5H3L2H", b"PK\3\4", 10, *fixed, 0) + name + data)
            file.seek(offsets[-1] + 30 + len(name) + size)
            file.write(bytes(16))  # a data descriptor
            place = offsets[-1] % 2**32
            index = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 10, *fixed, *[0] * 5, place)
            entries.append(index + name)
        start, index = file.tell(), b"".join(entries)
        last = (0, 0, len(sizes), len(sizes), len(index), start % 2**32, 0)
        file.write(index + struct.pack("<4s4H2LH", b"PK\5\6", *last))
    found = list(walk(str(tmp_path)))
    assert [int(where(e.etag)[1].offset) for e in found] == offsets
    assert [e.status for e in found] == ["too_large", "too_large", "", "too_large", ""]
    assert [fetch(found[n].uri, found[n].etag) for n in (2, 4)] == [b"22222", b"4444444"]


def test_a_container_in_a_container_is_not_opened(tmp_path):
    found = placed(
        tmp_path, "day.zip", a_zip({"day.zip": a_zip(), "x.tar.gz": b"1", "a.jpg": b"1"})
    )
    assert [(inside(e), e.status) for e in found] == [
        ("day.zip", "unsupported"),
        ("x.tar.gz", "unsupported"),
        ("a.jpg", ""),
    ]


def test_a_bomb_in_a_zip_is_refused_before_it_is_read(tmp_path):
    (entry,) = placed(tmp_path, "day.zip", a_zip({"bomb.bmp": bytes(80 << 20)}))
    assert entry.status == "too_large" and "bomb" in entry.error
    (tmp_path / "day.zip").write_bytes(a_zip({"black.bmp": bytes(8 << 20)}))
    (entry,) = walk(str(tmp_path))
    assert fetch(entry.uri, entry.etag) == bytes(8 << 20), "a small black picture is no bomb"


def test_a_bomb_in_a_tar_gz_is_read_only_up_to_a_bound(tmp_path):
    bomb = a_tar({"a.jpg": b"1", "bomb.bmp": bytes(200 << 20)}, "w:gz")
    first, container = placed(tmp_path, "day.tar.gz", bomb)
    assert inside(first) == "a.jpg" and not first.status
    assert container.status == "too_large" and "as a bomb does" in container.error
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 7 << 30
    body = header.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20)
    (tmp_path / "day.tar.gz").write_bytes(gzip.compress(body))
    (entry,) = walk(str(tmp_path))
    assert (entry.status, "a header of 7516192768 bytes" in entry.error) == ("too_large", True)


def headers_alone(content, count, kind=tarfile.XHDTYPE):
    header = tarfile.TarInfo("pax")
    header.type, header.size = kind, len(content)
    return (header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)) * count


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("name", ["day.tar", "day.tar.gz"])
def test_a_tar_of_headers_alone_is_read_only_up_to_a_bound(tmp_path, monkeypatch, name, kind):
    body = headers_alone(b"11 path=ab\n", 9, kind) + a_tar({"a.jpg": b"1"})
    body = gzip.compress(body) if "gz" in name else body
    (entry,) = placed(tmp_path, name, body)
    assert not entry.status
    monkeypatch.setattr(tars, "MOST_EXTENSIONS", 8)
    (entry,) = placed(tmp_path, name, body)
    assert (entry.status, "too many headers: 9 of 99 bytes" in entry.error) == ("too_large", True)
    monkeypatch.setattr(tars, "MOST_EXTENSIONS", 9)
    monkeypatch.setattr(tars, "MOST_EXTENDED", 90)
    (entry,) = placed(tmp_path, name, body)
    assert (entry.status, "too many headers: 9 of 99 bytes" in entry.error) == ("too_large", True)


def test_long_headers_are_read_only_up_to_a_bound(tmp_path, monkeypatch):
    """Each has 200,000 records: reading one must not copy all that follow."""
    monkeypatch.setattr(tars, "MOST_EXTENDED", 4 << 20)
    body = headers_alone(b"5 a=\n" * (tars.MOST_HEADER // 5), 6)
    (entry,) = placed(tmp_path, "day.tar", body)
    assert (entry.status, "too many headers: 5" in entry.error) == ("too_large", True)


def test_the_last_value_in_a_header_counts_and_sparse_files_are_refused(tmp_path):
    records = b"5 a=\n" + b"12 path=old\n" + b"16 path=eye.jpg\n" + b"9 size=1\n"
    found = placed(tmp_path, "day.tar", headers_alone(records, 1) + a_tar({"a.jpg": b"1"}))
    assert [(inside(e), e.size, e.status) for e in found] == [("eye.jpg", 1, "")]
    sparse = headers_alone(b"22 GNU.sparse.major=1\n", 1) + a_tar({"a.jpg": b"1"})
    (entry,) = placed(tmp_path, "day.tar", sparse)
    assert (entry.status, entry.error) == ("unsupported", "a sparse file, which is not read")
    header = tarfile.TarInfo("a.jpg")
    header.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[482] = 1
    block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
    (entry,) = placed(tmp_path, "day.tar", bytes(block) + b"1" * (2 << 20))
    assert (entry.status, "the map of a sparse file" in entry.error) == ("too_large", True)


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_a_sparse_file_packed_by_tar_is_refused(tmp_path, form):
    """The tar does not hold the whole file: its holes are left out."""
    with (tmp_path / "eye.jpg").open("wb") as eye:
        eye.write(b"begin")
        eye.seek(1 << 20)
        eye.write(b"end")
    packing = ["tar", "-S", f"--format={form}", "-cf", "day.tar", "eye.jpg", "--remove-files"]
    subprocess.run(packing, cwd=tmp_path, check=True)
    (entry,) = walk(str(tmp_path))
    assert (entry.status, "sparse" in entry.error) == ("unsupported", True)


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """As in zip bombs whose thousands of members share their data."""
    body = bytearray(a_zip({"a.jpg": b"x" * 5_000, "b.jpg": b"x" * 5_000, "c.jpg": b"y"}))
    second = body.index(b"PK\x01\x02", body.index(b"PK\x01\x02") + 1)
    body[second + 42 : second + 46] = struct.pack("<L", 0)  # the second begins at the first
    found = placed(tmp_path, "day.zip", bytes(body))
    assert [e.status for e in found] == ["unsupported", "unsupported", ""]
    assert "overlap" in found[0].error


def test_an_encrypted_member_and_an_unsupported_method_are_refused(tmp_path):
    (tmp_path / "eye.jpg").write_bytes(b"eye")
    body = bytearray(a_zip({"a.jpg": b"1"}))
    body[body.index(b"PK\x01\x02") + 8] |= 1
    (entry, _) = placed(tmp_path, "day.zip", bytes(body))
    assert (entry.status, entry.error) == ("unsupported", "an encrypted member")
    (tmp_path / "day.zip").write_bytes(a_zip({"a.jpg": b"1"}, zipfile.ZIP_LZMA))
    (entry, _) = walk(str(tmp_path))
    assert (entry.status, "(14)" in entry.error) == ("unsupported", True)


def test_a_member_that_differs_from_its_listing_is_broken(tmp_path):
    body = bytearray(a_zip({"a.jpg": b"eye" * 1_000}))
    declared = body.index(b"PK\x01\x02") + 24
    body[declared : declared + 4] = struct.pack("<L", 5)
    (entry,) = placed(tmp_path, "day.zip", bytes(body))
    with pytest.raises(FetchFailed, match="not what the archive lists") as failed:
        fetch(entry.uri, entry.etag)
    assert failed.value.status == "decode_failed"
    body = bytearray(a_zip({"a.jpg": b"eye" * 1_000}, zipfile.ZIP_STORED))
    body[100] ^= 1
    (tmp_path / "day.zip").write_bytes(bytes(body))
    (entry,) = walk(str(tmp_path))
    with pytest.raises(FetchFailed, match="not what the archive lists"):
        fetch(entry.uri, entry.etag)


def test_a_broken_container_is_one_entry_with_its_reason(tmp_path):
    for name, content in {
        "junk.zip": b"PK and no more",
        "empty.zip": b"",
        "cut.zip": a_zip()[:-30],
        "junk.tar": b"x" * 5_000,
        "junk.tar.gz": b"\x1f\x8b" + b"x" * 500,
        "none.zip": a_zip({}),
        "none.tar": a_tar({}),
    }.items():
        (tmp_path / name).write_bytes(content)
    found = {e.uri.rsplit("/", 1)[1]: (e.status, e.error) for e in walk(str(tmp_path))}
    assert found == {
        "junk.zip": ("decode_failed", "a broken zip archive"),
        "empty.zip": ("decode_failed", "a broken zip archive"),
        "cut.zip": ("decode_failed", "a broken zip archive"),
        "junk.tar": ("decode_failed", "a broken tar archive: 0 members were read"),
        "junk.tar.gz": ("decode_failed", "a broken tar.gz: it cannot be inflated"),
        "none.zip": ("unsupported", "an archive without members"),
        "none.tar": ("unsupported", "an archive without members"),
    }


@pytest.mark.parametrize("name", ["day.tar", "day.tar.gz"])
def test_a_cut_off_tar_gives_its_sound_members_and_an_entry_for_the_rest(tmp_path, name):
    eyes = {f"{n}.jpg": random.Random(n).randbytes(20_000) for n in range(4)}
    whole = a_tar(eyes)
    cut = whole[: 2 * (512 + 20_480) + 9_000]
    found = placed(tmp_path, name, gzip.compress(whole)[:-20_000] if "gz" in name else cut)
    sound = [e for e in found if not e.status]
    assert len(sound) >= 2 and {e.status for e in found} == {"", "decode_failed"}
    assert [fetch(e.uri, e.etag) for e in sound] == list(eyes.values())[: len(sound)]
    assert found[-1].uri.endswith(name) and "cut off" in found[-1].error
    no_mark = whole[: 4 * (512 + 20_480)]  # cut where a member ends: only the end mark is missing
    (tmp_path / name).write_bytes(gzip.compress(no_mark) if "gz" in name else no_mark)
    assert [e.status for e in walk(str(tmp_path))] == ["", "", "", "", "decode_failed"]


def test_too_many_members_end_with_an_entry_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "MOST_MEMBERS", 3)
    found = placed(tmp_path, "day.zip", a_zip({f"{n}.jpg": b"1" for n in range(5)}))
    assert [e.status for e in found] == ["", "", "", "too_large"]
    monkeypatch.setattr(zip_parts, "MOST_INDEX", 100)
    (entry,) = walk(str(tmp_path))
    assert entry.status == "too_large" and "an index of" in entry.error


def test_a_container_that_changed_since_the_listing_gives_no_bytes(tmp_path):
    for name in ("day.zip", "day.tar", "day.tar.gz"):
        (tmp_path / name).write_bytes(KINDS[name]())
    found = list(walk(str(tmp_path)))
    for name in ("day.zip", "day.tar", "day.tar.gz"):
        (tmp_path / name).write_bytes(KINDS[name]() + b"more")
    fetching._streams.clear()
    for entry in found:
        if entry.size:
            with pytest.raises(FetchFailed, match="it changed after it was listed"):
                fetch(entry.uri, entry.etag)


def test_a_tar_gz_is_read_on_from_the_nearest_mark(tmp_path, monkeypatch):
    """Members are read in any order; marks are close together, in two joined gzip files."""
    monkeypatch.setattr(tars, "MARK", 300_000)
    eyes = {f"{n:02}.jpg": random.Random(n).randbytes(30_000) for n in range(40)}
    body = a_tar(eyes)
    twice = gzip.compress(body[:500_000]) + gzip.compress(body[500_000:]) + bytes(512)
    found = placed(tmp_path, "day.tar.gz", twice)
    fetching._streams.clear()
    order = random.Random(1).sample(found, 40)
    assert {inside(e): fetch(e.uri, e.etag) for e in order} == eyes
    (stream,) = fetching._streams.values()
    assert len(stream.marks) >= 3
    inflated = []
    part = tars.Inflated._part
    monkeypatch.setattr(
        tars.Inflated, "_part", lambda *a: inflated.append(part(*a)) or inflated[-1]
    )
    fetch(found[35].uri, found[35].etag)
    fetch(found[3].uri, found[3].etag)
    assert sum(map(len, inflated)) < 2 * (30_000 + 300_000 + objects.BLOCK)


def test_a_tar_gz_is_read_once_however_many_threads_want_its_members(tmp_path, monkeypatch):
    eyes = {f"{n}.jpg": bytes([n]) * 30_000 for n in range(40)}
    found = placed(tmp_path, "day.tar.gz", a_tar(eyes, "w:gz"))
    opened = []
    real = fetching.open_object
    monkeypatch.setattr(fetching, "open_object", lambda *a: opened.append(a) or real(*a))
    fetching._streams.clear()
    assert [data for _, data in fetch_many(found, 8)] == list(eyes.values())
    assert len(opened) == 1
    with ThreadPoolExecutor(8) as pool:  # in any order, the bytes are right
        assert list(pool.map(lambda e: fetch(e.uri, e.etag), found)) == list(eyes.values())


def test_tars_of_the_systems_own_program_are_read(tmp_path):
    eyes = {"a.jpg": b"1" * 5_000, "deep/" * 30 + "long name.jpg": b"2"}
    for name, data in eyes.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    (tmp_path / "out").mkdir()
    for form in ("gnu", "pax", "ustar"):
        tar = ["tar", f"--format={form}", "-czf", f"../out/{form}.tgz", "."]
        subprocess.run(tar, cwd=tmp_path / "in", check=True)
    found = list(walk(str(tmp_path / "out")))
    assert len(found) == 6 and {fetch(e.uri, e.etag) for e in found} == set(eyes.values())


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(list(KINDS)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    end=st.floats(0, 1),
)
def test_every_mutation_of_a_container_ends_in_bytes_or_a_reason(tmp_path, name, changes, end):
    body = bytearray(SMALL[name])
    for place, value in changes:
        body[int(place * (len(body) - 1))] = value
    body = body[: int(len(body) * (end if end < 0.5 else 1))]
    for other in tmp_path.iterdir():
        other.unlink()
    (tmp_path / name).write_bytes(body)
    found = list(walk(str(tmp_path)))
    assert found and len({e.uri for e in found}) == len(found)
    for entry, (_, data) in zip(found, fetch_many(found, 1), strict=True):
        assert isinstance(entry, Entry) and isinstance(data, bytes | FetchFailed)
        assert bool(entry.status) == bool(entry.error)


SMALL = {name: make({"a.jpg": b"one", "b/" * 60 + "ü": b"two"}) for name, make in KINDS.items()}
