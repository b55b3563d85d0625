"""The stages that need few resources and no torch: crop of the ROI, measures, file."""

import hashlib
import io
from collections import Counter
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fundus.anatomy.postprocess import NO_DISC
from fundus.anatomy.risk import RiskModel
from fundus.field import roi
from fundus.field.quality import LOOK
from fundus.ledger import row
from fundus.ledger.runs import Run
from fundus.models.measuring import Measured, measure_maps
from fundus.models.thresholds import Thresholds
from fundus.runtime import metrics
from fundus.screening.columns import Batch, fail_row, indices, roi_of, writable
from fundus.storage.places import open_place

POOR = "poor_quality"
IN_FILE = [("uri", "ascending"), ("frame", "ascending")]
TEXTS = ("error", "subject", "manufacturer", "model", "laterality", "laterality_source")
REALS = ("quality", *LOOK, "disc_confidence", "roi_x", "roi_y", "roi_size")
"""Columns of the earlier stages, by their substitute for null: "" for TEXTS, NaN for REALS."""


def crop(batch: Batch, *, side: int) -> Batch:
    """image, shrink, roi_x, roi_y, roi_size -> crop ((side, side, 3) uint8 RGB).

    The columns image, shrink and field go.
    """
    crops = np.zeros((len(batch["uri"]), side, side, 3), np.uint8)
    for i in indices(batch):
        where = roi_of(batch, i).times(1 / batch["shrink"][i])
        crops[i] = roi.crop(batch["image"][i], where, side, mirrored=True)
    left = {name: batch[name] for name in batch if name not in ("image", "shrink", "field")}
    return left | {"crop": crops}


@dataclass(frozen=True)
class Measure:
    """All columns so far -> rows of `row.SCHEMA`, with nulls for undefined values.

    With `keep_header` the column `header` stays, for the DICOM objects.
    """

    thresholds: Thresholds
    risk: RiskModel | None
    run: Run
    keep_header: bool = False
    hidden: float | None = 0.0
    """As in `measure_maps`."""

    def __call__(self, batch: Batch) -> pa.Table:
        batch = writable(batch)
        # Flags of decoding also hold for rows that are not measured.
        measured: list[dict] = [{"flags": text.split()} if text else {} for text in batch["flags"]]
        for i in indices(batch):
            if not np.isfinite(batch["maps"][i]).all():
                fail_row(batch, i, "model_failed", "the segmenter's maps are not finite numbers")
                continue
            side = batch["laterality"][i] or None
            where = roi_of(batch, i)
            eye = measure_maps(batch["maps"][i], where, self.thresholds, side, self.hidden)
            measured[i] = _columns_of(eye, self.risk, batch["spacing_mm"][i])
            measured[i]["flags"] += batch["flags"][i].split() + [POOR] * bool(batch["poor"][i])
            if NO_DISC in eye.flags:
                fail_row(batch, i, "no_disc", "the segmenter found no disc in the ROI")
        columns = {name: batch[name].tolist() for name in ("uri", "etag", "frame", "frames")}
        columns["status"] = batch["status"].tolist()
        for name in TEXTS:
            columns[name] = [str(text) or None for text in batch[name]]
        for name in ("width", "height"):
            columns[name] = [int(value) or None for value in batch[name]]
        for name in REALS:
            columns[name] = [None if np.isnan(value) else float(value) for value in batch[name]]
        for name in sorted({name for one in measured for name in one}):
            columns[name] = [one.get(name) for one in measured]
        for status, number in Counter(columns["status"]).items():
            metrics.count_rows(status, number)
        run = self.run
        rows = row.table(columns, run.run_id, run.bundle, run.settings, run.measuring)
        if self.keep_header:
            rows = rows.append_column("header", pa.array(batch["header"].tolist(), pa.binary()))
        return rows


class Write:
    """Rows -> one Parquet file in the run's folder; returns the column status for the driver.

    A file is named after its rows: a batch that is written again, after its process died, replaces
    its own file.
    """

    def __init__(self, results: str, run: Run) -> None:
        self.results, self.run = results, run

    def __call__(self, rows: pa.Table) -> pa.Table:
        rows = rows.cast(row.schema(self.run.run_id, self.run.bundle)).sort_by(IN_FILE)
        identity = repr(rows.select(["uri", "etag", "frame"]).to_pydict()).encode()
        sink = io.BytesIO()
        pq.write_table(rows, sink, compression="zstd")
        name = hashlib.sha256(identity).hexdigest()[:32]
        open_place(self.results).put(f"{self.run.rows}/{name}.parquet", sink.getvalue())
        return rows.select(["status"])


def _columns_of(eye: Measured, model: RiskModel | None, spacing_mm: float) -> dict:
    risk = model.risk(eye.biomarkers.vcdr, eye.vcdr_sd) if model else None
    height_mm = eye.disc_height * spacing_mm if eye.disc_height else np.nan
    return asdict(eye.biomarkers) | {
        "mask_png": None if NO_DISC in eye.flags else _png(eye.mask),
        "vcdr_sd": eye.vcdr_sd,
        "flags": list(eye.flags),
        "risk": risk,
        "referable": model.referable(risk) if model else None,
        "disc_height_mm": None if np.isnan(height_mm) else float(height_mm),
    }


def _png(mask: np.ndarray) -> bytes:
    return cv2.imencode(".png", mask)[1].tobytes()
