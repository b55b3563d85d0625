"""The networks are those of the paper: sizes, strides, receptive fields."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fundus.models.architectures import (
    DeepLabConfig,
    EnsembleConfig,
    NetworkConfig,
    UNetConfig,
    describe,
    parse,
)
from fundus.models.networks import (
    DeepLab,
    Discriminator,
    Ensemble,
    UNet,
    build,
    start_from_imagenet,
    to_input,
)

ENCODER = "weights/mobilenet_v2_imagenet_first4groups.safetensors"


def test_segmenter_gives_two_full_size_maps_from_800_thousand_weights() -> None:
    segmenter = DeepLab(DeepLabConfig()).eval()
    assert segmenter(torch.zeros(1, 3, 96, 64)).shape == (1, 2, 96, 64)
    assert 0.75e6 < sum(p.numel() for p in segmenter.parameters()) < 0.85e6


def test_encoder_ends_at_stride_8_with_dilation_instead_of_stride() -> None:
    encoder = DeepLab(DeepLabConfig()).eval().encoder
    assert encoder[:4](torch.zeros(1, 3, 64, 64)).shape == (1, 24, 16, 16)
    assert encoder(torch.zeros(1, 3, 64, 64)).shape == (1, 64, 8, 8)
    assert [block.conv[1][0].dilation for block in encoder[7:11]] == [(2, 2)] * 4


def test_detector_has_five_levels_and_no_normalisation() -> None:
    detector = UNet(UNetConfig()).eval()
    assert detector(torch.zeros(1, 3, 64, 32)).shape == (1, 1, 64, 32)
    widths = [m.out_channels for m in detector.modules() if isinstance(m, nn.Conv2d)]
    assert max(widths) == 512
    assert not any(isinstance(m, nn.BatchNorm2d) for m in detector.modules())


def test_discriminator_answers_once_or_per_patch_of_94_pixels() -> None:
    maps = torch.rand(1, 2, 256, 256, requires_grad=True)
    assert Discriminator(patch=False)(maps).shape == (1, 1)
    answers = Discriminator(patch=True)(maps)
    assert answers.shape == (1, 1, 8, 8)
    answers[0, 0, 4, 4].backward()
    assert maps.grad is not None
    seen = maps.grad.abs().sum(dim=(0, 1)) > 0
    assert seen.any(dim=0).sum() == seen.any(dim=1).sum() == 94


SLIM = DeepLabConfig(aspp_channels=16)


@pytest.mark.parametrize("config", [UNetConfig(width=8), SLIM, EnsembleConfig(SLIM, 2)])
def test_a_network_is_rebuilt_from_its_description(config: NetworkConfig) -> None:
    again = parse(json.loads(json.dumps(describe(config))))
    assert again == config
    build(again).load_state_dict(build(config).state_dict())


def test_an_ensemble_gives_the_mean_of_its_members_probabilities() -> None:
    torch.manual_seed(0)
    ensemble = build(EnsembleConfig(SLIM, 2)).eval()
    assert isinstance(ensemble, Ensemble)
    pictures = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        one, other = (member(pictures).sigmoid() for member in ensemble.members)
        assert not torch.allclose(one, other)
        assert torch.allclose(ensemble(pictures).sigmoid(), (one + other) / 2, atol=1e-6)


def test_an_unknown_architecture_or_field_is_refused() -> None:
    with pytest.raises(ValueError, match="'vit' is none of"):
        parse({"architecture": "vit"})
    with pytest.raises(ValueError, match="depth"):
        parse({"architecture": "unet", "depth": 9})


def test_imagenet_weights_come_from_a_local_file(fundus_data: Path) -> None:
    segmenter = DeepLab(DeepLabConfig())
    before = segmenter.encoder[0][0].weight.clone()
    start_from_imagenet(segmenter, fundus_data / ENCODER)
    assert not torch.equal(segmenter.encoder[0][0].weight, before)


def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.safetensors")
    with pytest.raises(ValueError, match=r"resnet.safetensors: no encoder weights"):
        start_from_imagenet(DeepLab(DeepLabConfig()), tmp_path / "resnet.safetensors")


def test_pictures_are_scaled_to_minus_one_to_one() -> None:
    inputs = to_input(torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2))
    assert inputs.flatten().tolist() == [-1, 1]
