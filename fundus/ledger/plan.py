"""What is left to screen, and what a commit has to bring and take away.

All of it is joins of millions of names, which DuckDB does on the driver's disk within a bound of
memory: the inventory, the current rows, and the rows that the run has written so far.
"""

import hashlib
import logging
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction

from fundus.ledger import row, runs, table
from fundus.ledger.revise import Changed, revised
from fundus.ledger.runs import Run
from fundus.storage.places import Place

log = logging.getLogger(__name__)

IDS = ["uri", "etag", "frame", "frames"]
MEMORY = "800MB"
"""DuckDB's; what does not fit lies on the disk."""
ATTEMPTS = 5
READERS = 8
"""Small files that are read at once."""
ROUND = 200_000
"""Objects that are handed to Ray at once; the driver holds no more of them in memory."""

_WHOLE = """
    create or replace temp table whole as
    with answers as (
        select uri, etag, frames from (select distinct uri, etag, frame, frames from staged)
        group by all having count(*) = frames
    )
    select uri, etag, max(frames) as frames from answers group by uri, etag
"""
"""Objects all of whose pictures are there. An object may have been read twice, once as three frames
and once as a failure, which is one row: the answer of more frames counts, and no mixture."""

_KEPT = """
    create or replace temp table kept as
    select file, nth, uri from staged
    semi join wanted using (uri, etag) semi join whole using (uri, etag, frames)
    qualify row_number() over (partition by uri, frame order by file, nth) = 1
"""
"""The rows that are to be published: each picture once."""


@dataclass(frozen=True)
class Change:
    """What one commit does."""

    added: list[AddAction]
    removed: list[str]
    """Files of the table, relative to it."""
    leftovers: list[str]
    """Files of the run that it does not publish, relative to the results."""


class Plan:
    """One run's bookkeeping, on the driver's disk below `scratch`."""

    def __init__(self, place: Place, run: Run, scratch: Path) -> None:
        self.place, self.run = place, run
        self.files: dict[str, AddAction] = {}
        """Readable files of rows that the run has written, by their path below the table."""
        self.database = duckdb.connect(
            str(scratch / "plan.duckdb"),
            config={
                "memory_limit": MEMORY,
                "temp_directory": str(scratch / "spilled"),
                "arrow_large_buffer_size": True,
                "preserve_insertion_order": False,
            },
        )
        self.database.execute(
            "create table staged (file varchar, nth integer, uri varchar, etag varchar,"
            " frame integer, frames integer)"
        )

    def close(self) -> None:
        """Give the memory back."""
        self.database.close()

    def want(self, inventory: Path, rows: DeltaTable, *, retry: bool = False) -> int:
        """Count, and keep, the listed objects that have no row by these networks and settings.

        With `retry`, failures count as none.
        """
        wanted = (pc.field("measuring") == self.run.measuring) & (
            pc.field("settings") == self.run.settings
        )
        if retry:
            wanted &= pc.field("status").isin(sorted(row.ANSWERS))
        done = table.stream(rows, ["uri", "etag"], filter=wanted)
        self.database.register("done", done)
        self.database.execute(
            f"create or replace view listed as from read_parquet('{inventory}');"
            "create or replace table wanted as select * from listed anti join done"
            " using (uri, etag)"
        )
        self.database.unregister("done")
        return self._count("wanted")

    def refresh(self) -> int:
        """Learn which rows the run has written by now; how many.

        A file that cannot be read is deleted, and said: its pictures are screened anew.
        """
        prefix = f"{table.ROWS}/"
        names = {
            name.removeprefix(prefix)
            for name in self.place.list(f"{self.run.rows}/")
            if name.endswith(".parquet") and "/kept-" not in name
        }
        for gone in set(self.files) - names:
            self.database.execute("delete from staged where file = ?", [gone])
            del self.files[gone]
        system = table.files(self.place)
        fresh = sorted(names - set(self.files))
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(fresh), 16 * READERS):
                some = fresh[start : start + 16 * READERS]
                for found in pool.map(lambda name: self._ids_of(system, name), some):
                    if found is not None:
                        self.database.register("found", found)
                        self.database.execute("insert into staged select * from found")
                        self.database.unregister("found")
        self.database.execute(_WHOLE)
        return self._count("staged")

    def todo(self) -> int:
        """How many of the wanted objects have not all their rows written."""
        self.database.execute(
            "create or replace table todo as"
            " select * from wanted anti join whole using (uri, etag) order by uri"
        )
        return self._count("todo")

    def rounds(self) -> Iterator[pa.Table]:
        """The objects of `todo` in the order of their URIs, some at a time."""
        found = self.database.cursor().sql("from todo order by uri")
        for batch in found.to_arrow_reader(ROUND):
            yield pa.Table.from_batches([batch])

    def check(self) -> None:
        """RuntimeError unless every wanted object has all its rows."""
        missing = self.todo()
        if missing:
            raise RuntimeError(
                f"{missing} of {self._count('wanted')} objects have no row: run the same command"
                " again, which does what is missing"
            )

    def change(self, rows: DeltaTable) -> Change:
        """What is to be committed on top of this version of the table.

        Files whose rows all count stay as they were written; of others a copy is made without the
        rows that do not. The same holds for the table's files that lose rows to newer ones.
        """
        self.database.execute(_KEPT)
        added, removed = [], []
        written = dict(self._rows("select file, count(*) from staged group by file"))
        for name, count in self._rows("select file, count(*) from kept group by file"):
            if count == written[name]:
                added.append(self.files[name])
                continue
            stays = {nth for (nth,) in self._rows("select nth from kept where file = ?", name)}
            added.append(self._copied(name, partial(_only, stays)))
        for name, gone in self._superseded(rows):
            removed.append(name)
            if gone < table.rows_in(self.place, name):
                uris = [uri for (uri,) in self._rows("select uri from gone where file = ?", name)]
                added.append(self._copied(name, partial(_without, pa.array(uris))))
        used = {f"{table.ROWS}/{one.path}" for one in added}
        left = [name for name in self.place.list(f"{self.run.rows}/") if name not in used]
        return Change(added, removed, left)

    def publish(self) -> None:
        """Commit the run's rows; RuntimeError where wanted objects lack rows.

        Where another commit came between, the change is made out anew on top of it.
        """
        self.check()
        for _ in range(ATTEMPTS):
            rows = table.opened(self.place)
            if table.is_published(rows, self.run.run_id):
                return
            change = self.change(rows)
            runs.note_leftovers(self.place, self.run, change.leftovers)
            nothing = not change.added and not change.removed
            if nothing or table.commit(
                self.place, rows, change.added, change.removed, run_id=self.run.run_id
            ):
                return
        raise RuntimeError(f"{self.place.uri} is changed by others all the time: run again later")

    def lacking(self, rows: DeltaTable) -> dict[str, int]:
        """How many listed objects that have their rows were screened without one of the run's
        extras."""
        if not self.run.extras:
            return {}
        self.database.register("present", table.stream(rows, ["uri", "etag", "run_id"]))
        found = self._rows(
            "select run_id, count(distinct uri) from present semi join listed using (uri, etag)"
            " anti join wanted using (uri, etag) group by run_id"
        )
        self.database.unregister("present")
        lacking: dict[str, int] = {}
        for run_id, objects in found:
            run = runs.read(self.place, run_id)
            for extra in self.run.extras:
                if run is None or extra not in run.extras:
                    lacking[extra] = lacking.get(extra, 0) + objects
        return lacking

    def _superseded(self, rows: DeltaTable) -> list[tuple]:
        """How many rows of which of the table's files have newer ones now."""
        if not self._count("kept"):
            return []
        self.database.register("present", table.stream(rows, ["uri", "__filename"]))
        self.database.execute(
            "create or replace temp table gone as select __filename as file, uri from present"
            " semi join kept using (uri)"
        )
        self.database.unregister("present")
        return self._rows("select file, count(*) from gone group by file")

    def _copied(self, name: str, change: Changed) -> AddAction:
        token = hashlib.sha256(name.encode()).hexdigest()[:16] + secrets.token_hex(4)
        return revised(self.place, name, f"{self.run.run_id}/kept-{token}.parquet", change)

    def _ids_of(self, system: "pa.fs.FileSystem", name: str) -> pa.Table | None:
        try:
            with system.open_input_file(name) as file:
                parquet = pq.ParquetFile(file)
                ids = parquet.read(columns=IDS)
                self.files[name] = table.action(name, file.size(), parquet.metadata)
        except (pa.ArrowInvalid, FileNotFoundError) as error:
            log.warning("%s cannot be read (%s): its pictures are screened anew", name, error)
            self.place.delete(f"{table.ROWS}/{name}")
            return None
        rows = ids.num_rows
        ids = ids.add_column(0, "nth", pa.array(range(rows), pa.int32()))
        return ids.add_column(0, "file", pa.array([name] * rows, pa.string()))

    def _count(self, name: str) -> int:
        return self._rows(f"select count(*) from {name}")[0][0]

    def _rows(self, query: str, *values: str) -> list[tuple]:
        return self.database.execute(query, list(values)).fetchall()


def _only(stays: set[int], batch: pa.RecordBatch, start: int) -> pa.RecordBatch:
    return batch.filter(pa.array([start + i in stays for i in range(batch.num_rows)]))


def _without(uris: pa.Array, batch: pa.RecordBatch, _: int) -> pa.RecordBatch:
    return batch.filter(pc.invert(pc.is_in(batch["uri"], uris.cast(batch["uri"].type))))
