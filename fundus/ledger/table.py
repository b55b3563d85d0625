"""The results as a Delta table: opening it, reading it, and committing files to it.

    <results>/rows/_delta_log/                the table's own log
    <results>/rows/<run_id>/<name>.parquet    files of rows; the log says which are current

A commit takes files away and brings others in one transaction, and only on top of the version that
it was planned for: where another commit came between, the plan is made again.
"""

import json
import time
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction, RemoveAction
from pyarrow import fs

from fundus.errors import ConfigurationError
from fundus.ledger import row
from fundus.storage.places import FolderPlace, Place, open_place

ROWS = "rows"
PROPERTIES = {
    "delta.deletedFileRetentionDuration": "interval 90 days",
    "delta.logRetentionDuration": "interval 365 days",
    "delta.dataSkippingStatsColumns": ",".join(row.SKIP_BY),
}
"""How long `version=` finds older rows: files that were taken away stay 90 days."""
FILE_BYTES = 128 << 20
"""About so much goes into one file when small ones are put together."""
SMALL_FILES = 200
"""So many files below half of FILE_BYTES are put together."""
FORMER = "current.json"
"""What results places of version 0.1 were read by."""


def read(place: str, columns: list[str] | None = None, version: int | None = None) -> pa.Table:
    """Read the current rows.

    Args:
        place: folder or s3:// URI that a screening wrote into.
        columns: only these; None for all.
        version: the rows as they were at that version of the table; None for the newest.

    Returns:
        One row for each picture, columns as `fundus.ledger.row.SCHEMA` has them, texts as
        `large_string`.

    Raises:
        ConfigurationError: nothing was published there, or no such version is kept.
    """
    found = open_place(place)
    table = find(found)
    if table is None or not published(table):
        raise ConfigurationError(f"{found.uri} holds no results yet: screen into it first")
    if version is not None:
        try:
            table.load_as_version(version)
        except Exception as error:
            raise ConfigurationError(f"{found.uri} has no version {version}") from error
    return scanned(table).to_table(columns=columns)


def find(place: Place) -> DeltaTable | None:
    """The table of a results place; None before the first run.

    ConfigurationError for results of version 0.1, which had another format.
    """
    if place.read(FORMER):
        raise ConfigurationError(
            f"{place.uri} holds results of version 0.1, which this version does not read: give"
            " --results another place, and the archive is screened into it"
        )
    uri, options = address(place)
    try:
        return DeltaTable(uri, storage_options=options)
    except TableNotFoundError:
        return None


def opened(place: Place) -> DeltaTable:
    """The table, made or widened so that it has every column of `row.SCHEMA`."""
    table = find(place)
    if table is None:
        uri, options = address(place)
        table = DeltaTable.create(
            uri, row.SCHEMA, mode="ignore", configuration=PROPERTIES, storage_options=options
        )
    known = {field.name for field in table.schema().fields}
    missing = [field for field in Schema.from_arrow(row.SCHEMA).fields if field.name not in known]
    if missing:
        table.alter.add_columns(missing)
    return table


def published(table: DeltaTable) -> bool:
    """Whether a run has been published."""
    return bool(table.version())


def address(place: Place) -> tuple[str, dict[str, str]]:
    """The table's URI, and how deltalake reaches it."""
    rows = place.join(ROWS)
    if isinstance(rows, FolderPlace):
        return str(rows.folder), {}
    return rows.uri, rows.delta_options()


def files(place: Place) -> fs.FileSystem:
    """The table's folder, as pyarrow opens files in it: the same client as the table's own."""
    uri, options = address(place)
    return fs.PyFileSystem(DeltaStorageHandler(uri, options))


def rows_in(place: Place, path: str) -> int:
    """How many rows a file has; its path below the table."""
    with files(place).open_input_file(path) as file:
        return pq.ParquetFile(file).metadata.num_rows


def scanned(table: DeltaTable) -> "pa.dataset.Dataset":
    """The current rows as a dataset, with the columns' descriptions."""
    return table.to_pyarrow_dataset(as_large_types=True)


def stream(table: DeltaTable, columns: Sequence[str], **how: object) -> pa.RecordBatchReader:
    """Some columns of the current rows, without ever holding more than a few files of them."""
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
    run_id: str | None = None,
) -> bool:
    """Bring files and take others away, in one transaction on top of this version of the table.

    With `run_id` the run is known as published by that very transaction (`is_published`). False
    where another commit came between: nothing has happened then.
    """
    now = int(time.time() * 1000)
    actions: list[AddAction | RemoveAction] = [
        *added,
        *(RemoveAction(path, True, now) for path in removed),
    ]
    marks = [Transaction(run_id, 1, now)] if run_id else []
    try:
        table.create_write_transaction(
            actions,
            "append",
            table.schema(),
            # Never on top of another version: the library would let two appends pass, and a
            # picture could be there twice.
            commit_properties=CommitProperties(app_transactions=marks, max_commit_retries=0),
        )
    except CommitFailedError:
        newest = find(place)
        if newest is None or newest.version() == table.version():
            raise
        return bool(run_id) and is_published(newest, run_id)
    return True


def is_published(table: DeltaTable, run_id: str | None) -> bool:
    """Whether a run's rows have been committed."""
    return run_id is not None and table.transaction_version(run_id) is not None


def action(path: str, size: int, about: pq.FileMetaData) -> AddAction:
    """What the log says of a file (its path below the table, its bytes) for readers to skip it."""
    lowest: dict[str, object] = {}
    highest: dict[str, object] = {}
    nulls: dict[str, int] = {}
    for group in range(about.num_row_groups):
        for number in range(about.num_columns):
            column = about.row_group(group).column(number)
            found, name = column.statistics, column.path_in_schema
            if found is None or name not in row.SKIP_BY:
                continue
            nulls[name] = nulls.get(name, 0) + (found.null_count or 0)
            if found.has_min_max:
                lowest[name] = min(found.min, lowest.get(name, found.min))
                highest[name] = max(found.max, highest.get(name, found.max))
    stats = {
        "numRecords": about.num_rows,
        "minValues": lowest,
        "maxValues": highest,
        "nullCount": nulls,
    }
    return AddAction(path, size, {}, int(time.time() * 1000), True, json.dumps(stats))


def tidy(place: Place) -> int:
    """Put small files together, and delete what has not been current for 90 days; files gone.

    Readers notice nothing, and a death in the midst of it harms nothing.
    """
    table = find(place)
    if table is None:
        return 0
    sizes = pa.table(table.get_add_actions(flatten=True))["size_bytes"].to_pylist()
    if sum(size < FILE_BYTES // 2 for size in sizes) < SMALL_FILES:
        return 0
    done = table.optimize.compact(target_size=FILE_BYTES, max_concurrent_tasks=1)
    table.vacuum(dry_run=False)
    return done["numFilesRemoved"]
