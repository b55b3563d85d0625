"""The reference of a bundle: rows of its source in `reference.parquet`, to compare with nights."""

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
    """Make rows the reference of a bundle, and return their number.

    Screen the pictures that the bundle learned from, then call this. The reference contains no URI
    and no subject.

    Args:
        results: folder or s3:// URI of the rows.
        bundle: folder or s3:// URI of the bundle, which gets `reference.parquet`.
        measuring: the bundle's `measuring`; rows that other networks measured are left out.

    Raises:
        ConfigurationError: there are no rows of this bundle.
    """
    rows = table.read(results, list(COLUMNS))
    rows = rows.filter(pc.equal(rows["measuring"], measuring))
    if not rows.num_rows:
        raise ConfigurationError(
            f"{results} has no rows that the networks of {bundle} measured: screen the pictures"
            " that the bundle learned from with this bundle first"
        )
    anonymous = rows.set_column(
        rows.schema.get_field_index("subject"), "subject", pa.nulls(rows.num_rows, pa.string())
    )
    sink = io.BytesIO()
    pq.write_table(anonymous, sink, compression="zstd")
    place_at(bundle).put(NAME, sink.getvalue())
    return rows.num_rows


def load(bundle: str) -> pa.Table | None:
    """Load the reference of the bundle at a path or s3:// URI; None if it has none."""
    found = place_at(bundle).read(NAME)
    return pq.read_table(io.BytesIO(found[0])) if found else None
