"""Pictures without a disc, made from labelled ones, as negatives for the detector.

Each kind takes a (3, S, S) float RGB picture in [0, 1] and its (S, S) bool disc, and draws from
torch's global generator. It returns a picture of the same shape, not clamped, without a disc that
could be measured; None if the picture does not allow it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF
from torchvision.tv_tensors import Image, Mask


class WithoutDisc(v2.Transform):
    """Replace a share of pictures by ones without a disc, with empty masks."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, *inputs: Any) -> Any:
        """(3, S, S) uint8 picture and (S, S) uint8 mask -> both, as they were or without a disc."""
        picture, mask = inputs
        if torch.rand(()) >= self.share:
            return picture, mask
        kind = KINDS[int(torch.randint(len(KINDS), ()))]
        return next(filter(None, (make(k, picture, mask) for k in (kind, away, dark))))


Kind = Callable[[Tensor, Tensor], Tensor | None]


def make(kind: Kind, picture: Tensor, mask: Tensor) -> tuple[Image, Mask] | None:
    """Make one (3, S, S) uint8 picture of a kind, with an empty mask; None if `kind` fails."""
    made = kind(picture.as_subclass(Tensor).float() / 255, mask.as_subclass(Tensor) > 0)
    if made is None:
        return None
    return Image((made.clamp(0, 1) * 255).round().to(torch.uint8)), Mask(torch.zeros_like(mask))


def mirrored(picture: Tensor, disc: Tensor) -> Tensor | None:
    """Mirror the half of the frame without the disc over the half with the disc.

    The retina keeps its scale, and the macula its location. None if the disc is on both axes.
    """
    for quarters in torch.randperm(4).tolist():
        turned, where = (torch.rot90(each, quarters, (-2, -1)) for each in (picture, disc))
        half = disc.shape[-1] // 2
        if not where[:, :half].any():
            empty = turned[..., :half]
            whole = torch.cat([empty, empty.flip(-1)], dim=-1)
            return torch.rot90(F.pad(whole, (0, disc.shape[-1] % 2)), -quarters, (-2, -1))
    return None


def away(picture: Tensor, disc: Tensor) -> Tensor | None:
    """Enlarge a window without the disc, of a third to two thirds of the side.

    None if no such window with retina in it is found.
    """
    side = disc.shape[-1]
    for _ in range(20):
        size = int(side * _between(0.33, 0.67))
        y, x = (int(torch.randint(side - size + 1, ())) for _ in range(2))
        window = picture[:, y : y + size, x : x + size]
        if not disc[y : y + size, x : x + size].any() and window.amax(0).mean() > 0.1:
            window = _resized(window, side)
            return window * _field(side) if torch.rand(()) < 0.5 else window
    return None


def angiogram(picture: Tensor, disc: Tensor) -> Tensor:
    """Grey with bright vessels: the inverted green channel, or its fine detail with speckle."""
    green = picture[1:2]
    exposed = (picture.amax(0, keepdim=True) > 0.05).float()
    if torch.rand(()) < 0.5:
        low, high = torch.quantile(green, 0.05), torch.quantile(green, 0.98)
        grey = 1 - (green - low) / (high - low + 1e-3)
        grey = grey.clamp(0, 1) ** _between(0.6, 2) * exposed
    else:
        smooth = F.avg_pool2d(green, 15, stride=1, padding=7, count_include_pad=False)
        detail = (smooth - green) / (green.std() * 0.25 + 1e-3)
        speckle = torch.randn_like(green) * _between(0.05, 0.25)
        grey = (detail + speckle + _between(-0.1, 0.3)) * exposed
    return grey.repeat(3, 1, 1)


def widefield(picture: Tensor, disc: Tensor) -> Tensor:
    """The look of ultra-widefield: hardly any blue, no round border, a disc of a third its size."""
    side = disc.shape[-1]
    size = int(side * _between(0.25, 0.45))
    top, left = (int(_between(0.1, 0.9) * (side - size)) for _ in range(2))
    axis = torch.linspace(-1, 1, size)
    inside = ((0.95 - torch.hypot(axis[:, None], axis[None])) * 4).clamp(0, 1)  # soft border
    wide = blurred(picture[:, side // 6 : -side // 6, side // 6 : -side // 6], disc)
    window = wide[:, top : top + size, left : left + size]
    window.lerp_(_resized(picture, size), inside)
    wide = wide * torch.tensor([[[_between(0.5, 1)]], [[_between(0.7, 1.3)]], [[_between(0, 0.3)]]])
    band = int(side * _between(0, 0.25))  # as of a wide picture in a square
    wide[:, :band] = wide[:, side - band :] = 0
    return wide


def dark(picture: Tensor, disc: Tensor) -> Tensor:
    """Nearly unexposed: at most 8 % of the light, with the noise of a sensor."""
    return picture * _between(0, 0.08) + torch.randn_like(picture) * _between(0, 0.015)


def blurred(picture: Tensor, disc: Tensor) -> Tensor:
    """Blurred until a disc could be anywhere: 3 to 6 blocks per side, enlarged smoothly."""
    coarse = F.adaptive_avg_pool2d(picture, int(torch.randint(3, 7, ())))
    return _resized(coarse, disc.shape[-1])


def texture(picture: Tensor, disc: Tensor) -> Tensor:
    """Not a fundus: random colours at four scales, half of the pictures in a round field."""
    side = disc.shape[-1]
    layers = [
        _resized(torch.randn(3, cells, cells) * _between(0, 0.2), side)
        for cells in (3, 8, 24, side)
    ]
    made = torch.rand(3, 1, 1) + torch.stack(layers).sum(0)
    return made * _field(side) if torch.rand(()) < 0.5 else made


KINDS: tuple[Kind, ...] = (
    mirrored,
    mirrored,  # twice, because frames of the macula are the most frequent ones without a disc
    away,
    angiogram,
    widefield,
    dark,
    blurred,
    texture,
)
"""All kinds; each is drawn as often as it is listed."""


def _between(low: float, high: float) -> float:
    return torch.empty(()).uniform_(low, high).item()


def _resized(picture: Tensor, side: int) -> Tensor:
    return TF.resize(picture, [side, side], v2.InterpolationMode.BICUBIC, antialias=True)


def _field(side: int) -> Tensor:
    """(S, S) float: 1 in a round field of view, 0 in its border."""
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    return (torch.hypot(axis[:, None], axis[None]) < _between(0.9, 1.2)).float()
