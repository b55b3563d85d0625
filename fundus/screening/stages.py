"""The stages of screening: each takes a batch of columns (dict of numpy arrays) and adds some.

Every row passes every stage. A row whose status is no longer "ok" goes through untouched, with a
blank picture. On the way nothing is null (undefined is NaN, "" or 0); `measure` writes the nulls.
"""

from dataclasses import asdict

import cv2
import numpy as np
import pyarrow as pa
import ray
from ray import ObjectRef

from fundus.anatomy.postprocess import NO_DISC
from fundus.anatomy.risk import RiskModel
from fundus.images import roi
from fundus.images.decode import Refused, decode
from fundus.images.roi import Roi
from fundus.models.bundle import Thresholds
from fundus.models.measuring import Measured, measure_maps
from fundus.models.predictor import Predictor
from fundus.screening import row
from fundus.screening.inventory import FetchFailed, fetch

Batch = dict[str, np.ndarray]

BLANK = np.zeros((1, 1, 3), np.uint8)
"""The picture of a row that has none. Ray's tensor columns do not hold arrays without elements."""


def fetch_and_decode(batch: Batch) -> Batch:
    """uri, etag, status, error -> + width, height, image (HWC uint8 RGB, upright).

    Entries that the inventory refused keep its status. Nothing but a bad object is caught here.
    """
    batch = _writable(batch)
    images = []
    for i, (uri, etag) in enumerate(zip(batch["uri"], batch["etag"], strict=True)):
        image = BLANK
        if not batch["status"][i]:
            try:
                image = decode(fetch(uri, etag))
                _say(batch, i, row.OK)
            except (FetchFailed, Refused) as refusal:
                _say(batch, i, refusal.status, refusal.reason)
        images.append(image)
    ok = _ok(batch)
    sizes = np.array([image.shape[:2] for image in images]) * ok[:, None]
    return batch | {"height": sizes[:, 0], "width": sizes[:, 1], "image": _tensors(images)}


class Locate:
    """image -> + disc_confidence, roi_x, roi_y, roi_size (pixels of the original frame).

    Detected in frames; disc crops are taken whole and have no confidence (NaN).
    """

    def __init__(self, bundle: ObjectRef, crops: bool) -> None:
        self.predictor = Predictor(ray.get(bundle))
        self.crops = crops

    def __call__(self, batch: Batch) -> Batch:
        batch = _writable(batch)
        confidence = np.full(len(batch["uri"]), np.nan)
        located: list[Roi | None] = [None] * len(confidence)
        for i in _indices(batch):
            if self.crops:
                located[i] = roi.whole(*batch["image"][i].shape[:2])
                continue
            (detection,) = self.predictor.detect([batch["image"][i]])
            confidence[i], located[i] = detection.confidence, detection.roi
            if detection.roi is None:
                reason = f"no disc was found (confidence {detection.confidence:.2f})"
                _say(batch, i, "no_disc", reason)
        return batch | {"disc_confidence": confidence} | _roi_columns(located)


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
        return {name: batch[name] for name in batch if name != "crop"} | {"maps": _tensors(maps)}


def measure(
    batch: Batch, *, thresholds: Thresholds, risk: RiskModel | None, run_id: str, bundle: str
) -> pa.Table:
    """All columns so far -> rows as `row.SCHEMA` has them, undefined values null."""
    batch = _writable(batch)
    count = len(batch["uri"])
    measured: list[dict] = [{} for _ in range(count)]
    for i in _indices(batch):
        eye = measure_maps(batch["maps"][i], _roi_of(batch, i), thresholds)
        measured[i] = _columns_of(eye, risk)
        if NO_DISC in eye.flags:
            _say(batch, i, "no_disc", "the segmenter found no disc in the ROI")
    columns = {name: batch[name].tolist() for name in ("uri", "etag", "status")}
    columns["error"] = [str(text) or None for text in batch["error"]]
    for name in ("width", "height"):
        columns[name] = [int(value) or None for value in batch[name]]
    for name in ("disc_confidence", "roi_x", "roi_y", "roi_size"):
        columns[name] = [None if np.isnan(value) else float(value) for value in batch[name]]
    for name in sorted({name for one in measured for name in one}):
        columns[name] = [one.get(name) for one in measured]
    return row.table(columns, run_id, bundle)


def _columns_of(eye: Measured, model: RiskModel | None) -> dict:
    risk = model.risk(eye.biomarkers.vcdr, eye.vcdr_sd) if model else None
    return asdict(eye.biomarkers) | {
        "mask_png": None if NO_DISC in eye.flags else _png(eye.mask),
        "vcdr_sd": eye.vcdr_sd,
        "flags": list(eye.flags),
        "risk": risk,
        "referable": model.referable(risk) if model else None,
    }


def _png(mask: np.ndarray) -> bytes:
    return cv2.imencode(".png", mask)[1].tobytes()


def _ok(batch: Batch) -> np.ndarray:
    return batch["status"] == row.OK


def _indices(batch: Batch) -> list[int]:
    return np.flatnonzero(_ok(batch)).tolist()


def _writable(batch: Batch) -> Batch:
    """The batch with status and error as columns of its own: Ray's are shared and read-only."""
    return batch | {name: batch[name].astype(object) for name in ("status", "error")}


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
