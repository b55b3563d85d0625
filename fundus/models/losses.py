"""The losses of the paper, as pure functions of probabilities or logits.

Maps are (N, 2, H, W): disc (cup included), then cup. "Source" is 1 and "target" 0 for the
discriminator; the segmenter pushes its target maps toward 1.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

DISC_WEIGHT, CUP_WEIGHT, SMOOTHNESS_WEIGHT = 0.4, 0.6, 0.1
"""The paper's lambda 1, 2 and 3 (equation 1)."""

SOURCE, TARGET = 1.0, 0.0


def dice_loss(probabilities: Tensor, labels: Tensor, eps: float = 1.0) -> Tensor:
    """1 - Dice with squared terms: (N, C, H, W) twice -> (C,) by map, the mean over pictures.

    D = (2 sum(p g) + eps) / (sum(p^2) + sum(g^2) + eps), the authors' released form.
    """
    overlap = (probabilities * labels).sum(dim=(2, 3))
    sizes = (probabilities**2).sum(dim=(2, 3)) + (labels**2).sum(dim=(2, 3))
    return (1 - (2 * overlap + eps) / (sizes + eps)).mean(dim=0)


def smoothness_loss(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Differences to the 4 neighbours where the label has none: (N, C, H, W) twice -> scalar.

    For each inner pixel the sum of |p_i - p_j| over its 4 neighbours j, counted only where the
    label equals all 4 of them; the mean over all inner pixels (the paper's SL, after its ref. 4).
    """
    differences = torch.stack([abs(_inner(probabilities) - p) for p in _neighbours(probabilities)])
    uniform = torch.stack([_inner(labels) == label for label in _neighbours(labels)]).all(dim=0)
    return (differences.sum(dim=0) * uniform).mean()


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Equation 1: 0.4 Dice loss of the disc + 0.6 of the cup + 0.1 smoothness -> scalar."""
    probabilities = logits.sigmoid()
    disc, cup = dice_loss(probabilities, labels)
    smoothness = smoothness_loss(probabilities, labels)
    return DISC_WEIGHT * disc + CUP_WEIGHT * cup + SMOOTHNESS_WEIGHT * smoothness


def adversarial_loss(answers_trg: Tensor) -> Tensor:
    """Equation 3, -log D(S(target)): low if the discriminator takes target maps for source."""
    return F.binary_cross_entropy_with_logits(answers_trg, torch.full_like(answers_trg, SOURCE))


def discriminator_loss(answers_src: Tensor, answers_trg: Tensor) -> Tensor:
    """Equation 4, as the mean of both halves: log 2 if the discriminator cannot tell them apart."""
    source = torch.full_like(answers_src, SOURCE)
    target = torch.full_like(answers_trg, TARGET)
    return 0.5 * (
        F.binary_cross_entropy_with_logits(answers_src, source)
        + F.binary_cross_entropy_with_logits(answers_trg, target)
    )


def _inner(maps: Tensor) -> Tensor:
    return maps[..., 1:-1, 1:-1]


def _neighbours(maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Above, below, left and right of each inner pixel."""
    return (
        maps[..., :-2, 1:-1],
        maps[..., 2:, 1:-1],
        maps[..., 1:-1, :-2],
        maps[..., 1:-1, 2:],
    )
