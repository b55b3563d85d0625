"""How often the detector is right, and how sure it may be: its calibration and its table."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fundus.anatomy import scores
from fundus.anatomy.labels import disc_of
from fundus.datasets import augment
from fundus.datasets.batches import Crops
from fundus.datasets.samples import LabelledSet
from fundus.images.roi import Roi
from fundus.models import confidence
from fundus.models.confidence import Calibration
from fundus.models.predictor import Predictor, locate
from fundus.training.recipes import Recipe
from fundus.training.source import predict, source_transform

log = logging.getLogger(__name__)

ROUNDS = 12
"""How often each validation picture is drawn, augmented, for the calibration."""
WITHOUT_DISC = 0.5
"""Share of these draws that are made into pictures without a disc."""


@dataclass(frozen=True)
class Answer:
    """What the detector said of one picture."""

    set: str
    id: str
    confidence: float
    found: bool
    """It named a place for the disc."""
    right: bool | None
    """That place's centre lies inside the experts' disc; None where they drew none."""


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


def look(labelled: LabelledSet, predictor: Predictor) -> list[Answer]:
    """The detector's answer to each frame of a set. FileNotFoundError or ValueError, as samples."""
    answers = []
    for number, sample in enumerate(labelled.samples, start=1):
        (found,) = predictor.detect([sample.read_image()])
        mask = sample.read_mask() if sample.structures else None
        right = None if mask is None else centre_inside(mask, found.roi)
        answers.append(
            Answer(labelled.name, sample.id, found.confidence, found.roi is not None, right)
        )
        if number % 50 == 0 or number == len(labelled.samples):
            log.info("%s: %d of %d pictures", labelled.name, number, len(labelled.samples))
    return answers


def centre_inside(mask: np.ndarray, region: Roi | None) -> bool:
    """Whether the centre of a ROI lies inside the disc of an HW mask of its frame."""
    if region is None:
        return False
    row, column = int(region.y + region.size / 2), int(region.x + region.size / 2)
    inside = 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]
    return inside and bool(disc_of(mask[row : row + 1, column : column + 1]).any())


def summarise(answers: Sequence[Answer]) -> dict[str, Any]:
    """One set's row, JSON-ready: counts, and the share of right places with its 95 % interval."""
    labelled = [answer.right for answer in answers if answer.right is not None]
    return {
        "set": answers[0].set,
        "pictures": len(answers),
        "found": sum(answer.found for answer in answers),
        "no_disc": sum(not answer.found for answer in answers),
        "labelled": len(labelled),
        "centre_in_disc": sum(labelled) if labelled else None,
        "share": asdict(scores.summarise_mean([float(right) for right in labelled])),
        "mean_confidence": float(np.mean([answer.confidence for answer in answers])),
    }


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table to read; a dash where nothing is labelled."""
    head = ["set", "pictures", "no disc", "centre in disc", "share", "mean confidence"]
    lines = [head]
    for row in rows:
        share = row["share"]
        has_interval = share["low"] is not None
        between = f" [{share['low']:.3f}, {share['high']:.3f}]" if has_interval else ""
        lines.append(
            [
                row["set"],
                str(row["pictures"]),
                str(row["no_disc"]),
                f"{row['centre_in_disc']} of {row['labelled']}" if row["labelled"] else "-",
                f"{share['value']:.3f}{between}" if row["labelled"] else "-",
                f"{row['mean_confidence']:.3f}",
            ]
        )
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
