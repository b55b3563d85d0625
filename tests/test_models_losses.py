"""The losses, against values worked out by hand."""

import math

import pytest
import torch

from fundus.models import losses


def test_smoothness_of_a_5x5_map_by_hand() -> None:
    """One pixel of 0.4 at the centre of zeros, inside a uniform label: 9 inner pixels.

    The centre differs by 0.4 from 4 neighbours (1.6); each of those 4, all of them inner pixels,
    differs by 0.4 from the centre (4 x 0.4). Sum 3.2, mean over 9.
    """
    probabilities = torch.zeros(1, 1, 5, 5)
    probabilities[0, 0, 2, 2] = 0.4
    uniform = torch.ones(1, 1, 5, 5)
    assert losses.smoothness_loss(probabilities, uniform).item() == pytest.approx(3.2 / 9)


def test_smoothness_ignores_pixels_at_an_edge_of_the_label() -> None:
    """With the label's edge at the centre pixel, it and its 4 neighbours do not count."""
    probabilities = torch.zeros(1, 1, 5, 5)
    probabilities[0, 0, 2, 2] = 0.4
    label = torch.ones(1, 1, 5, 5)
    label[0, 0, 2, 2] = 0
    assert losses.smoothness_loss(probabilities, label).item() == 0


def test_dice_loss_by_hand_for_each_structure() -> None:
    """p = 0.5 on 4 pixels, g = 1 on 2 of them: D = (2 * 1 + 1) / (1 + 2 + 1) = 3/4."""
    probabilities = torch.full((1, 2, 2, 2), 0.5)
    labels = torch.zeros(1, 2, 2, 2)
    labels[0, :, 0] = 1
    assert losses.dice_loss(probabilities, labels).tolist() == pytest.approx([0.25, 0.25])


def test_segmentation_loss_weighs_disc_cup_and_smoothness_as_in_equation_1() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 8, 8)
    labels = (torch.rand(2, 2, 8, 8) > 0.5).float()
    disc, cup = losses.dice_loss(logits.sigmoid(), labels)
    smooth = losses.smoothness_loss(logits.sigmoid(), labels)
    expected = 0.4 * disc + 0.6 * cup + 0.1 * smooth
    assert losses.segmentation_loss(logits, labels).item() == pytest.approx(expected.item())


def test_the_adversarial_loss_is_low_when_target_maps_pass_for_source() -> None:
    sure = torch.tensor([10.0])  # the discriminator's logit for "source"
    assert losses.adversarial_loss(sure).item() < 0.001
    assert losses.adversarial_loss(-sure).item() > 9


def test_the_discriminator_loss_is_low_when_it_tells_source_from_target() -> None:
    sure = torch.tensor([10.0])
    assert losses.discriminator_loss(sure, -sure).item() < 0.001
    assert losses.discriminator_loss(-sure, sure).item() > 9
    unsure = torch.zeros(1)
    assert losses.discriminator_loss(unsure, unsure).item() == pytest.approx(math.log(2))
