"""Which objects are left to screen, and which files a commit has to add and to remove.

DuckDB joins the inventory, the current rows and the rows that the run has written so far: millions
of names, on the driver's disk and in bounded memory. Names are joined by their MD5, a number of 16
bytes.
"""

import io
import logging
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction

from fundus.ledger import row, runs, table
from fundus.ledger.runs import Run
from fundus.storage.places import Place

log = logging.getLogger(__name__)

MEMORY = "800MB"
"""DuckDB's limit; it puts the rest on the disk."""
ATTEMPTS = 5
"""Commits that are tried when other runs commit in between."""
READERS = 8
"""Small files that are read at once."""
ROUND = 200_000
"""Objects that are given to Ray at once; the driver holds no more of them in memory."""
COPY = "kept-"
"""Prefix of the names of files that the driver writes for a commit; workers write all others."""

_NAMED = "md5_number(uri || chr(10) || etag) as object"
_URI = "md5_number(uri) as uri"

_WHOLE = """
    create or replace table whole as
    with answers as (
        select object, frames from (select distinct object, frame, frames from staged)
        group by all having count(*) = frames
    )
    select object, max(frames) as frames from answers group by object
"""
"""Objects that have a row for each of their pictures. An object may have been read twice, once as
three frames and once as a failure of one row: then the reading with more frames counts alone."""

_KEPT = """
    create or replace table kept as
    select file, nth, uri from staged
    semi join wanted using (object) semi join whole using (object, frames)
    qualify row_number() over (partition by uri, frame order by file, nth) = 1
"""
"""The rows to publish: one per picture."""


class Plan:
    """The bookkeeping of one run, in a database in the folder `scratch` of the driver.

    Args:
        place: the results location.
        run: the run whose rows are written and published.
        scratch: a folder on the driver's disk, which takes the database.
    """

    def __init__(self, place: Place, run: Run, scratch: Path) -> None:
        self.place, self.run = place, run
        self.files: list[AddAction] = []
        """Readable files of rows that the run has written, by their paths below the table."""
        self.database = duckdb.connect(
            str(scratch / "plan.duckdb"),
            config={
                "memory_limit": MEMORY,
                "temp_directory": str(scratch / "spilled"),
                "arrow_large_buffer_size": True,
                "preserve_insertion_order": False,
            },
        )
        self.database.execute("set enable_progress_bar = false")

    def close(self) -> None:
        """Close the database, which frees its memory."""
        self.database.close()

    def want(self, inventory: Path, rows: DeltaTable, *, retry: bool = False) -> int:
        """Find the listed objects that have no row of these networks and settings.

        Args:
            inventory: the Parquet file of the listed objects.
            rows: the table of results.
            retry: also take the objects whose row is a failure.

        Returns:
            Their number.
        """
        wanted = (pc.field("measuring") == self.run.measuring) & (
            pc.field("settings") == self.run.settings
        )
        if retry:
            wanted &= pc.field("status").isin(sorted(row.ANSWERS))
        self.database.execute(
            f"create or replace view listed as select *, {_NAMED} from read_parquet('{inventory}')"
        )
        self._load("done", table.stream(rows, ["uri", "etag"], filter=wanted), _NAMED)
        self.database.execute(
            "create or replace table wanted as select object from listed anti join done"
            " using (object)"
        )
        return self._count("wanted")

    def refresh(self) -> int:
        """Read which rows the run has written by now, and return their number.

        A file that cannot be read is deleted with a warning, and its pictures are screened anew.
        """
        names = [
            name.removeprefix(f"{table.ROWS}/")
            for name in self.place.list(f"{self.run.rows}/")
            if name.endswith(".parquet") and f"/{COPY}" not in name
        ]
        self.files = []
        self.database.execute(
            "create or replace table staged (file integer, nth integer, uri uhugeint,"
            " object uhugeint, frame integer, frames integer)"
        )
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(names), 4 * READERS):
                for found in pool.map(self._ids_of, names[start : start + 4 * READERS]):
                    if found:
                        self.database.register("found", found[1])
                        self.database.execute(
                            f"insert into staged select {len(self.files)}, nth, {_URI}, {_NAMED},"
                            " frame, frames from found"
                        )
                        self.files.append(found[0])
        self.database.execute(_WHOLE)
        return self._count("staged")

    def todo(self) -> int:
        """The number of wanted objects that still lack a row."""
        return self._count("wanted anti join whole using (object)")

    def rounds(self) -> Iterator[pa.Table]:
        """The wanted objects that still lack a row, ordered by URI, `ROUND` at a time."""
        found = self.database.cursor().sql(
            "select * exclude (object) from listed semi join"
            " (from wanted anti join whole using (object)) using (object) order by uri"
        )
        for batch in found.to_arrow_reader(ROUND):
            yield pa.Table.from_batches([batch])

    def publish(self) -> None:
        """Commit the run's rows.

        A file is committed as it was written if all its rows count; otherwise a copy without the
        other rows is. A file of the table that has rows which are now outdated is replaced in the
        same way. If another run commits in between, all of this is planned again on top of it.

        Raises:
            RuntimeError: wanted objects lack rows, or others commit all the time.
        """
        if missing := self.todo():
            raise RuntimeError(
                f"{missing} of {self._count('wanted')} objects have no row: run the same command"
                " again, which screens the missing ones"
            )
        self.database.execute(_KEPT)
        written = self._written()
        for _ in range(ATTEMPTS):
            rows = table.opened(self.place)
            if table.is_published(rows, self.run.run_id):
                return
            removed, copies = self._superseded(rows)
            nothing = not written and not removed
            if nothing or table.commit(
                self.place, rows, written + copies, removed, run_id=self.run.run_id
            ):
                return
        raise RuntimeError(
            f"other runs kept committing to {self.place.uri}: run the same command again later"
        )

    def lacking(self, rows: DeltaTable) -> dict[str, int]:
        """Count the listed objects whose rows were written without one of the run's extras.

        Returns:
            The number of objects by extra.
        """
        if not self.run.extras:
            return {}
        present = table.stream(rows, ["uri", "etag", "run_id"])
        self._load("present", present, f"{_NAMED}, run_id")
        found = self._rows(
            "select run_id, count(distinct object) from present semi join listed using (object)"
            " anti join wanted using (object) group by run_id"
        )
        lacking: dict[str, int] = {}
        for run_id, objects in found:
            run = runs.read(self.place, run_id)
            for extra in self.run.extras:
                if run is None or extra not in run.extras:
                    lacking[extra] = lacking.get(extra, 0) + objects
        return lacking

    def _written(self) -> list[AddAction]:
        """The files to add for the run's own rows, all of whose rows count."""
        kept = dict(self._rows("select file, count(*) from kept group by file"))
        added = []
        for number, count in self._rows("select file, count(*) from staged group by file"):
            if kept.get(number) == count:
                added.append(self.files[number])
            elif number in kept:
                found = self._rows(f"select nth from kept where file = {number} order by nth")
                stays = pa.array([nth for (nth,) in found])
                added.append(self._copied(self.files[number].path, partial(_taken, stays)))
        return added

    def _superseded(self, rows: DeltaTable) -> tuple[list[str], list[AddAction]]:
        """The table's files that have outdated rows, and copies of them without these rows."""
        if not self._count("kept"):
            return [], []
        self._load("present", table.stream(rows, ["uri", "__filename"]), f"{_URI}, __filename")
        found = self._rows(
            "select __filename, count(*), count(*) filter (exists (from kept where kept.uri ="
            " present.uri)) as gone from present group by all having gone > 0"
        )
        return (
            [name for name, _, _ in found],
            [self._copied(name, self._current) for name, count, gone in found if gone < count],
        )

    def _current(self, rows: pa.Table) -> pa.Table:
        """The rows that the run does not replace."""
        numbered = rows.select(["uri"]).append_column("nth", pa.array(range(rows.num_rows)))
        self._load("old", numbered, f"nth, {_URI}")
        stays = self._rows("select nth from old anti join kept using (uri) order by nth")
        return rows.take(pa.array([nth for (nth,) in stays], pa.int64()))

    def _copied(self, path: str, change: Callable[[pa.Table], pa.Table]) -> AddAction:
        """A changed copy of one of the table's files."""
        to = f"{self.run.run_id}/{COPY}{secrets.token_hex(12)}.parquet"
        with table.files(self.place).open_input_file(path) as file:
            rows = pq.ParquetFile(file).read()
        sink = io.BytesIO()
        pq.write_table(change(rows), sink, compression="zstd")
        self.place.put(f"{table.ROWS}/{to}", sink.getvalue())
        return table.action(to, sink.tell(), pq.read_metadata(sink))

    def _ids_of(self, name: str) -> tuple[AddAction, pa.Table] | None:
        try:
            with table.files(self.place).open_input_file(name) as file:
                parquet = pq.ParquetFile(file)
                ids = parquet.read(columns=["uri", "etag", "frame", "frames"])
                action = table.action(name, file.size(), parquet.metadata)
        except (pa.ArrowInvalid, FileNotFoundError) as error:
            log.warning("%s cannot be read (%s): its pictures are screened anew", name, error)
            self.place.delete(f"{table.ROWS}/{name}")
            return None
        return action, ids.append_column("nth", pa.array(range(ids.num_rows), pa.int32()))

    def _load(self, name: str, rows: pa.Table | pa.RecordBatchReader, columns: str) -> None:
        """Make a table of the database from Arrow's rows."""
        self.database.register("given", rows)
        self.database.execute(f"create or replace table {name} as select {columns} from given")
        self.database.unregister("given")

    def _count(self, of: str) -> int:
        return self._rows(f"select count(*) from {of}")[0][0]

    def _rows(self, query: str) -> list[tuple]:
        return self.database.execute(query).fetchall()


def _taken(numbers: pa.Array, rows: pa.Table) -> pa.Table:
    return rows.take(numbers)
