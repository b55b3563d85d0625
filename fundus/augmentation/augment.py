"""Augmentation of pictures and masks together, by the eight kinds that the paper names.

The kinds are flip, rotation, translation, scale, elastic transform, salt and pepper noise, light
and region erasing. Transforms take a `tv_tensors.Image` ((3, S, S) uint8 RGB) and a
`tv_tensors.Mask` ((S, S) uint8). They draw from torch's global generator, so a seed determines all.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF
from torchvision.tv_tensors import Image, Mask


class Elastic(v2.Transform):
    """Smooth random displacement, drawn on a coarse grid and enlarged.

    torchvision's ElasticTransform blurs full-size noise with a kernel as wide as the picture, which
    is slow at the released code's sigma of 0.08 sides. A grid of 8 x 8 is as smooth, and a strength
    of 0.008 sides has the spread of the released code's alpha of 2 sides.
    """

    def __init__(self, strength: float = 0.008, cells: int = 8) -> None:
        super().__init__()
        self.strength, self.cells = strength, cells

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """A (1, S, S, 2) displacement with a standard deviation of about `strength` sides."""
        size = v2.query_size(flat_inputs)
        coarse = torch.randn(1, 2, self.cells, self.cells) * 2 * self.strength  # [-1, 1] is a side
        smooth = F.interpolate(coarse, size=size, mode="bicubic", align_corners=False)
        return {"displacement": smooth.permute(0, 2, 3, 1)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Displace one input: pictures bilinearly, masks to the nearest label."""
        return self._call_kernel(TF.elastic, inpt, params["displacement"])


class OnPicture(v2.Transform):
    """Base of transforms that change the picture and leave the mask as it is."""

    _transformed_types = (Image,)


class SaltAndPepper(OnPicture):
    """Set a share of the pixels to black or white."""

    def __init__(self, share: float = 0.004) -> None:
        super().__init__()
        self.share = share

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Set `share` of the pixels of a (3, S, S) picture to 0 or 255, half each."""
        draw = torch.rand(inpt.shape[-2:])
        salted = inpt.masked_fill(draw < self.share / 2, 255)
        return salted.masked_fill(draw > 1 - self.share / 2, 0)


class Light(OnPicture):
    """Random gamma, which brightens or darkens without clipping."""

    def __init__(self, low: float = 0.6, high: float = 1.6) -> None:
        super().__init__()
        self.low, self.high = low, high

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """A gamma between `low` and `high`."""
        return {"gamma": torch.empty(1).uniform_(self.low, self.high).item()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Apply the gamma to a (3, S, S) uint8 picture."""
        return TF.adjust_gamma(inpt, params["gamma"])


class Erase(OnPicture):
    """Set a random rectangle of 2 to 6 % of the picture to mid-grey."""

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__()
        self.erasing = v2.RandomErasing(probability, scale=(0.02, 0.06), value=127)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Erase in a (3, S, S) uint8 picture."""
        return self.erasing(inpt)


class FewerPixels(OnPicture):
    """Reduce the resolution by a factor of 1 to `most` per side, as of a poorer camera."""

    def __init__(self, most: float = 2.5) -> None:
        super().__init__()
        self.most = most

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """A factor between 1 and `most`."""
        return {"factor": torch.empty(1).uniform_(1, self.most).item()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Shrink and enlarge a (3, S, S) uint8 picture."""
        side = inpt.shape[-1]
        small = TF.resize(inpt, [max(8, round(side / params["factor"]))], antialias=True)
        return TF.resize(small, [side], antialias=True)


class Border(OnPicture):
    """Sometimes fill the black border around the field of view with white or a random colour."""

    def __init__(self, probability: float = 0.1) -> None:
        super().__init__()
        self.probability = probability

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """A colour, (3,) uint8; None leaves the border as it is."""
        if torch.rand(()) >= self.probability:
            return {"colour": None}
        white = torch.rand(()) < 0.5
        return {"colour": torch.full((3,), 255) if white else torch.randint(256, (3,))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Fill the black pixels of a (3, S, S) uint8 picture, in which no channel reaches 10."""
        if params["colour"] is None:
            return inpt
        colour = params["colour"].to(torch.uint8)[:, None, None]
        return Image(torch.where(inpt.amax(0) < 10, colour, inpt.as_subclass(Tensor)))


def paper(*, scale: tuple[float, float] = (0.5, 1.5)) -> v2.Transform:
    """All eight kinds at the strengths of the released code."""
    return v2.Compose([_geometry(scale=scale), Light(), SaltAndPepper(), Erase()])


def strong(*, scale: tuple[float, float] = (0.7, 1.4)) -> v2.Transform:
    """The paper's kinds, and differences between cameras: border, colour, contrast, sharpness."""
    return v2.Compose(
        [
            Border(),
            _geometry(scale=scale),
            _PictureOnly(v2.ColorJitter(0.35, 0.35, 0.35, 0.06)),
            Light(),
            v2.RandomApply([_PictureOnly(v2.GaussianBlur(5, (0.3, 1.5)))], p=0.3),
            v2.RandomApply([SaltAndPepper()], p=0.3),
            Erase(),
        ]
    )


def moderate() -> v2.Transform:
    """Small movements and colour changes, which a short training on small inputs can learn."""
    return v2.Compose(
        [
            _geometry(scale=(0.8, 1.2), degrees=25, translate=0.05),
            v2.RandomApply([_PictureOnly(v2.ColorJitter(0.3, 0.3, 0.3, 0.04))], p=0.7),
            v2.RandomApply([Light()], p=0.5),
            v2.RandomApply([_PictureOnly(v2.GaussianBlur(5, (0.3, 1.5)))], p=0.2),
        ]
    )


def varied() -> v2.Transform:
    """`moderate` movements, and the colours and sharpness of many cameras."""
    return v2.Compose(
        [
            _geometry(scale=(0.8, 1.25), degrees=25, translate=0.06),
            v2.RandomApply([_PictureOnly(v2.ColorJitter(0.4, 0.4, 0.5, 0.06))], p=0.9),
            v2.RandomApply([Light()], p=0.5),
            v2.RandomApply([FewerPixels()], p=0.3),
            v2.RandomApply([_PictureOnly(v2.GaussianBlur(7, (0.3, 2.0)))], p=0.2),
            v2.RandomApply([_PictureOnly(v2.RandomAdjustSharpness(3.0, p=1.0))], p=0.2),
            v2.RandomApply([_PictureOnly(v2.JPEG((30, 95)))], p=0.2),
        ]
    )


def flips() -> v2.Transform:
    """Flips only, the minimum for comparison."""
    return v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])


NAMED = {
    "paper": paper,
    "strong": strong,
    "moderate": moderate,
    "varied": varied,
    "flips": flips,
}


def apply(transform: v2.Transform, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Transform (N, 3, S, S) uint8 pictures and (N, S, S) uint8 masks, each pair separately."""
    pairs = [transform(Image(image), Mask(mask)) for image, mask in zip(images, masks, strict=True)]
    pictures, labels = zip(*pairs, strict=True)
    return torch.stack(pictures).as_subclass(Tensor), torch.stack(labels).as_subclass(Tensor)


class _PictureOnly(OnPicture):
    """One of torchvision's transforms, for the picture alone."""

    def __init__(self, inner: v2.Transform) -> None:
        super().__init__()
        self.inner = inner

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self.inner(inpt)


class _WithMargin(v2.Transform):
    """A movement of a picture that is continued by reflection, so that no black moves in.

    Black corners showed the network where the ROI ends, and it drew discs too large in pictures
    without such corners (docs/experiments.md).
    """

    def __init__(self, inner: v2.Transform, share: float = 0.15) -> None:
        super().__init__()
        self.inner, self.share = inner, share

    def forward(self, *inputs: Any) -> Any:
        """(3, S, S) picture and (S, S) mask -> both, moved in the same way, of the same size."""
        side = inputs[0].shape[-1]
        margin = int(self.share * side)
        padded = [TF.pad(each, [margin], padding_mode="reflect") for each in inputs]
        return tuple(TF.center_crop(each, [side, side]) for each in self.inner(*padded))


def _geometry(
    scale: tuple[float, float], degrees: float = 180, translate: float = 0.1
) -> v2.Transform:
    movement = v2.Compose(
        [
            v2.RandomAffine(
                degrees=degrees,
                translate=(translate, translate),
                scale=scale,
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.RandomApply([Elastic()], p=0.5),
        ]
    )
    return v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), _WithMargin(movement)])
