"""Results as a table with one row per picture; masks are decoded on demand."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa

from fundus.errors import ConfigurationError
from fundus.field import roi
from fundus.field.roi import Roi
from fundus.ledger import row, table

if TYPE_CHECKING:
    import pandas

MASK = "mask_png"


@dataclass(frozen=True, eq=False)
class Results:
    """The current rows of the results. Masks are decoded on demand."""

    table: pa.Table
    """The rows, with the columns of `fundus.ledger.row.SCHEMA`."""

    def __len__(self) -> int:
        return self.table.num_rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows as dictionaries."""
        for batch in self.table.to_batches():
            yield from batch.to_pylist()

    def to_pandas(self) -> "pandas.DataFrame":
        """The rows as a DataFrame, without the masks; needs pandas."""
        columns = [name for name in self.table.column_names if name != MASK]
        return self.table.select(columns).to_pandas()

    def mask(self, number: int, *, in_frame: bool = False) -> np.ndarray | None:
        """The mask of one row, numbered from 0 as in the table; None if nothing was measured.

        (S, S) uint8 {0 background, 1 rim, 2 cup} in ROI coordinates; with `in_frame` (H, W) in
        pixels of the original frame. IndexError if there is no such row.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        one = self.table.slice(number, 1).to_pylist()[0]
        return None if one[MASK] is None else mask_of(one, in_frame=in_frame)


def read_results(place: str, *, columns: list[str] | None = None) -> Results:
    """Read the current rows of the results.

    Args:
        place: folder or s3:// URI of the results.
        columns: read only these; None for all. Masks need mask_png, and in the frame also roi_x,
            roi_y, roi_size, height and width.

    Returns:
        One row per picture of every object of the archive, including failures.

    Raises:
        ConfigurationError: there are no results yet, or a column is unknown.
    """
    unknown = sorted(set(columns or ()) - set(row.SCHEMA.names))
    if unknown:
        raise ConfigurationError(f"a row has no column {unknown[0]!r}")
    return Results(table.read(place, columns))


def mask_of(one: Mapping[str, Any], *, in_frame: bool = False) -> np.ndarray:
    """The mask of a row that has one, in ROI or original coordinates."""
    mask = cv2.imdecode(np.frombuffer(one[MASK], np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask is not None, "the row's mask is no PNG"
    if not in_frame:
        return mask
    where = Roi(one["roi_x"], one["roi_y"], one["roi_size"])
    return roi.restore(mask, where, one["height"], one["width"])
