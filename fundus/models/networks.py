"""The paper's networks: detector, segmenter, and the global and patch discriminators.

Parts come from torchvision (MobileNetV2) and segmentation-models-pytorch (ASPP, separable
convolutions, the U-Net's blocks). Networks take pictures as (N, 3, H, W) float in [-1, 1] and
return logits; the sigmoid of the paper is applied by losses and predictor, where it is stable.
"""

from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from segmentation_models_pytorch.base.modules import Conv2dReLU
from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPP, SeparableConv2d
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from fundus.errors import ConfigurationError
from fundus.models.architectures import DeepLabConfig, EnsembleConfig, NetworkConfig, UNetConfig

LEAK = 0.2
"""Negative slope of every leaky ReLU (paper, section 3)."""


class UNet(nn.Module):
    """U-Net with four down and four up groups of two 3x3 convolutions, no normalisation."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        widths = [config.width * 2**level for level in range(5)]
        self.down = nn.ModuleList(
            _two_convolutions(entering, leaving)
            for entering, leaving in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(entering, leaving, kernel_size=2, stride=2)
            for entering, leaving in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.join = nn.ModuleList(_two_convolutions(2 * w, w) for w in widths[-2::-1])
        self.head = nn.Conv2d(config.width, config.outputs, kernel_size=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1], H and W multiples of 16 -> (N, outputs, H, W) logits."""
        skips: list[Tensor] = []
        features = pictures
        for level, block in enumerate(self.down):
            features = block(F.max_pool2d(features, 2) if level else features)
            skips.append(features)
        for up, join, skip in zip(self.up, self.join, skips[-2::-1], strict=True):
            features = join(torch.cat([up(features), skip], dim=1))
        return self.head(features)


class DeepLab(nn.Module):
    """DeepLabv3+ at stride 8: MobileNetV2 to 64 channels, separable ASPP, light decoder."""

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.encoder = _dilated_mobilenet()
        width = config.aspp_channels
        aspp = ASPP(64, width, config.rates, separable=True, dropout=config.dropout)
        low = Conv2dReLU(24, config.low_channels, kernel_size=1, use_norm="batchnorm")
        joined = width + config.low_channels
        decoder = nn.Sequential(
            *_separable(joined, width),
            *_separable(width, width),
            nn.Conv2d(width, config.outputs, 1),
        )
        self.aspp, self.low, self.decoder = map(_leaky, (aspp, low, decoder))

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1], H and W multiples of 8 -> (N, outputs, H, W) logits."""
        logits = self.coarse(pictures)
        return F.interpolate(logits, size=pictures.shape[-2:], mode="bilinear", align_corners=False)

    def coarse(self, pictures: Tensor) -> Tensor:
        """As `forward`, but (N, outputs, H / 4, W / 4): the logits before they are scaled up."""
        low = self.encoder[:4](pictures)
        high = self.aspp(self.encoder[4:](low))
        high = F.interpolate(high, size=low.shape[-2:], mode="bilinear", align_corners=False)
        return self.decoder(torch.cat([high, self.low(low)], dim=1))


class Ensemble(nn.Module):
    """Several segmenters as one: the mean of their probabilities."""

    def __init__(self, config: EnsembleConfig) -> None:
        super().__init__()
        self.members = nn.ModuleList(DeepLab(config.member) for _ in range(config.count))

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, outputs, H, W) logits of the mean probability."""
        maps = torch.stack([member(pictures).float().sigmoid() for member in self.members])
        return torch.logit(maps.mean(dim=0), eps=1e-6)


def members(network: nn.Module) -> list[nn.Module]:
    """An ensemble's networks, or the one network itself."""
    return list(network.members) if isinstance(network, Ensemble) else [network]


class Discriminator(nn.Module):
    """Tells source maps from target maps: five 4x4 convolutions of stride 2.

    With `patch` it returns a map, one value per patch of 94 pixels (pOSAL). Otherwise the values
    are averaged into one (the paper's global pooling).
    """

    def __init__(self, maps: int = 2, *, patch: bool) -> None:
        super().__init__()
        widths = [maps, 64, 128, 256, 512]
        layers: list[nn.Module] = []
        for entering, leaving in pairwise(widths):
            layers += [nn.Conv2d(entering, leaving, 4, 2, 1), nn.LeakyReLU(LEAK, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(512, 1, 4, 2, 1))
        self.patch = patch

    def forward(self, probabilities: Tensor) -> Tensor:
        """(N, 2, H, W) in [0, 1] -> logits of "source": (N, 1, H/32, W/32), or (N, 1) if global."""
        answers = self.layers(probabilities)
        return answers if self.patch else answers.mean(dim=(2, 3))


def build(config: NetworkConfig) -> nn.Module:
    """The network that a configuration describes, freshly initialised."""
    if isinstance(config, UNetConfig):
        return UNet(config)
    return DeepLab(config) if isinstance(config, DeepLabConfig) else Ensemble(config)


def to_input(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 RGB -> float32 in [-1, 1], channels last in memory (faster)."""
    return (pictures.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


class ToInput(nn.Module):
    """`to_input` as a layer, for a graph that takes pictures as they are."""

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB -> float32 in [-1, 1]."""
        return to_input(pictures)


class Coarse(nn.Module):
    """A network's logits before they are scaled up, as a layer of a graph."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, outputs, H, W) logits, or a quarter of the sides."""
        network = self.network
        return network.coarse(pictures) if isinstance(network, DeepLab) else network(pictures)


def start_from_imagenet(network: DeepLab, weights: Path | None) -> None:
    """Load ImageNet weights into the encoder, in place.

    `weights` is a safetensors file with torchvision's keys (`features.0...` to `features.10...`);
    None downloads those of torchvision, which needs a network connection.
    """
    if weights is None:
        state = mobilenet_v2(weights=MobileNet_V2_Weights.IMAGENET1K_V2).state_dict()
    else:
        state = load_file(weights)
    wanted = network.encoder.state_dict()
    missing = [key for key in wanted if f"features.{key}" not in state and "num_batches" not in key]
    if missing:
        raise ConfigurationError(f"{weights or 'torchvision'}: no encoder weights for {missing[0]}")
    found = {key: state[f"features.{key}"] for key in wanted if f"features.{key}" in state}
    network.encoder.load_state_dict(found, strict=False)


def _dilated_mobilenet() -> nn.Sequential:
    """MobileNetV2 up to its 64-channel group, whose stride becomes dilation 2: stride 8 in all.

    `[:4]` ends at stride 4 with 24 channels, the rest at stride 8 with 64.
    """
    encoder = mobilenet_v2(weights=None).features[:11]
    for block in encoder[7:11]:
        depthwise = block.conv[1][0]
        depthwise.stride, depthwise.dilation, depthwise.padding = (1, 1), (2, 2), (2, 2)
    return encoder


def _two_convolutions(entering: int, leaving: int) -> nn.Sequential:
    return nn.Sequential(
        Conv2dReLU(entering, leaving, kernel_size=3, padding=1, use_norm=False),
        Conv2dReLU(leaving, leaving, kernel_size=3, padding=1, use_norm=False),
    )


def _separable(entering: int, leaving: int) -> tuple[nn.Module, ...]:
    convolution = SeparableConv2d(entering, leaving, kernel_size=3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(leaving), nn.ReLU(inplace=True)


def _leaky(module: nn.Module) -> nn.Module:
    """Replace each ReLU by the paper's leaky one, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, nn.LeakyReLU(LEAK, inplace=True))
        else:
            _leaky(child)
    return module
