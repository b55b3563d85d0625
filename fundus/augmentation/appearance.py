"""The look of one camera transferred to pictures of another, in one of two ways.

Both take colours and light, which depend on the camera, from an unlabelled picture of the target.
Shapes stay where they are, so the labels stay valid.
"""

from typing import Any

import torch
from torch import Tensor
from torchvision.tv_tensors import Image

from fundus.augmentation.augment import OnPicture


class LikeTarget(OnPicture):
    """Transfer the colour statistics or the low-frequency amplitudes of a target picture.

    Args:
        targets: (N, 3, S, S) uint8 pictures of the target.
        reinhard: share of pictures that get colour statistics.
        fourier: share of pictures that get low-frequency amplitudes.
    """

    def __init__(self, targets: Tensor, reinhard: float = 0.35, fourier: float = 0.35) -> None:
        super().__init__()
        self.targets, self.reinhard, self.fourier = targets, reinhard, fourier

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw a target picture, one of the two ways, and a strength in [0.3, 1]."""
        return {
            "target": self.targets[int(torch.randint(len(self.targets), ()))],
            "way": torch.rand(()).item(),
            "strength": torch.empty(()).uniform_(0.3, 1).item(),
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Recolour a (3, S, S) uint8 picture, or return it as it is."""
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
    """Set mean and spread of each channel to those of the target (Reinhard et al. 2001).

    Both pictures are (3, S, S) float RGB in [0, 255]; so is the result, not clamped. Black corners
    and borders, in which no channel reaches 10, are left out of both statistics and stay black.
    """
    seen, like = _exposed(picture), _exposed(target)
    if seen.sum() < 2 or like.sum() < 2:
        return picture
    mean, spread = picture[:, seen].mean(1), picture[:, seen].std(1) + 1e-3
    mean_trg, spread_trg = target[:, like].mean(1), target[:, like].std(1)
    moved = (picture - mean[:, None, None]) * (spread_trg / spread)[:, None, None]
    return torch.where(seen, moved + mean_trg[:, None, None], picture)


def low_frequencies(picture: Tensor, target: Tensor, share: float = 0.01) -> Tensor:
    """Take the target's amplitudes at the lowest frequencies (FDA, Yang and Soatto 2020).

    The phases stay. Both pictures are (3, S, S) float; so is the result, not clamped. `share` is
    the half width of the exchanged square in sides; the mean colour is always exchanged.
    """
    spectrum, spectrum_trg = torch.fft.fft2(picture), torch.fft.fft2(target)
    low = (torch.fft.fftfreq(picture.shape[-1]).abs() <= share).float()
    exchanged = low[:, None] * low[None, :]
    amplitude = torch.lerp(spectrum.abs(), spectrum_trg.abs(), exchanged)
    return torch.fft.ifft2(torch.polar(amplitude, spectrum.angle())).real


def _exposed(picture: Tensor) -> Tensor:
    return picture.amax(dim=0) >= 10
