"""After calibration the detector finds faint discs, and none in pictures without a disc."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from fundus.datasets.batches import Crops
from fundus.models.confidence import calibrated
from fundus.training import certainty
from fundus.training.recipes import quick


class Timid(nn.Module):
    """Sees the disc where the picture is blue, and gives it a probability of 0.3; else 0.05."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.logit(torch.tensor([0.05, 0.3])))

    def forward(self, pictures: Tensor) -> Tensor:
        blue = pictures[:, 2:] - pictures[:, :1] > 1
        return torch.where(blue, self.levels[1], self.levels[0])


def test_after_calibration_a_disc_counts_from_a_confidence_of_one_half() -> None:
    """By its peaks alone, `Timid` would never find a disc."""
    side = 64
    rows, columns = np.mgrid[:side, :side]
    mask = torch.from_numpy(np.hypot(rows - 40, columns - 24) < 7).to(torch.uint8)
    picture = torch.stack([200 * (1 - mask), 80 + 0 * mask, 40 + 215 * mask])
    crops = Crops(
        ("a",) * 8, picture[None].repeat(8, 1, 1, 1), mask[None].repeat(8, 1, 1), np.full(8, np.nan)
    )
    recipe = replace(quick().detector, side=side, augmentation="flips")
    curve, found = certainty.calibrate(Timid(), crops, recipe)
    assert calibrated(0.3, curve) > 0.8 and calibrated(0.05, curve) < 0.2
    assert found["val_right"] > 0.95 and found["val_false"] < 0.15
