"""The anatomical warp changes only the cup; the target's look changes only colours."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision.tv_tensors import Image, Mask

from fundus.anatomy import biomarkers
from fundus.augmentation.appearance import LikeTarget, colour_statistics, low_frequencies
from fundus.augmentation.cup_warp import CupWarp, cup_warp_grid

SIDE = 128


def eye(vcdr: float, x: int = 64, y: int = 60) -> torch.Tensor:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(mask, (x, y), (38, 44), 0, 0, 360, 1, cv2.FILLED)
    cv2.ellipse(mask, (x + 3, y), (round(38 * vcdr), round(44 * vcdr)), 0, 0, 360, 2, cv2.FILLED)
    return torch.from_numpy(mask)


@settings(max_examples=40, deadline=None)
@given(present=st.floats(0.35, 0.75), wanted=st.floats(0.3, 0.85))
def test_the_cup_reaches_the_wanted_size_and_the_disc_stays(present: float, wanted: float) -> None:
    mask = eye(present)
    before = biomarkers.vcdr(mask.numpy()) or 0
    picture = (mask * 80)[None].repeat(3, 1, 1)
    moved, labels = CupWarp(1.0, wanted, wanted)(Image(picture), Mask(mask))
    after = biomarkers.vcdr(labels.numpy())
    limited = min(max(wanted, 0.8 * before), 1.6 * before)
    assert after == pytest.approx(limited, abs=0.06)
    assert ((labels > 0) != (mask > 0)).float().mean() < 0.01
    agree = ((moved[0] > 120) == (labels == 2)).float().mean()
    assert agree > 0.98, "picture and mask moved together"


def test_without_a_cup_nothing_moves() -> None:
    disc_only = eye(0.5).clamp(max=1)
    assert cup_warp_grid(disc_only, 0.7) is None
    picture = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    assert torch.equal(CupWarp(1.0)(Image(picture), Mask(disc_only))[1], disc_only)


def test_colour_statistics_become_the_targets_and_black_stays_black() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(3, 64, 64, generator=generator) * 100 + 50
    picture[:, :, :10] = 0
    target = (
        torch.rand(3, 64, 64, generator=generator) * 60
        + torch.tensor([180, 90, 30.0])[:, None, None]
    )
    like = colour_statistics(picture, target)
    seen = like[:, :, 10:].flatten(1)
    assert torch.allclose(seen.mean(1), target.flatten(1).mean(1), atol=0.5)
    assert torch.allclose(seen.std(1), target.flatten(1).std(1), rtol=0.01)
    assert (like[:, :, :10] == 0).all()


def test_low_frequencies_take_the_targets_mean_and_keep_the_edges() -> None:
    picture = torch.zeros(3, 64, 64) + 100
    picture[:, 20:40, 20:40] = 160
    like = low_frequencies(picture, torch.full((3, 64, 64), 40.0))
    assert like.mean().item() == pytest.approx(40, abs=0.1)
    step = F.pad(picture, (0, 1)).diff(dim=-1)[..., :-1]
    assert torch.allclose(F.pad(like, (0, 1)).diff(dim=-1)[..., :-1], step, atol=6)


def test_a_share_of_pictures_gets_the_look_and_labels_stay() -> None:
    torch.manual_seed(0)
    targets = torch.full((2, 3, 32, 32), 200, dtype=torch.uint8)
    picture = torch.randint(20, 100, (3, 32, 32), dtype=torch.uint8)
    mask = torch.ones(32, 32, dtype=torch.uint8)
    look = LikeTarget(targets, reinhard=0.25, fourier=0.25)
    drawn = [look(Image(picture), Mask(mask)) for _ in range(200)]
    changed = np.mean([not torch.equal(image, picture) for image, _ in drawn])
    assert changed == pytest.approx(0.5, abs=0.1)
    assert all(torch.equal(label, mask) for _, label in drawn)
