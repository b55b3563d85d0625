"""The detector's table counts what it should, and calibration makes it say "none"."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fundus.datasets.batches import Crops
from fundus.images.roi import Roi, around
from fundus.models.confidence import calibrated
from fundus.training import detection
from fundus.training.detection import Answer
from fundus.training.recipes import quick


def test_the_centre_lies_inside_the_disc_or_not() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[20:30, 50:60], mask[24:26, 54:56] = 1, 2
    assert detection.centre_inside(mask, around(55, 25, 30))
    assert detection.centre_inside(mask, Roi(50.2 - 20, 20.1 - 20, 40))
    assert not detection.centre_inside(mask, around(25, 55, 30)), "x and y are not to be swapped"
    assert not detection.centre_inside(mask, around(60.5, 25, 4))
    assert not detection.centre_inside(mask, around(300, -3, 4))
    assert not detection.centre_inside(mask, None)


def test_a_row_counts_unlabelled_pictures_apart() -> None:
    answers = [
        Answer("s", "1", 0.9, True, True),
        Answer("s", "2", 0.8, True, False),
        Answer("s", "3", 0.1, False, False),
        Answer("s", "4", 0.2, False, None),
    ]
    row = detection.summarise(answers)
    assert (row["pictures"], row["found"], row["no_disc"]) == (4, 2, 2)
    assert (row["labelled"], row["centre_in_disc"]) == (3, 1)
    assert row["share"]["value"] == pytest.approx(1 / 3)
    assert "1 of 3" in detection.as_text([row])
    assert detection.summarise(answers[3:])["centre_in_disc"] is None


class Timid(nn.Module):
    """Sees the disc where the picture is blue, and gives it a probability of 0.3; else 0.05."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.logit(torch.tensor([0.05, 0.3])))

    def forward(self, pictures: Tensor) -> Tensor:
        blue = pictures[:, 2:] - pictures[:, :1] > 1
        return torch.where(blue, self.levels[1], self.levels[0])


def test_calibration_makes_half_the_level_from_which_a_disc_counts() -> None:
    """By its peak alone this detector would never find a disc."""
    side = 64
    rows, columns = np.mgrid[:side, :side]
    mask = torch.from_numpy(np.hypot(rows - 40, columns - 24) < 7).to(torch.uint8)
    picture = torch.stack([200 * (1 - mask), 80 + 0 * mask, 40 + 215 * mask])
    crops = Crops(
        ("a",) * 8, picture[None].repeat(8, 1, 1, 1), mask[None].repeat(8, 1, 1), np.full(8, np.nan)
    )
    recipe = replace(quick().detector, side=side, augmentation="flips")
    curve, found = detection.calibrate(Timid(), crops, recipe)
    assert calibrated(0.3, curve) > 0.8 and calibrated(0.05, curve) < 0.2
    assert found["val_right"] > 0.95 and found["val_false"] < 0.15
