"""Distillation: one network learns to answer in one pass as a whole segmenter does in many.

The teacher is every network of a bundle's segmenter in all eight turns. It sees the same augmented
pictures as the student (Beyer et al., Knowledge distillation: a good teacher is patient and
consistent, CVPR 2022), so no label is needed.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fundus.anatomy import biomarkers
from fundus.anatomy.labels import compose
from fundus.datasets.batches import Crops
from fundus.models import losses
from fundus.models.predictor import Predictor
from fundus.training.recipes import Recipe
from fundus.training.source import Batch, SourceLearner, forward

TOGETHER = 8
"""Pictures whose maps of all passes are in memory at once."""


class StudentLearner(SourceLearner):
    """The learner of a distillation; its validation scores are the agreement with the teacher.

    Args:
        network: the student, with two maps.
        recipe: hyperparameters of a segmenter.
        train: pictures to learn from, as `taught` returns them.
        validation: pictures to validate on, likewise.
        teacher: its segmenters are the teacher.
        rank, world: this worker's number, and the number of workers.
    """

    loss_name = "loss_student"

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        train: Crops,
        validation: Crops,
        teacher: Predictor,
        **workers: Any,
    ) -> None:
        super().__init__(network, recipe, train, validation, **workers)
        self.teacher = teacher

    def loss(self, batch: Batch, sets: tuple[str, ...]) -> Tensor:
        """The scalar loss against the teacher's maps: Dice of equation 1, and cross-entropy."""
        pictures, _ = batch
        logits = forward(self.network, pictures, self.recipe.precision)
        maps = answers(self.teacher, pictures).to(logits.device)
        entropy = F.binary_cross_entropy_with_logits(logits, maps)
        return losses.segmentation_loss(logits, maps) + entropy


def answers(teacher: Predictor, pictures: Tensor) -> Tensor:
    """(N, 3, S, S) uint8 -> (N, 2, S, S) float32, the mean over all passes of the teacher."""
    upright = pictures.permute(0, 2, 3, 1).numpy()
    parts = [
        teacher.segment(upright[i : i + TOGETHER]).mean(axis=1)
        for i in range(0, len(upright), TOGETHER)
    ]
    return torch.from_numpy(np.concatenate(parts))


def taught(crops: Crops, teacher: Predictor) -> Crops:
    """The same pictures with the teacher's masks, at 0.5, and their vCDR, instead of labels."""
    maps = answers(teacher, crops.images).numpy() >= 0.5
    masks = np.stack([compose(disc, cup) for disc, cup in maps])
    ratios = [biomarkers.vcdr(mask) for mask in masks]
    vcdr = np.array([np.nan if ratio is None else ratio for ratio in ratios])
    return replace(crops, masks=torch.from_numpy(masks), vcdr=vcdr)
