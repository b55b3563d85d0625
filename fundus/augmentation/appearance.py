"""Colour of one camera given to another's pictures: each of two ways, chosen at random.

Both take what a camera decides (colours, light) from an unlabelled picture of the target and leave
where things are: labels stay valid.
"""

from typing import Any

import torch
from torch import Tensor
from torchvision.tv_tensors import Image

from fundus.augmentation.augment import OnPicture


class LikeTarget(OnPicture):
    """With a share each: colour statistics, or low-frequency amplitude, of a target picture."""

    def __init__(self, targets: Tensor, reinhard: float = 0.35, fourier: float = 0.35) -> None:
        super().__init__()
        self.targets, self.reinhard, self.fourier = targets, reinhard, fourier

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Which target picture, which way, how far (uniform in [0.3, 1])."""
        return {
            "target": self.targets[int(torch.randint(len(self.targets), ()))],
            "way": torch.rand(()).item(),
            "strength": torch.empty(()).uniform_(0.3, 1).item(),
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """A (3, S, S) uint8 picture, recoloured or not."""
        target, strength = params["target"].float(), params["strength"]
        picture = inpt.as_subclass(Tensor).float()
        if params["way"] < self.reinhard:
            changed = colour_statistics(picture, target)
        elif params["way"] < self.reinhard + self.fourier:
            changed = low_frequencies(picture, target)
        else:
            return inpt
        mixed = picture + strength * (changed - picture)
        return Image(mixed.clamp(0, 255).round().to(torch.uint8))


def colour_statistics(picture: Tensor, target: Tensor) -> Tensor:
    """Reinhard et al. 2001, by channel: mean and spread of the target's exposed pixels.

    (3, S, S) float RGB in [0, 255] twice -> the same, not clamped. Black corners and borders, in
    which no channel reaches 10, are no part of either statistic and stay black.
    """
    seen, like = _exposed(picture), _exposed(target)
    if seen.sum() < 2 or like.sum() < 2:
        return picture
    mean, spread = picture[:, seen].mean(1), picture[:, seen].std(1) + 1e-3
    mean_trg, spread_trg = target[:, like].mean(1), target[:, like].std(1)
    moved = (picture - mean[:, None, None]) * (spread_trg / spread)[:, None, None]
    return torch.where(seen, moved + mean_trg[:, None, None], picture)


def low_frequencies(picture: Tensor, target: Tensor, share: float = 0.01) -> Tensor:
    """FDA (Yang and Soatto 2020): the target's amplitude in the lowest frequencies, own phase.

    (3, S, S) float twice -> (3, S, S) float, not clamped. `share` is the half width of the square
    that is exchanged, in sides; at least the mean colour is.
    """
    spectrum, spectrum_trg = torch.fft.fft2(picture), torch.fft.fft2(target)
    low = (torch.fft.fftfreq(picture.shape[-1]).abs() <= share).float()
    exchanged = low[:, None] * low[None, :]
    amplitude = torch.lerp(spectrum.abs(), spectrum_trg.abs(), exchanged)
    return torch.fft.ifft2(torch.polar(amplitude, spectrum.angle())).real


def _exposed(picture: Tensor) -> Tensor:
    return picture.amax(dim=0) >= 10
