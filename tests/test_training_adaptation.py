"""The adversarial step does what the paper describes; the opposite would fail these tests."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fundus.datasets.batches import Crops
from fundus.models.networks import DeepLab, DeepLabConfig, Discriminator, to_input
from fundus.models.thresholds import Thresholds
from fundus.training.adaptation import AdaptationLearner, blend_batch_norm, freeze_batch_norm
from fundus.training.loop import run_epochs
from fundus.training.recipes import METHODS, AdaptationRecipe, quick


def crops(count: int, brightness: int) -> Crops:
    generator = torch.Generator().manual_seed(brightness)
    images = torch.randint(
        0, brightness, (count, 3, 64, 64), dtype=torch.uint8, generator=generator
    )
    masks = torch.zeros(count, 64, 64, dtype=torch.uint8)
    masks[:, 16:48, 16:48] = 1
    masks[:, 24:40, 24:40] = 2
    return Crops(tuple(map(str, range(count))), images, masks, np.full(count, 0.5))


def learner(**changes: object) -> AdaptationLearner:
    torch.manual_seed(0)
    recipe = AdaptationRecipe(
        "test",
        batch=4,
        precision="float32",
        augmentation="flips",
        **changes,  # type: ignore[arg-type]
    )
    return AdaptationLearner(
        DeepLab(DeepLabConfig(aspp_channels=8, dropout=0)),
        Discriminator(patch=True),
        recipe,
        crops(8, 255),
        crops(4, 255),
        crops(8, 60),
        thresholds=Thresholds(),
    )


class FullIsSource(nn.Module):
    """A discriminator whose answer rises with every pixel of the maps."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(1, 2, 3)) - 0.5


def says_source(discriminator: nn.Module, maps: Tensor) -> float:
    with torch.no_grad():
        return discriminator(maps).sigmoid().mean().item()


def test_adversarial_phase_moves_target_maps_toward_source() -> None:
    """With a discriminator that calls every full map source, the target's maps must grow.

    The wrong polarity (the released code's) shrinks them.
    """
    adapting = learner(adversarial_weight=1.0)
    adapting.discriminator = judge = FullIsSource()
    pictures = adapting.target.images[:4]
    maps = []
    for _ in range(4):
        adapting._set_modes()
        adapting.optimiser.zero_grad()
        _, maps_trg = adapting._adversarial_phase(pictures)
        adapting.optimiser.step()
        maps.append(maps_trg)
    assert says_source(judge, maps[-1]) > says_source(judge, maps[0])
    assert maps[-1].mean() > maps[0].mean()


def test_discriminator_phase_learns_that_source_is_one_and_target_zero() -> None:
    adapting = learner(discriminator_rate=1e-3)
    full, empty = torch.ones(4, 2, 64, 64), torch.zeros(4, 2, 64, 64)
    for _ in range(30):
        loss = adapting._discriminator_phase(maps_src=full, maps_trg=empty)
    assert says_source(adapting.discriminator, full) > 0.9
    assert says_source(adapting.discriminator, empty) < 0.1
    assert loss.item() < 0.2


def test_each_phase_gives_gradients_to_its_own_network_alone() -> None:
    adapting = learner()
    (source, (pictures_trg, _)), *_ = adapting.batches(0)
    _, maps_src = adapting._source_phase(source)
    _, maps_trg = adapting._adversarial_phase(pictures_trg)
    assert all(p.grad is None for p in adapting.discriminator.parameters())
    before = [p.grad.clone() for p in adapting.segmenter.parameters() if p.grad is not None]
    adapting._discriminator_phase(maps_src, maps_trg)
    after = [p.grad for p in adapting.segmenter.parameters() if p.grad is not None]
    assert before and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not maps_src.requires_grad and not maps_trg.requires_grad


def test_a_step_names_its_losses_and_weight_zero_is_the_control() -> None:
    heads = []
    for weight in (0.0, 0.0, 1.0):
        adapting = learner(adversarial_weight=weight)
        losses = adapting.step(next(iter(adapting.batches(0))))
        assert set(losses) == {"loss_seg_src", "loss_adv_trg", "loss_dis"}
        heads.append(adapting.segmenter.decoder[-1].weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_target_labels_reach_neither_loss_nor_validation() -> None:
    """Garbage in the target's masks changes nothing."""
    results = []
    for garbage in (0, 2):
        adapting = learner()
        adapting.target.masks.fill_(garbage)
        results.append([adapting.step(b) for b in adapting.batches(0)] + [adapting.validate()])
    assert results[0] == results[1]


def test_frozen_batch_norm_keeps_the_sources_statistics() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    freeze_batch_norm(network)
    network(torch.rand(2, 3, 8, 8) + 5)
    assert torch.equal(network[1].running_mean, torch.zeros(4))
    assert network[0].training


@pytest.mark.parametrize("field", ["epochs", "batch", "learning_rate"])
def test_a_recipe_with_a_zero_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is 0"):
        AdaptationRecipe("test", **{field: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 16, 17, 33])
def test_the_default_recipe_adapts_to_any_number_of_pictures(
    count: int, method: Literal["output-adversarial", "self-training"]
) -> None:
    """With blended batch norm: a slice of one leftover picture once crashed."""
    torch.manual_seed(0)
    adapting = AdaptationLearner(
        DeepLab(DeepLabConfig(aspp_channels=8)),
        Discriminator(patch=True),
        replace(quick().adaptation, method=method, epochs=1, precision="float32"),
        crops(16, 255),
        crops(4, 255),
        crops(count, 60),
        thresholds=Thresholds(),
    )
    [row] = run_epochs(adapting, 1)
    target_loss = {"output-adversarial": "loss_adv_trg", "self-training": "loss_seg_trg"}[method]
    assert np.isfinite([row["loss_seg_src"], row[target_loss]]).all()
    weights = adapting.average.module.state_dict().values()
    assert all(torch.isfinite(value.float()).all() for value in weights)


@pytest.mark.parametrize("count", [1, 17, 18])
def test_every_target_picture_weighs_the_same_in_the_statistics(count: int) -> None:
    """Slices of 16 gave the last picture of 17 the weight of the first sixteen together."""
    network = nn.Sequential(nn.BatchNorm2d(3))
    pictures = torch.randint(0, 255, (count, 3, 8, 8), dtype=torch.uint8)
    blend_batch_norm(network, pictures, 1.0)
    seen = to_input(pictures).mean(dim=(0, 2, 3))
    torch.testing.assert_close(network[0].running_mean, seen)


def test_a_single_value_leaves_the_variance_of_the_source() -> None:
    """After this pooling, one picture gives one value per channel, which has no variance."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    network[1].running_var.fill_(4)
    blend_batch_norm(network, torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 1.0)
    assert network[1].running_var.tolist() == [4, 4, 4]
