"""From staged rows to current ones, whatever order, doubles and deaths came between."""

import random
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.bytes_read import MEASURES, bytes_read
from fundus.ledger import current as pointer
from fundus.ledger import publish, row, runs
from fundus.ledger.claim import Claim, ClaimHeld, claimed
from fundus.ledger.runs import Run
from fundus.storage.places import Place, open_place

A, B = "a" * 64, "b" * 64


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return open_place(str(tmp_path / "results"))


def ids(*objects: tuple[str, str]) -> pa.Table:
    uris, etags = zip(*objects, strict=True) if objects else ((), ())
    return pa.table({"uri": pa.array(uris, pa.string()), "etag": pa.array(etags, pa.string())})


def stage(
    place: Place, run: Run, name: str, *pictures: tuple[str, str, int, int], **columns: list
) -> None:
    """Write one staged file of (uri, etag, frame, frames) rows."""
    uri, etag, frame, frames = (list(column) for column in zip(*pictures, strict=True))
    given = {
        "uri": uri,
        "etag": etag,
        "frame": frame,
        "frames": frames,
        "status": ["ok"] * len(uri),
    }
    rows = row.table(given | columns, run.run_id, run.bundle, run.settings)
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    place.put(f"{run.staged}/{name}.parquet", sink.getvalue().to_pybytes())


def finish(place: Place, run: Run, wanted: pa.Table, claim: Claim) -> pointer.Current:
    current, etag = pointer.read(place)
    found = runs.staged(place, run)
    publish.reconcile(wanted, found)
    return publish.publish(place, run, current, etag, wanted, found, claim)


def screened(place: Place, bundle: str, *objects: tuple[str, str], **columns: list) -> Run:
    """A whole run over single pictures."""
    run = runs.begin(place, pointer.read(place)[0], bundle, "frames")
    stage(place, run, "0", *((uri, etag, 1, 1) for uri, etag in objects), **columns)
    with claimed(place) as claim:
        finish(place, run, ids(*objects), claim)
    return run


def current_rows(place: Place) -> list[tuple[str, str, str]]:
    """As an analyst reads them: the files that the pointer names, and no others."""
    files = [f"{place.uri.removeprefix('file://')}/{f.path}" for f in pointer.read(place)[0].files]
    if not files:
        return []
    query = "select uri, etag, bundle from read_parquet(?) order by uri, frame"
    return duckdb.execute(query, [files]).fetchall()


def test_rows_are_sorted_and_each_picture_comes_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "FILE_BYTES", 1)  # a file an object
    run = runs.begin(place, pointer.Current(), A, "frames")
    stage(place, run, "1", ("c", "1", 1, 1), ("a", "1", 2, 2))
    stage(place, run, "2", ("b", "1", 1, 1), ("a", "1", 1, 2))
    stage(place, run, "3", ("b", "1", 1, 1), ("gone", "1", 1, 1), ("c", "0", 1, 1))
    with claimed(place) as claim:
        current = finish(place, run, ids(("a", "1"), ("b", "1"), ("c", "1")), claim)
    assert [(f.first, f.last, f.rows) for f in current.files] == [
        ("a", "a", 2),
        ("b", "b", 1),
        ("c", "c", 1),
    ]
    assert current_rows(place) == [("a", "1", A)] * 2 + [("b", "1", A), ("c", "1", A)]


def test_an_object_without_all_its_pictures_is_missing(place: Place) -> None:
    run = runs.begin(place, pointer.Current(), A, "frames")
    stage(place, run, "1", ("a", "1", 1, 2), ("b", "1", 1, 1))
    found = runs.staged(place, run)
    assert runs.whole(found.ids).to_pylist() == [{"uri": "b", "etag": "1", "frames": 1}]
    with pytest.raises(RuntimeError, match="1 of 2 objects have no row"):
        publish.reconcile(ids(("a", "1"), ("b", "1")), found)


def test_an_object_that_was_read_twice_has_the_rows_of_one_answer(place: Place) -> None:
    run = runs.begin(place, pointer.Current(), A, "frames")
    stage(place, run, "1", ("a", "1", 1, 3), ("a", "1", 2, 3))
    assert runs.whole(runs.staged(place, run).ids).num_rows == 0
    stage(place, run, "2", ("a", "1", 1, 1), status=["read_failed"])
    wanted = ids(("a", "1"))
    assert runs.whole(runs.staged(place, run).ids)["frames"].to_pylist() == [1]
    stage(place, run, "3", ("a", "1", 3, 3))
    with claimed(place) as claim:
        current = finish(place, run, wanted, claim)
    rows = runs.read_current(place, current, ["frame", "frames", "status"])
    assert [tuple(one.values()) for one in rows.to_pylist()] == [(n, 3, "ok") for n in (1, 2, 3)]


def test_a_changed_object_and_a_new_bundle_supersede_and_the_old_rows_remain(place: Place) -> None:
    first = screened(place, A, ("a", "1"), ("b", "1"), ("c", "1"))
    screened(place, A, ("b", "2"))
    assert current_rows(place) == [("a", "1", A), ("b", "2", A), ("c", "1", A)]
    screened(place, B, ("a", "1"), ("b", "2"), ("c", "1"))
    assert current_rows(place) == [("a", "1", B), ("b", "2", B), ("c", "1", B)]
    assert len(pointer.read(place)[0].files) == 1
    old = place.list(f"rows/date={first.date}/{first.run_id}")
    assert len(old) == 1 and runs.read_columns(place, old[0], ["uri"]).num_rows == 3


def test_what_is_done_is_left_out_by_content_bundle_and_settings(place: Place) -> None:
    run = screened(place, A, ("a", "1"), ("b", "1"), status=["ok", "timed_out"])
    listed = ids(("a", "1"), ("b", "1"), ("a", "2"), ("d", "1"))

    def left(bundle: str, how: str = "frames", *, retry: bool = False) -> list[tuple[str, ...]]:
        current, _ = pointer.read(place)
        done = runs.answered(place, current, Run("", bundle, how), retry=retry)
        return [
            tuple(o.values()) for t in runs.left(listed.to_batches(), done) for o in t.to_pylist()
        ]

    assert left(A) == [("a", "2"), ("d", "1")]
    assert left(A, retry=True) == [("b", "1"), ("a", "2"), ("d", "1")]
    assert len(left(B)) == len(left(A, "precropped")) == 4
    assert run.run_id in pointer.read(place)[0].runs


def test_a_killed_run_goes_on_under_its_id_with_what_it_staged(place: Place) -> None:
    run = runs.begin(place, pointer.Current(), A, "frames")
    stage(place, run, "1", ("a", "1", 1, 1))
    place.put(f"{run.staged}/2.parquet", b"PAR1 half a file")
    assert runs.begin(place, pointer.Current(), B, "frames") != run
    assert runs.begin(place, pointer.Current(), A, "frames") == run
    assert runs.staged(place, run).ids.num_rows == 1
    assert [n for n in place.list(f"{run.staged}/")] == [f"{run.staged}/1.parquet"]


def test_files_of_a_publication_that_died_before_the_pointer_are_not_seen_and_go(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.begin(place, pointer.Current(), A, "frames")
    stage(place, run, "1", ("a", "1", 1, 1), ("b", "1", 1, 1))
    wanted = ids(("a", "1"), ("b", "1"))
    with monkeypatch.context() as dying, claimed(place) as claim:
        dying.setattr(publish, "FILE_BYTES", 1)
        dying.setattr(pointer, "swap", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finish(place, run, wanted, claim)
    assert len(place.list("rows/")) == 2 and current_rows(place) == []
    with claimed(place) as claim:
        finish(place, run, wanted, claim)
    assert len(place.list("rows/")) == 1 and len(current_rows(place)) == 2


def test_a_run_that_lost_its_claim_publishes_nothing(place: Place) -> None:
    run = runs.begin(place, pointer.Current(), A, "frames")
    stage(place, run, "1", ("a", "1", 1, 1))
    slow = Claim(place)
    slow.acquire()
    with claimed(place, take_over=True), pytest.raises(ClaimHeld):
        finish(place, run, ids(("a", "1")), slow)
    assert pointer.read(place)[0].files == ()


def test_who_lost_the_claim_while_writing_harms_no_file_of_the_one_who_has_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.begin(place, pointer.Current(), A, "frames")
    stage(place, run, "1", ("a", "1", 1, 1), ("b", "1", 1, 1))
    wanted = ids(("a", "1"), ("b", "1"))
    slow = Claim(place)
    slow.acquire()
    check = Claim.check

    def taken_over_meanwhile(claim: Claim) -> None:
        check(claim)
        if claim is slow and not slow.lost:
            monkeypatch.setattr(Claim, "check", check)
            with claimed(place, take_over=True) as other:
                finish(place, run, wanted, other)
            monkeypatch.setattr(publish, "FILE_BYTES", 1)  # the slow one parts its rows otherwise

    monkeypatch.setattr(Claim, "check", taken_over_meanwhile)
    with pytest.raises(ClaimHeld):
        finish(place, run, wanted, slow)
    assert current_rows(place) == [("a", "1", A), ("b", "1", A)]


def test_the_pointer_is_swapped_by_one_of_two(place: Place) -> None:
    current, etag = pointer.read(place)
    assert pointer.swap(place, current.with_run("1", (), "x"), etag)
    assert not pointer.swap(place, current.with_run("2", (), "y"), etag)
    current, etag = pointer.read(place)
    assert current.runs == ("1",)
    assert pointer.swap(place, current.with_run("3", (), "x"), etag)
    assert not pointer.swap(place, current.with_run("4", (), "y"), etag)


NIGHT = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from("12")),
    max_size=6,
    unique_by=lambda o: o[0],
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from((A, B)), NIGHT), max_size=5))
def test_whatever_the_nights_the_newest_row_of_each_object_is_current(
    tmp_path_factory: pytest.TempPathFactory, nights: list[tuple[str, list[tuple[str, str]]]]
) -> None:
    place = open_place(str(tmp_path_factory.mktemp("results")))
    newest: dict[str, tuple[str, str, str]] = {}
    for bundle, objects in nights:
        current, _ = pointer.read(place)
        run = Run("", bundle, "frames")
        done = runs.answered(place, current, run)
        listed = ids(*objects)
        todo = [
            tuple(o.values()) for t in runs.left(listed.to_batches(), done) for o in t.to_pylist()
        ]
        if todo:
            screened(place, bundle, *todo)
        newest |= {uri: (uri, etag, bundle) for uri, etag in objects}
        assert current_rows(place) == sorted(newest.values())


def test_who_asks_for_measures_alone_does_not_read_the_masks(place: Place) -> None:
    draw = random.Random(0)
    objects = [(f"{number:05}", "1") for number in range(3000)]
    masks = [draw.randbytes(1000) for _ in objects]
    screened(place, A, *objects, mask_png=masks, vcdr=[draw.random() for _ in objects])
    filesystem, root = place.arrow()
    [file] = pointer.read(place)[0].files

    def read(columns: list[str] | None) -> int:
        with filesystem.open_input_file(f"{root}/{file.path}") as opened:
            return bytes_read(opened, columns)

    assert read(None) > 3_000_000 > 20 * read(MEASURES)
