"""The stages with a network: where the disc lies, and what of the ROI is disc and cup."""

import numpy as np
import ray
from ray import ObjectRef

from fundus.images.fov import field_of_view
from fundus.images.laterality import of_anatomy
from fundus.images.roi import Roi
from fundus.models.predictor import TWO_DISCS, Predictor
from fundus.runtime import metrics
from fundus.screening.columns import Batch, indices, ok, roi_columns, say, tensors, writable


class Locate:
    """image -> + disc_confidence, roi_x, roi_y, roi_size (pixels of the original frame), and the
    laterality where the file did not say it and the place of the disc does; the flag `two_discs`.

    Detected in frames; in disc crops the segmenter finds it, without a confidence (NaN).
    """

    def __init__(self, bundle: ObjectRef, precropped: bool) -> None:
        self.predictor = Predictor(ray.get(bundle))
        self.precropped = precropped

    def __call__(self, batch: Batch) -> Batch:
        batch = writable(batch)
        confidence = np.full(len(batch["uri"]), np.nan)
        located: list[Roi | None] = [None] * len(confidence)
        source = np.where(batch["laterality"] == "", "", "dicom").astype(object)
        for i in indices(batch):
            image = batch["image"][i]
            detection = self.predictor.place(image, precropped=self.precropped)
            confidence[i], located[i] = detection.confidence, detection.roi
            if detection.roi is None and np.isnan(detection.confidence):
                say(batch, i, "model_failed", "the detector's map is not finite numbers")
                continue
            if detection.roi is None:
                reason = f"no disc was found (confidence {detection.confidence:.2f})"
                say(batch, i, "no_disc", reason)
                continue
            if detection.two:
                batch["flags"][i] = f"{batch['flags'][i]} {TWO_DISCS}".strip()
            if self.precropped or source[i]:
                continue
            if side := self._eye(image, detection.roi):
                batch["laterality"][i], source[i] = side, "anatomy"
        metrics.count_pictures("locate", len(confidence))
        found = {"disc_confidence": confidence, "laterality_source": source}
        return batch | found | roi_columns(located)

    def _eye(self, image: np.ndarray, where: Roi) -> str | None:
        field = field_of_view(image)
        diameter = where.size / self.predictor.preprocessing.roi_scale
        middle = (where.x + where.size / 2, where.y + where.size / 2)
        return of_anatomy(field, *middle, diameter) if field else None


class Segment:
    """crop -> maps ((networks x turns, 2, side, side) float32 probabilities) in place of crop."""

    def __init__(self, bundle: ObjectRef) -> None:
        self.predictor = Predictor(ray.get(bundle))

    def __call__(self, batch: Batch) -> Batch:
        right = ok(batch)
        maps = [np.zeros((1, 1, 1, 1), np.float32)] * len(right)
        if right.any():
            found = self.predictor.segment(batch["crop"][right])
            for i, some in zip(indices(batch), found, strict=True):
                maps[i] = some
        metrics.count_pictures("segment", len(right))
        return {name: batch[name] for name in batch if name != "crop"} | {"maps": tensors(maps)}
