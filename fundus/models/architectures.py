"""Configurations of networks, as stored in a bundle's JSON, without torch.

`fundus.models.networks` builds the networks.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fundus.errors import ConfigurationError


@dataclass(frozen=True)
class UNetConfig:
    """The paper's detector: a plain U-Net."""

    outputs: int = 1
    """Maps returned: 1, the disc."""
    width: int = 32
    """Channels of the first level; each of the four groups doubles them (32 to 512)."""


@dataclass(frozen=True)
class DeepLabConfig:
    """The paper's segmenter: DeepLabv3+ on the first four groups of MobileNetV2."""

    outputs: int = 2
    """Maps returned: disc (cup included), then cup."""
    aspp_channels: int = 256
    """Channels of each of the five ASPP branches."""
    low_channels: int = 32
    """Channels that the stride-4 features are reduced to."""
    rates: tuple[int, int, int] = (6, 12, 18)
    """Dilations of the three 3x3 branches, in stride-8 pixels."""
    dropout: float = 0.1
    """Dropout after the ASPP."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rates", tuple(self.rates))


@dataclass(frozen=True)
class EnsembleConfig:
    """Several networks of one architecture, trained from several seeds of one recipe."""

    member: DeepLabConfig = field(default_factory=DeepLabConfig)
    """The architecture of each member."""
    count: int = 3
    """The number of members."""

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ConfigurationError(f"an ensemble of {self.count}: give 2 or more members")
        if isinstance(self.member, Mapping):  # from a bundle's JSON
            object.__setattr__(self, "member", DeepLabConfig(**self.member))


NetworkConfig = UNetConfig | DeepLabConfig | EnsembleConfig

ARCHITECTURES: dict[str, type[UNetConfig] | type[DeepLabConfig] | type[EnsembleConfig]] = {
    "unet": UNetConfig,
    "deeplab": DeepLabConfig,
    "ensemble": EnsembleConfig,
}


def describe(config: NetworkConfig) -> dict[str, Any]:
    """A configuration as values for JSON, with its `architecture`; `parse` is the inverse."""
    (name,) = (name for name, kind in ARCHITECTURES.items() if isinstance(config, kind))
    return {"architecture": name} | asdict(config)


def parse(described: Mapping[str, Any]) -> NetworkConfig:
    """The inverse of `describe`; ConfigurationError for an unknown architecture or field."""
    fields = dict(described)
    architecture = fields.pop("architecture", None)
    if architecture not in ARCHITECTURES:
        raise ConfigurationError(
            f"architecture {architecture!r} is none of {', '.join(ARCHITECTURES)}"
        )
    try:
        return ARCHITECTURES[architecture](**fields)
    except TypeError as error:
        raise ConfigurationError(f"{architecture}: {error}") from error


def count(config: NetworkConfig) -> int:
    """The number of networks: the members of an ensemble, or one."""
    return config.count if isinstance(config, EnsembleConfig) else 1
