"""From written rows to a table with one row per picture, despite duplicates and crashes."""

import json
import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from deltalake import DeltaTable
from fault_proxy import RESET_BODY, TRUNCATE, Fault, FaultProxy
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_server import Server

from benchmarks.bytes_read import MEASURES, bytes_read
from fundus.anatomy.risk import RiskModel
from fundus.errors import ConfigurationError
from fundus.ledger import row, runs, table
from fundus.ledger.plan import Plan
from fundus.ledger.revise import recalibrate
from fundus.ledger.runs import Run
from fundus.storage.places import Place, open_place

A, B = "a" * 64, "b" * 64
RISK = RiskModel(-1.0, 9.0, 0.5, 0.1, 0.4, 0.9, 20, 20, "set", "c" * 64)
Objects = list[tuple[str, str]]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return open_place(str(tmp_path / "results"))


def about(measuring: str = A, source: str = "archive", bundle: str = "") -> Run:
    return Run("", bundle or measuring, "frames", measuring, source)


def write(
    place: Place, run: Run, name: str, *pictures: tuple[str, str, int, int], **columns: list
) -> None:
    """Write one file of (uri, etag, frame, frames) rows, as a worker does."""
    uris, etags, frame, frames = map(list, zip(*pictures, strict=True))
    values = {"uri": uris, "etag": etags, "frame": frame, "frames": frames}
    values["status"] = ["ok"] * len(pictures)
    rows = row.table(values | columns, run.run_id, run.bundle, run.settings, run.measuring)
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    place.put(f"{run.rows}/{name}.parquet", sink.getvalue().to_pybytes())


def plan_of(place: Place, run: Run, folder: Path, listed: Objects, *, retry: bool = False) -> Plan:
    """The plan of a run that has listed these (uri, etag) pairs."""
    folder = folder / f"{random.random()}"
    folder.mkdir()
    uris, etags = zip(*listed, strict=True) if listed else ((), ())
    pq.write_table(pa.table({"uri": pa.array(uris, "string"), "etag": pa.array(etags, "string")}),
                   folder / "listed.parquet")  # fmt: skip
    plan = Plan(place, run, folder)
    plan.want(folder / "listed.parquet", table.opened(place), retry=retry)
    plan.refresh()
    return plan


def publish(place: Place, run: Run, folder: Path, listed: Objects, **how: bool) -> None:
    with closing(plan_of(place, run, folder, listed, **how)) as plan:
        plan.publish()
    runs.finish(place, run, b"{}")


def screened(place: Place, folder: Path, objects: Objects, wanted: Run, **columns: list) -> Run:
    """A whole night: these objects are listed, written and published."""
    run = runs.begin(place, wanted)
    if objects:
        write(place, run, "0", *((uri, etag, 1, 1) for uri, etag in objects), **columns)
    publish(place, run, folder, objects)
    return run


def rows_of(place: Place, version: int | None = None) -> list[tuple]:
    """The rows as an analyst reads them, with another library."""
    uri, _ = table.address(place)
    found = polars.read_delta(uri, version=version).select("uri", "etag", "measuring", "frame")
    return sorted(found.rows())


def left(place: Place, folder: Path, run: Run, listed: Objects, **how: bool) -> list[str]:
    with closing(plan_of(place, run, folder, listed, **how)) as plan:
        plan.todo()
        return [uri for objects in plan.rounds() for uri in objects["uri"].to_pylist()]


def test_only_rows_of_listed_objects_are_published_and_each_once(
    place: Place, tmp_path: Path
) -> None:
    run = runs.begin(place, about())
    write(place, run, "1", ("c", "1", 1, 1), ("a", "1", 2, 2))
    write(place, run, "2", ("b", "1", 1, 1), ("a", "1", 1, 2))
    write(place, run, "3", ("b", "1", 1, 1), ("gone", "1", 1, 1), ("c", "0", 1, 1))
    publish(place, run, tmp_path, [("a", "1"), ("b", "1"), ("c", "1")])
    assert rows_of(place) == [
        ("a", "1", A, 1),
        ("a", "1", A, 2),
        ("b", "1", A, 1),
        ("c", "1", A, 1),
    ]
    assert len([name for name in place.list("rows/") if name.endswith("parquet")]) == 2


def test_an_object_without_all_its_pictures_is_missing(place: Place, tmp_path: Path) -> None:
    run = runs.begin(place, about())
    write(place, run, "1", ("a", "1", 1, 2), ("b", "1", 1, 1))
    listed = [("a", "1"), ("b", "1")]
    assert left(place, tmp_path, run, listed) == ["a"]
    with pytest.raises(RuntimeError, match="1 of 2 objects have no row"):
        publish(place, run, tmp_path, listed)
    assert table.find(place).version() == 0


def test_an_object_with_two_outcomes_has_the_rows_of_one(place: Place, tmp_path: Path) -> None:
    run, listed = runs.begin(place, about()), [("a", "1")]
    write(place, run, "1", ("a", "1", 1, 3), ("a", "1", 2, 3))
    assert left(place, tmp_path, run, listed) == ["a"]
    write(place, run, "2", ("a", "1", 1, 1), status=["read_failed"])
    assert left(place, tmp_path, run, listed) == []
    write(place, run, "3", ("a", "1", 3, 3))
    publish(place, run, tmp_path, listed)
    rows = table.read(place.uri, ["frame", "frames", "status"]).to_pylist()
    assert sorted(tuple(one.values()) for one in rows) == [(n, 3, "ok") for n in (1, 2, 3)]


def test_superseded_rows_are_replaced_and_stay_readable_in_older_versions(
    place: Place, tmp_path: Path
) -> None:
    first = screened(place, tmp_path, [("a", "1"), ("b", "1"), ("c", "1")], about())
    screened(place, tmp_path, [("b", "2")], about())
    assert rows_of(place) == [("a", "1", A, 1), ("b", "2", A, 1), ("c", "1", A, 1)]
    screened(place, tmp_path, [("a", "1"), ("b", "2"), ("c", "1")], about(B))
    assert rows_of(place) == [("a", "1", B, 1), ("b", "2", B, 1), ("c", "1", B, 1)]
    assert rows_of(place, 1) == [(uri, "1", A, 1) for uri in "abc"]
    assert table.read(place.uri, ["run_id"], version=1)["run_id"].to_pylist() == [first.run_id] * 3
    assert table.find(place).version() == 3  # one transaction per night


def with_pandas(uri: str) -> pa.Table:
    return pa.Table.from_pandas(DeltaTable(uri).to_pandas(columns=["uri", "etag"]))


def with_duckdb(uri: str) -> pa.Table:
    rows = DeltaTable(uri).to_pyarrow_dataset()
    return duckdb.from_arrow(rows).select("uri, etag").to_arrow_table()


def with_ray(uri: str) -> pa.Table:
    return pa.concat_tables(
        ray.get(ray.data.read_delta(uri, columns=["uri", "etag"]).to_arrow_refs())
    )


@pytest.mark.parametrize("reader", [with_pandas, with_duckdb, with_ray])
def test_pandas_duckdb_and_ray_find_only_the_current_rows(
    reader: Callable[[str], pa.Table], place: Place, tmp_path: Path, ray_local: None
) -> None:
    screened(place, tmp_path, [("a", "1"), ("b", "1")], about())
    screened(place, tmp_path, [("b", "2")], about())
    rows = reader(table.address(place)[0]).to_pylist()
    assert sorted((row["uri"], row["etag"]) for row in rows) == [("a", "1"), ("b", "2")]


def test_an_object_is_done_for_its_content_the_networks_and_the_settings(
    place: Place, tmp_path: Path
) -> None:
    screened(place, tmp_path, [("a", "1"), ("b", "1")], about(), status=["ok", "timed_out"])
    listed = [("a", "1"), ("b", "1"), ("a", "2"), ("d", "1")]
    same = replace(about(bundle=B), run_id="other")
    assert left(place, tmp_path, same, listed) == ["a", "d"]
    assert left(place, tmp_path, same, listed, retry=True) == ["a", "b", "d"]
    for other in (replace(same, measuring=B), replace(same, settings="precropped")):
        assert len(left(place, tmp_path, other, listed)) == 4


def test_a_killed_run_resumes_under_its_id_with_its_rows(place: Place, tmp_path: Path) -> None:
    run = runs.begin(place, about())
    write(place, run, "1", ("a", "1", 1, 1))
    place.put(f"{run.rows}/2.parquet", b"PAR1 half a file")
    assert runs.begin(place, about(B)) != run
    assert runs.begin(place, about()) == run
    assert left(place, tmp_path, run, [("a", "1"), ("b", "1")]) == ["b"]
    assert place.list(f"{run.rows}/") == [f"{run.rows}/1.parquet"]


def test_another_archive_or_filter_leaves_the_rows_of_a_killed_run_alone(
    place: Place, tmp_path: Path
) -> None:
    """Such a run once published two of the ten rows and deleted the others."""
    objects = [(f"{n}", "1") for n in range(10)]
    killed = runs.begin(place, about())
    write(place, killed, "0", *((uri, etag, 1, 1) for uri, etag in objects))
    screened(place, tmp_path, objects[:2], about(source="archive, the first two"))
    assert runs.begin(place, about()) == killed
    assert left(place, tmp_path, killed, objects) == []
    publish(place, killed, tmp_path, objects)
    assert [uri for uri, *_ in rows_of(place)] == [uri for uri, _ in objects]
    assert runs.unfinished(place) == []


@pytest.mark.parametrize("at", ["copy", "commit", "after", "finish"])
def test_the_same_command_completes_a_publication_that_died_at_any_step(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    screened(place, tmp_path, [("a", "0"), ("z", "0")], about())
    run, listed = runs.begin(place, about()), [("a", "1"), ("b", "1")]
    write(place, run, "1", ("a", "1", 1, 1), ("b", "1", 1, 1))
    write(place, run, "2", ("b", "1", 1, 1), ("gone", "1", 1, 1))

    def dies(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    commit = table.commit
    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        if at == "after":
            dying.setattr(table, "commit", lambda *a, **k: commit(*a, **k) and dies())
        elif at == "copy":
            dying.setattr(Plan, "_superseded", dies)
        else:
            dying.setattr(table if at == "commit" else runs, at, dies)
        publish(place, run, tmp_path, listed)
    found = table.opened(place)
    if table.is_published(found, run.run_id):
        runs.finish(place, run, b"{}")
    else:
        assert runs.begin(place, about()) == run
        publish(place, run, tmp_path, listed)
    assert [one[:2] for one in rows_of(place)] == [("a", "1"), ("b", "1"), ("z", "0")]
    current = {f"rows/{path}" for path in paths(place)}
    assert {name for name in place.list(f"{run.rows}/")} == {n for n in current if run.run_id in n}
    assert runs.unfinished(place) == []


def paths(place: Place) -> list[str]:
    return pa.table(table.find(place).get_add_actions())["path"].to_pylist()


def test_two_runs_that_publish_at_once_leave_one_row_per_picture(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [("a", "1"), ("b", "1")]
    slow = runs.begin(place, about())
    write(place, slow, "1", ("a", "1", 1, 1), ("b", "1", 1, 1))
    commit = table.commit

    def while_another_publishes(*args: object, **options: str) -> bool:
        monkeypatch.setattr(table, "commit", commit)
        screened(place, tmp_path, listed, about(source="the same, forced"))
        return commit(*args, **options)

    monkeypatch.setattr(table, "commit", while_another_publishes)
    publish(place, slow, tmp_path, listed)
    assert rows_of(place) == [("a", "1", A, 1), ("b", "1", A, 1)]
    assert table.find(place).version() == 2
    assert set(table.read(place.uri, ["run_id"])["run_id"].to_pylist()) == {slow.run_id}


def test_a_run_that_its_twin_has_published_is_not_published_again(
    place: Place, tmp_path: Path
) -> None:
    """Two processes work on one run after a take-over: the second finds the work done."""
    run, listed = runs.begin(place, about()), [("a", "1")]
    write(place, run, "1", ("a", "1", 1, 1))
    with closing(plan_of(place, run, tmp_path, listed)) as twin:
        publish(place, run, tmp_path, listed)
        twin.publish()
    assert rows_of(place) == [("a", "1", A, 1)] and table.find(place).version() == 1


def test_a_commit_is_made_once_despite_another_in_between(place: Place, tmp_path: Path) -> None:
    stale, run = table.opened(place), runs.begin(place, about())
    screened(place, tmp_path, [("b", "1")], about(B))
    assert not table.commit(place, stale, [], [], run_id=run.run_id)
    assert table.commit(place, table.opened(place), [], [], run_id=run.run_id)
    assert table.commit(place, stale, [], [], run_id=run.run_id)  # its reply was lost
    assert table.find(place).version() == 2


def test_a_calibrated_bundle_changes_only_risk_and_referable(place: Place, tmp_path: Path) -> None:
    objects = [(name, "1") for name in "abc"]
    measures = {"vcdr": [0.4, 0.8, None], "vcdr_sd": [0.02, 0.03, None]}
    screened(place, tmp_path, objects, about(), mask_png=[b"1", b"2", b"3"], **measures)
    before = table.read(place.uri).sort_by("uri")
    calibrated = Run("", B, "frames", A)
    assert recalibrate(place, calibrated, RISK) == 2
    after = table.read(place.uri).sort_by("uri")
    wanted = [RISK.risk(v, s) for v, s in zip(measures["vcdr"], measures["vcdr_sd"], strict=True)]
    assert after["risk"].to_pylist()[:2] == pytest.approx(wanted[:2], abs=1e-12)
    assert after["risk"][2].as_py() is None
    assert after["referable"].to_pylist() == [RISK.referable(risk) for risk in wanted]
    assert after["bundle"].to_pylist() == [B, B, A]  # the third has no risk with either
    same = [n for n in row.SCHEMA.names if n not in ("risk", "referable", "bundle")]
    assert after.select(same).equals(before.select(same))
    assert recalibrate(place, calibrated, RISK) == recalibrate(place, about(B), RISK) == 0
    assert left(place, tmp_path, replace(calibrated, run_id="x"), objects) == []


def test_results_of_the_former_format_are_refused_in_one_sentence(place: Place) -> None:
    place.put("current.json", b"{}")
    for look in (lambda: table.opened(place), lambda: table.read(place.uri)):
        with pytest.raises(ConfigurationError, match="another location"):
            look()


def test_missing_results_and_missing_versions_are_reported(place: Place, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no results yet"):
        table.read(place.uri)
    screened(place, tmp_path, [("a", "1")], about())
    with pytest.raises(ConfigurationError, match="no version 7"):
        table.read(place.uri, version=7)


def test_a_column_that_was_added_later_is_null_in_older_rows(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screened(place, tmp_path, [("a", "1")], about())
    with monkeypatch.context() as later:
        later.setattr(row, "SCHEMA", row.SCHEMA.append(pa.field("new", pa.float64())))
        screened(place, tmp_path, [("b", "1")], about(), new=[2.0])
    rows = table.read(place.uri, ["uri", "new"]).sort_by("uri")
    assert rows["new"].to_pylist() == [None, 2.0]


def test_the_table_describes_its_columns_and_knows_each_files_range(
    place: Place, tmp_path: Path
) -> None:
    screened(place, tmp_path, [("a", "1"), ("b", "1")], about(), vcdr=[0.25, 0.5])
    found = table.find(place)
    fields = {
        one["name"]: one["metadata"] for one in json.loads(found.schema().to_json())["fields"]
    }
    assert (
        fields["vcdr"]["description"] == row.SCHEMA.field("vcdr").metadata[b"description"].decode()
    )
    [known] = pa.table(found.get_add_actions(flatten=True)).to_pylist()
    assert (known["num_records"], known["min.uri"], known["max.uri"]) == (2, "a", "b")
    assert (known["min.vcdr"], known["max.vcdr"], known["null_count.risk"]) == (0.25, 0.5, 2)
    assert "min.mask_png" not in known


def test_small_files_are_compacted_by_the_library(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for night in range(3):
        screened(place, tmp_path, [(f"{night}", "1")], about(source=f"{night}"))
    before = rows_of(place)
    assert table.tidy(place) == 0
    monkeypatch.setattr(table, "SMALL_FILES", 3)
    assert table.tidy(place) == 3 and len(paths(place)) == 1
    assert rows_of(place) == before and len(rows_of(place, 2)) == 2


NIGHT = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from("12")),
    max_size=6,
    unique_by=lambda o: o[0],
)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.tuples(st.sampled_from((A, B)), NIGHT), max_size=4))
def test_after_any_nights_the_newest_row_of_each_object_is_current(
    tmp_path_factory: pytest.TempPathFactory, nights: list[tuple[str, Objects]]
) -> None:
    folder = tmp_path_factory.mktemp("nights")
    place = open_place(str(folder / "results"))
    newest: dict[str, tuple] = {}
    for measuring, objects in nights:
        run = runs.begin(place, about(measuring))
        todo = left(place, folder, run, objects)
        if todo:
            write(place, run, "0", *((uri, etag, 1, 1) for uri, etag in objects if uri in todo))
        publish(place, run, folder, objects)
        newest |= {uri: (uri, etag, measuring, 1) for uri, etag in objects}
        assert rows_of(place) == sorted(newest.values())


def test_reading_the_measures_does_not_read_the_masks(place: Place, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    objects = [(f"{number:05}", "1") for number in range(3000)]
    masks = [draw.bytes(1000) for _ in objects]
    screened(place, tmp_path, objects, about(), mask_png=masks, vcdr=list(draw.random(3000)))
    filesystem, root = place.arrow()
    [file] = paths(place)

    def read(columns: list[str] | None) -> int:
        with filesystem.open_input_file(f"{root}/rows/{file}") as opened:
            return bytes_read(opened, columns)

    assert read(None) > 3_000_000 > 20 * read(MEASURES)


@pytest.mark.s3
def test_a_table_on_s3_is_published_and_read(bucket: str, tmp_path: Path) -> None:
    place = open_place(f"s3://{bucket}/results")
    screened(place, tmp_path, [("a", "1"), ("b", "1")], about())
    screened(place, tmp_path, [("b", "2"), ("c", "1")], about())
    assert sorted(table.read(place.uri, ["etag"])["etag"].to_pylist()) == ["1", "1", "2"]
    uri, options = table.address(place)
    assert DeltaTable(uri, storage_options=options).version() == 2


@pytest.mark.s3
@pytest.mark.parametrize("kind", [RESET_BODY, TRUNCATE])
def test_a_broken_listing_is_requested_again(
    s3: Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """When a table is made, opened and committed to: deltalake does not retry such listings."""
    listing = Fault(kind, "GET", "list-type=2", count=0)
    with FaultProxy(s3.endpoint, listing) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        place = open_place(f"s3://{bucket}/results")
        for step in ("make", "open"):
            listing.count = 2
            assert table.opened(place).version() == 0, step
        run = runs.begin(place, about())
        write(place, run, "1", ("a", "1", 1, 1))
        newest = table.opened(place)
        listing.count = 1
        assert table.commit(place, newest, [], [], run_id=run.run_id)
        listing.count = 1
        assert table.find(place).version() == 1
    assert proxy.faults[kind] >= 4
