"""The current rows of a results place: one row for each picture."""

import pyarrow as pa

from fundus.errors import ConfigurationError
from fundus.ledger import current as pointer
from fundus.ledger import row, runs
from fundus.storage.places import open_place


def read(place: str, columns: list[str] | None = None, version: int | None = None) -> pa.Table:
    """Read the current rows.

    Args:
        place: folder or s3:// URI that a screening wrote into.
        columns: only these; None for all.
        version: the rows as they were at that version of the table; None for the newest.

    Returns:
        One row for each picture, columns as `fundus.ledger.row.SCHEMA` has them.

    Raises:
        ConfigurationError: nothing was published there, or older versions are not kept.
    """
    if version is not None:
        raise ConfigurationError("this results place keeps no older versions")
    opened = open_place(place)
    found, etag = pointer.read(opened)
    if etag is None:
        raise ConfigurationError(f"{opened.uri} holds no results yet: screen into it first")
    return runs.read_current(opened, found, columns or row.SCHEMA.names)
