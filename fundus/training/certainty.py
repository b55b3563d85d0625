"""Calibration of the detector's confidence on pictures that it did not learn from."""

import numpy as np
import torch
from torch import nn

from fundus.augmentation import augment
from fundus.datasets.batches import Crops
from fundus.field.roi import Roi
from fundus.models import confidence
from fundus.models.confidence import Calibration
from fundus.models.predictor import centre_inside, locate
from fundus.training.recipes import Recipe
from fundus.training.source import predict, source_transform

ROUNDS = 12
"""Number of augmented copies of each validation picture."""
WITHOUT_DISC = 0.5
"""Share of these copies whose disc is removed."""


def calibrate(
    network: nn.Module, validation: Crops, recipe: Recipe
) -> tuple[Calibration, dict[str, float]]:
    """Fit the confidence on validation pictures, half of them with their disc removed.

    Args:
        network: the detector.
        validation: frames, as `fundus.datasets.batches.frames` returns them.
        recipe: of the detector's training.

    Returns:
        The calibration, and two figures at confidence 0.5: `val_right`, the share of discs that
        are found at their location, and `val_false`, the share of pictures without a disc in which
        one is found.
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
