"""How sure the detector may be: its confidence, calibrated on pictures not learned from."""

import numpy as np
import torch
from torch import nn

from fundus.augmentation import augment
from fundus.datasets.batches import Crops
from fundus.images.roi import Roi
from fundus.models import confidence
from fundus.models.confidence import Calibration
from fundus.models.predictor import centre_inside, locate
from fundus.training.recipes import Recipe
from fundus.training.source import predict, source_transform

ROUNDS = 12
"""How often each validation picture is drawn, augmented, for the calibration."""
WITHOUT_DISC = 0.5
"""Share of these draws that are made into pictures without a disc."""


def calibrate(
    network: nn.Module, validation: Crops, recipe: Recipe
) -> tuple[Calibration, dict[str, float]]:
    """Fit the confidence on pictures that were not learned from, half of them without a disc.

    validation: what `fundus.datasets.batches.frames` gives. Also returns `val_right`, the share of
    discs found where they are, and `val_false`, the share of pictures without one in which a disc
    is found, both at confidence 0.5.
    """
    torch.manual_seed(recipe.seed)
    transform = source_transform(recipe.augmentation, 0.0, WITHOUT_DISC)
    peaks, right, has_disc = [], [], []
    for _ in range(ROUNDS):
        pictures, masks = augment.apply(transform, validation.images, validation.masks)
        for start in range(0, len(pictures), recipe.batch):
            maps = predict(network, pictures[start : start + recipe.batch])[:, 0]
            for disc, mask in zip(maps, masks[start : start + recipe.batch].numpy(), strict=True):
                found = locate(disc, Roi(0, 0, recipe.side), 0.0, 1.0)
                peaks.append(found.confidence)
                right.append(centre_inside(mask, found.roi))
                has_disc.append(bool(mask.any()))
    hits, discs = np.array(right), np.array(has_disc)
    calibration = confidence.fit(np.array(peaks), hits)
    found_at = np.array([confidence.calibrated(peak, calibration) for peak in peaks]) >= 0.5
    return calibration, {
        "val_right": float((hits & found_at)[discs].mean()),
        "val_false": float(found_at[~discs].mean()),
    }
