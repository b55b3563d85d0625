"""The stages with a network: location of the disc, and segmentation of disc and cup."""

import numpy as np

from fundus.field import margins
from fundus.field.laterality import of_roi
from fundus.field.roi import Roi
from fundus.models.predictor import TWO_DISCS, Predictor
from fundus.runtime import metrics
from fundus.screening.columns import (
    Batch,
    fail_row,
    indices,
    ok,
    roi_columns,
    roi_of,
    tensors,
    writable,
)


class Locate:
    """image, shrink, field -> + disc_confidence, roi_x, roi_y, roi_size (original pixels).

    Also sets the laterality by the location of the disc, if the file does not state it, and the
    flag `two_discs`. In frames the detector finds the disc. In precropped pictures the segmenter
    finds it, without a confidence (NaN).
    """

    def __init__(self, predictor: Predictor, *, precropped: bool) -> None:
        self.predictor = predictor
        self.precropped = precropped

    def __call__(self, batch: Batch) -> Batch:
        batch = writable(batch)
        confidence = np.full(len(batch["uri"]), np.nan)
        located: list[Roi | None] = [None] * len(confidence)
        source = np.where(batch["laterality"] == "", "", "dicom").astype(object)
        for i in indices(batch):
            image = batch["image"][i]
            field = batch["field"][i]
            detection = self.predictor.place(image, precropped=self.precropped, field=field)
            confidence[i] = detection.confidence
            if detection.roi is None and np.isnan(detection.confidence):
                fail_row(batch, i, "model_failed", "the detector's map is not finite numbers")
                continue
            if detection.roi is None:
                reason = f"no disc was found (confidence {detection.confidence:.2f})"
                fail_row(batch, i, "no_disc", reason)
                continue
            located[i] = detection.roi.times(batch["shrink"][i])
            if detection.two:
                batch["flags"][i] = f"{batch['flags'][i]} {TWO_DISCS}".strip()
            side = of_roi(field, detection.roi, self.predictor.preprocessing.roi_scale)
            if side and not source[i]:
                batch["laterality"][i], source[i] = side, "anatomy"
        metrics.count_pictures("locate", len(confidence))
        found = {"disc_confidence": confidence, "laterality_source": source}
        return batch | found | roi_columns(located)


class Segment:
    """crop, roi_x, roi_y, roi_size, width, height -> maps; crop goes.

    Maps are (networks x turns, 2, side, side) float32 probabilities.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def __call__(self, batch: Batch) -> Batch:
        right = ok(batch)
        maps = [np.zeros((1, 1, 1, 1), np.float32)] * len(right)
        if right.any():
            outside = np.stack([self._outside(batch, i) for i in indices(batch)])
            found = self.predictor.segment(batch["crop"][right], outside=outside)
            for i, some in zip(indices(batch), found, strict=True):
                maps[i] = some
        metrics.count_pictures("segment", len(right))
        return {name: batch[name] for name in batch if name != "crop"} | {"maps": tensors(maps)}

    def _outside(self, batch: Batch, i: int) -> np.ndarray:
        height, width = int(batch["height"][i]), int(batch["width"][i])
        return margins.outside(roi_of(batch, i), height, width, self.predictor.side)
