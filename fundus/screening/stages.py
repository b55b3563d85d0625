"""The stages of screening: each takes a batch of columns (dict of numpy arrays) and adds some.

Every row passes every stage. A row whose status is no longer "ok" goes through untouched, with a
blank picture. On the way nothing is null (undefined is NaN, "" or 0); `measure` writes the nulls.
"""

import hashlib
import io
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray import ObjectRef

from fundus.anatomy.postprocess import NO_DISC
from fundus.anatomy.risk import RiskModel
from fundus.images import quality, roi
from fundus.images.decode import Refused
from fundus.images.fov import field_of_view
from fundus.images.laterality import of_anatomy
from fundus.images.picture import Picture
from fundus.images.roi import Roi
from fundus.images.sandbox import Decoder
from fundus.ledger import row
from fundus.ledger.runs import Run
from fundus.models.bundle import Thresholds
from fundus.models.measuring import Measured, measure_maps
from fundus.models.predictor import Predictor
from fundus.screening import metrics
from fundus.screening.settings import Screening
from fundus.storage.entries import Entry
from fundus.storage.fetch import FetchFailed, fetch_many, retries
from fundus.storage.places import open_place

Batch = dict[str, np.ndarray]

BLANK = Picture(np.zeros((1, 1, 3), np.uint8))
"""The picture of a row that has none. Ray's tensor columns do not hold arrays without elements."""
POOR = "poor_quality"
ENTRY = ("source", "etag", "size", "status", "error")
"""The columns that make an `Entry`, in its order."""
AT_ONCE = 8
"""Objects that one reader fetches at the same time."""


class Read:
    """source, uri, etag, size, status, error -> a row a picture: fetched, decoded and graded.

    + frame, frames, width, height, image (HWC uint8 RGB, upright), quality (0 to 1), poor, and what
    the file says of the picture: laterality, spacing_mm, subject, header. Entries that the
    inventory refused keep its status. Nothing but a bad object is caught here.
    """

    def __init__(self, config: Screening, subject_key: bytes | None) -> None:
        self.config, self.subject_key, self.decode = config, subject_key, Decoder()

    def __call__(self, batch: Batch) -> Batch:
        listed = zip(*(batch[name] for name in ENTRY), strict=True)
        rows, before = [], retries()
        for i, content in fetch_many([Entry(*one) for one in listed], AT_ONCE):
            known = {"uri": batch["uri"][i], "etag": batch["etag"][i]}
            try:
                if isinstance(content, FetchFailed):
                    raise content
                found = self.decode(
                    content,
                    subject_key=self.subject_key,
                    keep_header=bool(self.config.dicom_out),
                )
            except (FetchFailed, Refused) as refusal:
                failed = {"status": refusal.status, "error": refusal.reason}
                rows.append(known | _columns_of_picture(BLANK) | failed | {"width": 0, "height": 0})
                continue
            rows += [
                known | _columns_of_picture(one, len(found)) | self._grade(one) for one in found
            ]
        metrics.count_pictures("read", len(rows))
        metrics.count_retries("fetch", retries() - before)
        return _as_columns(rows)

    def _grade(self, picture: Picture) -> dict[str, Any]:
        if self.config.gradability == "off":
            return {}
        found = quality.assess(picture.pixels, crop=self.config.crops)
        graded: dict[str, Any] = {"quality": found.score, "poor": found.reason is not None}
        if found.reason and self.config.gradability == "refuse":
            graded |= {"status": "ungradable", "error": found.reason}
        return graded


class Locate:
    """image -> + disc_confidence, roi_x, roi_y, roi_size (pixels of the original frame), and the
    laterality where the file did not say it and the place of the disc does.

    Detected in frames; disc crops are taken whole and have no confidence (NaN).
    """

    def __init__(self, bundle: ObjectRef, crops: bool) -> None:
        self.predictor = Predictor(ray.get(bundle))
        self.crops = crops

    def __call__(self, batch: Batch) -> Batch:
        batch = _writable(batch)
        confidence = np.full(len(batch["uri"]), np.nan)
        located: list[Roi | None] = [None] * len(confidence)
        source = np.where(batch["laterality"] == "", "", "dicom").astype(object)
        for i in _indices(batch):
            image = batch["image"][i]
            if self.crops:
                located[i] = roi.whole(*image.shape[:2])
                continue
            (detection,) = self.predictor.detect([image])
            confidence[i], located[i] = detection.confidence, detection.roi
            if detection.roi is None:
                reason = f"no disc was found (confidence {detection.confidence:.2f})"
                _say(batch, i, "no_disc", reason)
            elif not source[i] and (side := self._eye(image, detection.roi)):
                batch["laterality"][i], source[i] = side, "anatomy"
        metrics.count_pictures("locate", len(confidence))
        found = {"disc_confidence": confidence, "laterality_source": source}
        return batch | found | _roi_columns(located)

    def _eye(self, image: np.ndarray, where: Roi) -> str | None:
        field = field_of_view(image)
        diameter = where.size / self.predictor.preprocessing.roi_scale
        middle = (where.x + where.size / 2, where.y + where.size / 2)
        return of_anatomy(field, *middle, diameter) if field else None


def crop(batch: Batch, *, side: int) -> Batch:
    """image, roi_x, roi_y, roi_size -> crop ((side, side, 3) uint8 RGB) in place of image."""
    crops = np.zeros((len(batch["uri"]), side, side, 3), np.uint8)
    for i in _indices(batch):
        crops[i] = roi.crop(batch["image"][i], _roi_of(batch, i), side)
    return {name: batch[name] for name in batch if name != "image"} | {"crop": crops}


class Segment:
    """crop -> maps ((networks x turns, 2, side, side) float32 probabilities) in place of crop."""

    def __init__(self, bundle: ObjectRef) -> None:
        self.predictor = Predictor(ray.get(bundle))

    def __call__(self, batch: Batch) -> Batch:
        ok = _ok(batch)
        maps = [np.zeros((1, 1, 1, 1), np.float32)] * len(ok)
        if ok.any():
            found = self.predictor.segment(batch["crop"][ok])
            for i, some in zip(_indices(batch), found, strict=True):
                maps[i] = some
        metrics.count_pictures("segment", len(ok))
        return {name: batch[name] for name in batch if name != "crop"} | {"maps": _tensors(maps)}


@dataclass(frozen=True)
class Measure:
    """All columns so far -> rows as `row.SCHEMA` has them, undefined values null.

    With `keep_header` the column `header` comes along, for the DICOM objects.
    """

    thresholds: Thresholds
    risk: RiskModel | None
    run: Run
    keep_header: bool = False

    def __call__(self, batch: Batch) -> pa.Table:
        batch = _writable(batch)
        measured: list[dict] = [{} for _ in batch["uri"]]
        for i in _indices(batch):
            side = batch["laterality"][i] or None
            eye = measure_maps(batch["maps"][i], _roi_of(batch, i), self.thresholds, side)
            measured[i] = _columns_of(eye, self.risk, batch["spacing_mm"][i])
            measured[i]["flags"] += [POOR] if batch["poor"][i] else []
            if NO_DISC in eye.flags:
                _say(batch, i, "no_disc", "the segmenter found no disc in the ROI")
        columns = {name: batch[name].tolist() for name in ("uri", "etag", "frame", "frames")}
        columns["status"] = batch["status"].tolist()
        for name in ("error", "subject", "laterality", "laterality_source"):
            columns[name] = [str(text) or None for text in batch[name]]
        for name in ("width", "height"):
            columns[name] = [int(value) or None for value in batch[name]]
        for name in ("quality", "disc_confidence", "roi_x", "roi_y", "roi_size"):
            columns[name] = [None if np.isnan(value) else float(value) for value in batch[name]]
        for name in sorted({name for one in measured for name in one}):
            columns[name] = [one.get(name) for one in measured]
        for status, number in Counter(columns["status"]).items():
            metrics.count_rows(status, number)
        rows = row.table(columns, self.run.run_id, self.run.bundle, self.run.settings)
        if self.keep_header:
            rows = rows.append_column("header", pa.array(batch["header"].tolist(), pa.binary()))
        return rows


class Write:
    """Rows -> one Parquet file in the run's folder; returns what the driver counts: status.

    A file is named after its rows: a batch that is written again, after its process died, replaces
    its own file.
    """

    def __init__(self, results: str, run: Run) -> None:
        self.results, self.run = results, run

    def __call__(self, rows: pa.Table) -> pa.Table:
        rows = rows.cast(row.schema(self.run.run_id, self.run.bundle))
        identity = repr(rows.select(["uri", "etag", "frame"]).to_pydict()).encode()
        sink = io.BytesIO()
        pq.write_table(rows, sink, compression="zstd")
        name = hashlib.sha256(identity).hexdigest()[:32]
        open_place(self.results).put(f"{self.run.staged}/{name}.parquet", sink.getvalue())
        return rows.select(["status"])


def _columns_of_picture(one: Picture, frames: int = 1) -> dict:
    """A row's columns as long as nothing is wrong with it."""
    return {
        "status": row.OK,
        "error": "",
        "frame": one.frame,
        "frames": frames,
        "height": one.pixels.shape[0],
        "width": one.pixels.shape[1],
        "laterality": one.laterality or "",
        "spacing_mm": one.pixel_spacing[0] if one.pixel_spacing else np.nan,
        "subject": one.subject or "",
        "header": one.header or b"",
        "quality": np.nan,
        "poor": False,
        "image": one.pixels,
    }


def _as_columns(rows: list[dict]) -> Batch:
    """Rows as columns: text and bytes as objects, pictures of several shapes too."""
    columns = {name: [one[name] for one in rows] for name in rows[0]}
    images = _tensors(columns.pop("image"))
    return {
        name: np.array(values, object if isinstance(values[0], str | bytes) else None)
        for name, values in columns.items()
    } | {"image": images}


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


def _ok(batch: Batch) -> np.ndarray:
    return batch["status"] == row.OK


def _indices(batch: Batch) -> list[int]:
    return np.flatnonzero(_ok(batch)).tolist()


def _writable(batch: Batch) -> Batch:
    """The batch with texts as columns of its own: Ray's are shared and read-only."""
    return batch | {n: batch[n].astype(object) for n in ("status", "error", "laterality")}


def _say(batch: Batch, i: int, status: str, reason: str = "") -> None:
    batch["status"][i], batch["error"][i] = status, reason


def _roi_columns(located: list[Roi | None]) -> Batch:
    corners = [(r.x, r.y, r.size) if r else (np.nan,) * 3 for r in located]
    x, y, size = np.array(corners, float).reshape(-1, 3).T
    return {"roi_x": x, "roi_y": y, "roi_size": size}


def _roi_of(batch: Batch, i: int) -> Roi:
    return Roi(*(float(batch[name][i]) for name in ("roi_x", "roi_y", "roi_size")))


def _tensors(arrays: list[np.ndarray]) -> np.ndarray:
    """Arrays of several shapes as one object column."""
    column = np.empty(len(arrays), object)
    for i, array in enumerate(arrays):
        column[i] = array
    return column
