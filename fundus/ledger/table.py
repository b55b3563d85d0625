"""The results as a Delta table: opening it, reading it, and committing files to it.

    <results>/rows/_delta_log/                the table's own log
    <results>/rows/<run_id>/<name>.parquet    files of rows; the log lists the current ones

A commit removes files and adds others in one transaction, and only on top of the version for which
it was planned. If another commit came in between, the plan is made again.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, WriterProperties
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction, RemoveAction
from pyarrow import fs

from fundus.errors import ConfigurationError
from fundus.ledger import row
from fundus.storage.places import Place, open_place
from fundus.storage.retry import PATIENT, Passing, patiently

T = TypeVar("T")
ROWS = "rows"
PROPERTIES = {
    "delta.deletedFileRetentionDuration": "interval 90 days",
    "delta.logRetentionDuration": "interval 365 days",
    "delta.dataSkippingStatsColumns": ",".join(row.SKIP_BY),
}
"""Removed files stay for 90 days, so that `version=` finds older rows."""
FILE_BYTES = 128 << 20
"""Approximate size of a file into which small ones are merged."""
SMALL_FILES = 200
"""Number of files below half of FILE_BYTES from which they are merged."""
BROKEN_OFF = "response body"
"""Part of deltalake's message about an answer that ended too early."""
FORMER = "current.json"
"""The index of results of version 0.1."""


def read(
    place: str,
    columns: list[str] | None = None,
    version: int | None = None,
    where: pc.Expression | None = None,
) -> pa.Table:
    """Read the current rows.

    Args:
        place: folder or s3:// URI of the results.
        columns: read only these; None for all.
        version: read the rows of this version of the table; None for the newest.
        where: read only the rows that satisfy it; others are never held in memory.

    Returns:
        One row per picture with the columns of `fundus.ledger.row.SCHEMA`; texts are
        `large_string`.

    Raises:
        ConfigurationError: there are no results yet, or no such version.
    """
    found = open_place(place)
    table = find(found)
    if table is None or not table.version():
        raise ConfigurationError(
            f"{found.uri} holds no results yet: screen an archive into it with jobs/screen.py"
        )
    if version is not None:
        newest = table.version()
        try:
            table.load_as_version(version)
        except Exception as error:
            raise ConfigurationError(
                f"{found.uri} has no version {version}: the newest is {newest}"
            ) from error
    return scanned(table).to_table(columns=columns, filter=where)


def find(place: Place) -> DeltaTable | None:
    """Open the table of a results location; None before the first run.

    Raises:
        ConfigurationError: the results have the format of version 0.1.
    """
    if place.read(FORMER):
        raise ConfigurationError(
            f"{place.uri} holds results of version 0.1, which this version does not read: give"
            " another location as --results, and the archive is screened into it"
        )
    uri, options = address(place)
    try:
        return _patiently(lambda: DeltaTable(uri, storage_options=options))
    except TableNotFoundError:
        return None


def opened(place: Place) -> DeltaTable:
    """Open the table; create it or add columns so that it has every column of `row.SCHEMA`."""
    table = find(place)
    if table is None:
        uri, options = address(place)
        table = _patiently(
            lambda: DeltaTable.create(
                uri, row.SCHEMA, mode="ignore", configuration=PROPERTIES, storage_options=options
            )
        )
    known = {field.name for field in table.schema().fields}
    missing = [field for field in Schema.from_arrow(row.SCHEMA).fields if field.name not in known]
    if missing:
        table.alter.add_columns(missing)
    return table


def _patiently(work: Callable[[], T]) -> T:
    """Retry `work` if an answer of the storage breaks off; deltalake retries only whole requests.

    `work` may run twice, because the answer to a successful request may be lost.
    """

    def attempt() -> T:
        try:
            return work()
        except (OSError, DeltaError) as error:
            if BROKEN_OFF not in str(error):
                raise
            raise Passing(f"the storage broke off its answer: {error}") from error

    return patiently(attempt, PATIENT)


def address(place: Place) -> tuple[str, dict[str, str]]:
    """The table's URI and deltalake's `storage_options` for it."""
    rows = place.join(ROWS)
    return rows.uri, rows.delta_options()


def files(place: Place) -> fs.FileSystem:
    """The table's folder as a file system of pyarrow, through the same client as the table."""
    return fs.PyFileSystem(DeltaStorageHandler(*address(place)))


def paths(table: DeltaTable) -> list[str]:
    """The current files, as paths below the table."""
    return pa.table(table.get_add_actions())["path"].to_pylist()


def scanned(table: DeltaTable) -> "pa.dataset.Dataset":
    """The current rows as a dataset, with the descriptions of the columns."""
    return table.to_pyarrow_dataset(as_large_types=True)


def stream(table: DeltaTable, columns: Sequence[str], **how: object) -> pa.RecordBatchReader:
    """Read columns of the current rows, a few files at a time."""
    scanner = scanned(table).scanner(
        columns=list(columns), batch_readahead=4, fragment_readahead=2, **how
    )
    return scanner.to_reader()


def commit(
    place: Place,
    table: DeltaTable,
    added: Sequence[AddAction],
    removed: Sequence[str],
    *,
    run_id: str,
) -> bool:
    """Add and remove files in one transaction on top of this version of the table.

    The same transaction marks the run as published (`is_published`).

    Args:
        place: the results location.
        table: the table, at the version for which the commit was planned.
        added: files to add.
        removed: paths of files to remove.
        run_id: the run that is published.

    Returns:
        Whether the run is published. False if another commit came in between: then nothing changed.
    """
    now = int(time.time() * 1000)
    gone = [RemoveAction(path, True, now) for path in removed]
    # Never on top of another version: the library would let two appends pass, and a picture could
    # get two rows.
    about = CommitProperties(
        app_transactions=[Transaction(run_id, table.version() + 1, now)], max_commit_retries=0
    )
    try:
        _patiently(
            lambda: table.create_write_transaction(
                [*added, *gone], "append", table.schema(), commit_properties=about
            )
        )
    except CommitFailedError:
        newest = find(place)
        if newest is None or newest.version() == table.version():
            raise
        return is_published(newest, run_id)
    return True


def is_published(table: DeltaTable, run_id: str) -> bool:
    """Whether the run's rows have been committed."""
    return table.transaction_version(run_id) is not None


def is_newest(table: DeltaTable, run_id: str) -> bool:
    """Whether the run's commit is the newest one."""
    return table.transaction_version(run_id) == table.version()


def action(path: str, size: int, about: pq.FileMetaData) -> AddAction:
    """The log's entry for a file, with the statistics by which readers skip it.

    Args:
        path: below the table.
        size: bytes.
        about: the file's Parquet metadata.
    """
    found: dict[str, list[pq.Statistics]] = {}
    for group in map(about.row_group, range(about.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema in row.SKIP_BY and column.statistics:
                found.setdefault(column.path_in_schema, []).append(column.statistics)
    known = {name: [one for one in all_ if one.has_min_max] for name, all_ in found.items()}
    stats = {
        "numRecords": about.num_rows,
        "minValues": {name: min(one.min for one in some) for name, some in known.items() if some},
        "maxValues": {name: max(one.max for one in some) for name, some in known.items() if some},
        "nullCount": {name: sum(one.null_count for one in all_) for name, all_ in found.items()},
    }
    return AddAction(path, size, {}, int(time.time() * 1000), True, json.dumps(stats))


def tidy(place: Place) -> int:
    """Merge small files, and delete files that have not been current for 90 days.

    Readers notice nothing, and being killed in between does no harm.

    Returns:
        The number of files that were merged into others.
    """
    table = find(place)
    if table is None:
        return 0
    sizes = pa.table(table.get_add_actions())["size_bytes"].to_pylist()
    if sum(size < FILE_BYTES // 2 for size in sizes) < SMALL_FILES:
        return 0
    done = table.optimize.compact(
        target_size=FILE_BYTES,
        max_concurrent_tasks=1,
        writer_properties=WriterProperties(compression="ZSTD"),
    )
    table.vacuum(dry_run=False, full=True)
    return done["numFilesRemoved"]
