"""The bundle's source as rows: `reference.parquet` beside the bundle, to compare nights with."""

import io

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fundus.drift.nights import COLUMNS
from fundus.errors import ConfigurationError
from fundus.ledger import table
from fundus.storage.places import place_at

NAME = "reference.parquet"


def save(results: str, bundle: str, measuring: str) -> int:
    """Make the rows of a results place the reference of a bundle; their count.

    Screen the pictures that the bundle learned from, then call this. The reference holds no URI
    and no subject.

    Args:
        results: folder or s3:// URI of the rows.
        bundle: folder or s3:// URI of the bundle, which gets `reference.parquet`.
        measuring: the bundle's `measuring`; rows that other networks measured are left out.

    Raises:
        ConfigurationError: no row is left.
    """
    rows = table.read(results, list(COLUMNS))
    rows = rows.filter(pc.equal(rows["measuring"], measuring))
    if not rows.num_rows:
        raise ConfigurationError(
            f"{results} holds no rows that the networks of {bundle} measured: screen its source"
            " with it first"
        )
    anonymous = rows.set_column(
        rows.schema.get_field_index("subject"), "subject", pa.nulls(rows.num_rows, pa.string())
    )
    sink = io.BytesIO()
    pq.write_table(anonymous, sink, compression="zstd")
    place_at(bundle).put(NAME, sink.getvalue())
    return rows.num_rows


def load(bundle: str) -> pa.Table | None:
    """The reference of the bundle at a path or s3:// URI; None where it has none."""
    found = place_at(bundle).read(NAME)
    return pq.read_table(io.BytesIO(found[0])) if found else None
