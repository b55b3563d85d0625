"""The gate passes a better segmenter, and stops one that only seems better."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fundus.datasets.batches import Crops
from fundus.models.thresholds import Thresholds
from fundus.training import gate

SIDE = 64


def eye(vcdr: float, centre: int = 32, radius: int = 20) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.circle(mask, (centre, centre), radius, 1, cv2.FILLED)
    cv2.circle(mask, (centre, centre), round(radius * vcdr), 2, cv2.FILLED)
    return mask


def crops(masks: list[np.ndarray]) -> Crops:
    """Pictures whose red channel shows the disc and green the cup, as `Reader` expects."""
    labels = torch.from_numpy(np.stack(masks))
    blue = torch.zeros_like(labels)
    images = torch.stack([(labels >= 1) * 255, (labels == 2) * 255, blue], dim=1).to(torch.uint8)
    return Crops(tuple(map(str, range(len(masks)))), images, labels, np.full(len(masks), 0.5))


class Reader(nn.Module):
    """Reads disc and cup from the picture's channels, with a chosen error."""

    def __init__(self, gain: float = 20.0, only_disc: bool = False, uneven: float = 0.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.only_disc, self.uneven = only_disc, uneven

    def forward(self, pictures: Tensor) -> Tensor:
        maps = self.gain * pictures[:, :2]
        if self.only_disc:
            maps = torch.cat([maps[:, :1], -abs(maps[:, 1:])], dim=1)
        ramp = torch.linspace(-1, 1, pictures.shape[-1])
        return maps + self.uneven * self.gain.abs() * ramp  # differs from turn to turn


SOURCE = crops([eye(v) for v in (0.3, 0.5, 0.7)])
TARGET = crops([eye(v, centre=34) for v in (0.4, 0.6, 0.8)])


def failed(source_only: nn.Module, adapted: nn.Module, target: Crops = TARGET) -> set[str]:
    checks = gate.judge(source_only, adapted, SOURCE, target, Thresholds()).checks
    return {check.name for check in checks if not check.passed}


def test_a_segmenter_that_is_as_good_on_source_and_steadier_on_target_passes() -> None:
    assert failed(Reader(uneven=2.0), Reader()) == set()


def test_a_segmenter_that_forgot_the_cup_is_stopped() -> None:
    assert {"source cup Dice", "plausible shapes"} <= failed(Reader(), Reader(only_disc=True))


def test_a_segmenter_that_differs_from_turn_to_turn_is_stopped() -> None:
    assert "target consistency" in failed(Reader(), Reader(uneven=2.0))


@pytest.mark.parametrize(("loss", "stopped"), [(0.004, False), (0.006, True)])
def test_a_small_loss_of_consistency_is_allowed(
    monkeypatch: pytest.MonkeyPatch, loss: float, stopped: bool
) -> None:
    """Adversarial learning costs up to .003 of it on cameras that it improves."""
    source_only, adapted, look = Reader(), Reader(), gate.look

    def seen(network: nn.Module, *more: Any) -> gate.Seen:
        consistency = 0.9 - loss if network is adapted else 0.9
        return replace(look(network, *more), consistency=consistency)

    monkeypatch.setattr(gate, "look", seen)
    assert failed(source_only, adapted) == ({"target consistency"} if stopped else set())


def test_a_segmenter_that_draws_every_cup_alike_is_stopped() -> None:
    class Collapsed(Reader):
        def forward(self, pictures: Tensor) -> Tensor:
            cup = torch.from_numpy(eye(0.5, centre=34) == 2)
            maps = super().forward(pictures)
            return torch.stack([maps[:, 0], torch.where(cup, 20.0, -20.0).expand_as(maps[:, 0])], 1)

    assert "spread of vCDR" in failed(Reader(), Collapsed())


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["grew", "shrank"])
def test_a_segmenter_that_grows_or_shrinks_every_cup_is_stopped(sign: float) -> None:
    class Other(Reader):
        def forward(self, pictures: Tensor) -> Tensor:
            maps = super().forward(pictures)
            cup = sign * F.max_pool2d(sign * maps[:, 1:], 5, stride=1, padding=2)
            return torch.cat([maps[:, :1], cup], dim=1)

    assert "mean vCDR" in failed(Reader(), Other())


def test_a_target_without_fundus_photographs_is_stopped() -> None:
    """Stripes and noise, in which a segmenter may see anything."""
    generator = np.random.default_rng(0)
    strange = []
    for seed in range(6):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:, seed * 3 : seed * 3 + 12] = 1
        mask[generator.random((SIDE, SIDE)) > 0.9] = 2
        strange.append(mask)
    assert "plausible shapes" in failed(Reader(), Reader(), crops(strange))


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (eye(0.5), True),
        (eye(0.9), True),
        (eye(0.0, radius=20) * 0, False),
        (np.where(eye(0.5) == 2, 1, eye(0.5)).astype(np.uint8), False),  # no cup
        (eye(0.5, centre=4), False),  # half outside the picture
        (eye(0.5, radius=3), False),  # a dot
    ],
)
def test_whether_a_disc_and_cup_are_plausible(mask: np.ndarray, expected: bool) -> None:
    assert gate.plausible(mask) is expected


def test_a_check_whose_value_is_nan_does_not_pass() -> None:
    assert not gate.Check("consistency", 0.9, float("nan"), 0.9).passed
