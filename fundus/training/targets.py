"""The target's pictures, as adaptation may see them: without labels, cropped by the detector."""

import logging
from dataclasses import replace

import numpy as np
import torch

from fundus.datasets.batches import Crops
from fundus.datasets.samples import LabelledSet
from fundus.errors import ConfigurationError
from fundus.images import roi
from fundus.models.bundle import Bundle
from fundus.models.predictor import Predictor

log = logging.getLogger(__name__)


def unlabelled(labelled: LabelledSet) -> LabelledSet:
    """The same pictures without masks or diagnoses."""
    return replace(
        labelled,
        samples=tuple(replace(s, masks=(), structures=(), glaucoma=None) for s in labelled.samples),
    )


def target_crops(target: LabelledSet, bundle: Bundle, *, precropped: bool) -> Crops:
    """Segmenter inputs of a target: the ROIs that the detector finds in frames, or the
    segmenter in disc crops (`precropped`).

    Frames in which no disc is found are left out and counted in the log.
    """
    side = bundle.preprocessing.roi_side
    predictor = Predictor(bundle)
    ids, images = [], []
    for sample in target.samples:
        image = sample.read_image()
        place = predictor.place(image, precropped=precropped).roi
        if place is not None:
            ids.append(sample.id)
            images.append(roi.crop(image, place, side, mirrored=True))
    log.info("%s: disc found in %d of %d frames", target.name, len(ids), len(target.samples))
    if not images:
        raise ConfigurationError(
            f"{target.name}: no disc found in any frame, so there is nothing to adapt to"
        )
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Crops(
        tuple(ids),
        stacked,
        torch.zeros(len(ids), side, side, dtype=torch.uint8),
        np.full(len(ids), np.nan),
    )
