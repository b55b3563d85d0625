"""The batches of columns between the stages, and access to their rows.

Every row passes every stage. A row whose status is not "ok" passes unchanged, with a blank picture.
Batches contain no nulls: what is undefined is NaN, "" or 0, and `light.Measure` writes the nulls.
"""

import numpy as np

from fundus.field.roi import Roi
from fundus.ledger import row

Batch = dict[str, np.ndarray]


def ok(batch: Batch) -> np.ndarray:
    """Whether the status of each row is "ok"."""
    return batch["status"] == row.OK


def indices(batch: Batch) -> list[int]:
    """The indices of the rows whose status is "ok"."""
    return np.flatnonzero(ok(batch)).tolist()


def writable(batch: Batch) -> Batch:
    """The batch with copies of its text columns, because Ray's are shared and read-only."""
    return batch | {n: batch[n].astype(object) for n in ("status", "error", "laterality", "flags")}


def fail_row(batch: Batch, i: int, status: str, reason: str = "") -> None:
    """Give a row another status than "ok", and the reason."""
    batch["status"][i], batch["error"][i] = status, reason


def roi_columns(located: list[Roi | None]) -> Batch:
    """ROIs as columns, in pixels of the original frame; NaN for None."""
    corners = [(r.x, r.y, r.size) if r else (np.nan,) * 3 for r in located]
    x, y, size = np.array(corners, float).reshape(-1, 3).T
    return {"roi_x": x, "roi_y": y, "roi_size": size}


def roi_of(batch: Batch, i: int) -> Roi:
    """The ROI of one row."""
    return Roi(*(float(batch[name][i]) for name in ("roi_x", "roi_y", "roi_size")))


def tensors(arrays: list[np.ndarray]) -> np.ndarray:
    """Arrays of several shapes as one object column."""
    column = np.empty(len(arrays), object)
    for i, array in enumerate(arrays):
        column[i] = array
    return column
