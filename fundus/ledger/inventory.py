"""The inventory of one run: every object that was listed, on the driver's disk and in the results.

The driver's copy has `source`, the URI of the bytes. The copy in the results has only `uri`, which
is the same URI or a pseudonym of it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fundus.archive.entries import Entry

_TEXT = pa.large_string()
LISTED = pa.schema(
    [
        pa.field("uri", _TEXT, nullable=False),
        pa.field("etag", _TEXT, nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("status", _TEXT, nullable=False),
        pa.field("error", _TEXT, nullable=False),
    ]
)
WORKING = LISTED.insert(0, pa.field("source", _TEXT, nullable=False))
BATCH = 10_000
GROUP_ROWS = 100_000


@dataclass(frozen=True)
class Inventory:
    """The listed objects, in two Parquet files."""

    file: Path
    """The columns of `WORKING`, for this machine alone."""
    listed: Path
    """The columns of `LISTED`, for the results."""
    objects: int

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The columns of `WORKING`, at most `BATCH` objects at a time."""
        return pq.ParquetFile(self.file).iter_batches(BATCH)


def write(
    entries: Iterable[Entry], folder: Path, shown: Callable[[str], str], limit: int | None = None
) -> Inventory:
    """Write entries to `working.parquet` and `listed.parquet`, in constant memory.

    Args:
        entries: the listed objects.
        folder: where the two files are written.
        shown: makes the URI that rows carry from the URI of the object.
        limit: write only the first entries; None for all.
    """
    working, listed = folder / "working.parquet", folder / "listed.parquet"
    count = 0
    with (
        pq.ParquetWriter(working, WORKING, compression="zstd") as here,
        pq.ParquetWriter(listed, LISTED, compression="zstd") as for_results,
    ):
        wanted = islice(entries, limit)
        while some := list(islice(wanted, BATCH)):
            table = pa.Table.from_pydict(_columns_of(some, shown), WORKING)
            here.write_table(table)
            for_results.write_table(table.select(LISTED.names))
            count += len(some)
    return Inventory(working, listed, count)


def _columns_of(some: list[Entry], shown: Callable[[str], str]) -> dict[str, list]:
    return {
        "source": [entry.uri for entry in some],
        "uri": [shown(entry.uri) for entry in some],
        "etag": [entry.etag for entry in some],
        "size": [entry.size for entry in some],
        "status": [entry.status for entry in some],
        "error": [entry.error for entry in some],
    }
