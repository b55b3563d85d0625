"""A run: what it is about, the rows that it has staged, and what is left to do.

    runs/<run_id>/run.json            bundle and settings, written first
    runs/<run_id>/inventory.parquet   every object that was listed
    runs/<run_id>/staged/*.parquet    rows as they come; gone once they are published
    runs/<run_id>/summary.json        written when the run is finished

A run that was killed is continued by the next one of the same bundle and settings: under the same
id, with the rows that it had staged.
"""

import io
import json
import logging
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fundus.ledger import row
from fundus.ledger.current import Current
from fundus.storage.places import Place

log = logging.getLogger(__name__)

IDS = ("uri", "etag", "frame", "frames")
READERS = 8
"""Small files that are read at once."""


def new_run_id() -> str:
    """Sorts by time: "20270131T235959Z-1a2b3c"."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class Run:
    """One run, finished or not."""

    run_id: str
    bundle: str
    """Digest."""
    settings: str

    @property
    def folder(self) -> str:
        """Relative to the results."""
        return f"runs/{self.run_id}"

    @property
    def staged(self) -> str:
        """Where its rows lie until they are published."""
        return f"{self.folder}/staged"

    @property
    def date(self) -> str:
        """The day on which it began, "2027-01-31"."""
        return f"{self.run_id[:4]}-{self.run_id[4:6]}-{self.run_id[6:8]}"


def begin(place: Place, current: Current, bundle: str, settings: str) -> Run:
    """The newest unfinished run of this bundle and these settings, or a new one."""
    for run in unfinished(place, current):
        if (run.bundle, run.settings) == (bundle, settings):
            log.info("continuing run %s", run.run_id)
            return run
    run = Run(new_run_id(), bundle, settings)
    place.put(f"{run.folder}/run.json", json.dumps(asdict(run)).encode() + b"\n")
    return run


def unfinished(place: Place, current: Current) -> list[Run]:
    """Runs that were begun and not published, newest first."""
    found = {name.split("/")[1] for name in place.list("runs/") if name.endswith("/run.json")}
    begun = [place.read(f"runs/{run_id}/run.json") for run_id in sorted(found - {*current.runs})]
    return [Run(**json.loads(content)) for content, _ in filter(None, reversed(begun))]


@dataclass(frozen=True)
class Staged:
    """The rows that a run has written so far."""

    files: tuple[str, ...]
    """Relative to the results."""
    bytes: int
    ids: pa.Table
    """`IDS` and `file` (an index into `files`) of every row."""


def staged(place: Place, run: Run) -> Staged:
    """Read the ids of a run's staged rows. A file that cannot be read is deleted and said."""
    names = sorted(name for name in place.list(f"{run.staged}/") if name.endswith(".parquet"))
    with ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(lambda name: _ids_of(place, name), names))
    sound = [(name, *table) for name, table in zip(names, tables, strict=True) if table]
    ids = [
        table.append_column("file", pa.array([number] * table.num_rows, pa.int32()))
        for number, (_, table, _) in enumerate(sound)
    ]
    return Staged(
        tuple(name for name, _, _ in sound),
        sum(size for _, _, size in sound),
        pa.concat_tables(ids) if ids else _no_ids(),
    )


def whole(ids: pa.Table) -> pa.Table:
    """uri, etag and frames of the objects all of whose pictures are among these ids.

    One answer an object: it may have been read twice, once as three frames and once as a failure,
    which is one row. The one of more frames counts, and no mixture of the two.
    """
    distinct = ids.group_by(list(IDS), use_threads=False).aggregate([])
    answers = distinct.group_by(["uri", "etag", "frames"], use_threads=False).aggregate(
        [("frame", "count")]
    )
    complete = answers.filter(pc.equal(answers["frame_count"], answers["frames"]))
    most = complete.group_by(["uri", "etag"], use_threads=False).aggregate([("frames", "max")])
    return most.rename_columns(["uri", "etag", "frames"])


def answered(place: Place, current: Current, run: Run, *, retry: bool = False) -> pa.Table:
    """uri and etag of the objects whose current row is by this bundle and these settings.

    With `retry`, failures count as not answered.
    """
    found = []
    for file in current.files:
        if (file.bundle, file.settings) != (run.bundle, run.settings):
            continue
        rows = read_columns(place, file.path, ["uri", "etag", "status"])
        if retry:
            rows = rows.filter(pc.is_in(rows["status"], pa.array(sorted(row.ANSWERS))))
        found.append(rows.select(["uri", "etag"]))
    return pa.concat_tables(found) if found else _no_ids().select(["uri", "etag"])


def left(inventory: Iterable[pa.RecordBatch], done: pa.Table) -> Iterator[pa.Table]:
    """The part of an inventory, batch by batch, that is not done (uri and etag)."""
    keys = _keys(done)
    for batch in inventory:
        some = pa.Table.from_batches([batch])
        missing = some.filter(pc.invert(pc.is_in(_keys(some), keys)))
        if missing.num_rows:
            yield missing


def read_columns(place: Place, path: str, columns: list[str]) -> pa.Table:
    """Some columns of one file of rows; the others are not fetched."""
    filesystem, root = place.arrow()
    with filesystem.open_input_file(f"{root}/{path}") as file:
        return pq.ParquetFile(file).read(columns=columns)


def read_current(place: Place, current: Current, columns: list[str]) -> pa.Table:
    """Some columns of all current rows: one row a picture."""
    empty = pa.schema([row.SCHEMA.field(name) for name in columns]).empty_table()
    files = [read_columns(place, file.path, columns) for file in current.files]
    return pa.concat_tables([empty, *files])


def _ids_of(place: Place, name: str) -> tuple[pa.Table, int] | None:
    found = place.read(name)
    if found is None:
        return None
    try:
        return pq.read_table(io.BytesIO(found[0]), columns=list(IDS)), len(found[0])
    except (pa.ArrowInvalid, OSError) as error:
        log.warning("%s cannot be read (%s): its pictures are screened anew", name, error)
        place.delete(name)
        return None


def _keys(table: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(table["uri"], table["etag"], "\n")


def _no_ids() -> pa.Table:
    return (
        pa.schema([row.SCHEMA.field(name) for name in IDS])
        .empty_table()
        .append_column("file", pa.array([], pa.int32()))
    )
