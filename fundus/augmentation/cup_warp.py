"""The anatomical warp: widens or narrows a cup inside its disc, in picture and mask together.

Data sets contain few large cups. The warp makes labelled eyes of the sizes that they lack.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask

RAYS = 64
"""Directions in which the outlines are measured around the cup's centre."""


class CupWarp(v2.Transform):
    """With probability p, change the vCDR towards a value drawn from [low, high], within limits.

    Along each ray from the cup's centre, the edge of the cup moves to its new radius. The edge of
    the disc and everything outside it stay. Between them the map is linear in the radius.
    """

    def __init__(self, p: float = 0.4, low: float = 0.25, high: float = 0.9) -> None:
        super().__init__()
        self.p, self.low, self.high = p, low, high

    def forward(self, *inputs: Any) -> Any:
        """(3, S, S) uint8 picture and (S, S) mask -> both, warped in the same way."""
        picture, mask = inputs
        if torch.rand(()) >= self.p:
            return picture, mask
        wanted = torch.empty(()).uniform_(self.low, self.high).item()
        grid = cup_warp_grid(mask.as_subclass(Tensor), wanted)
        if grid is None:
            return picture, mask
        moved = _sample(picture.as_subclass(Tensor).float(), grid, "bilinear")
        labels = _sample(mask.as_subclass(Tensor)[None].float(), grid, "nearest")[0]
        return Image(moved.round().to(torch.uint8)), Mask(labels.to(torch.uint8))


def cup_warp_grid(
    mask: Tensor, wanted_vcdr: float, narrowest: float = 0.8, widest: float = 1.6
) -> Tensor | None:
    """The sampling grid of the warp.

    The cup is scaled by the ratio of wanted to present vCDR, within `narrowest` and `widest`: a
    pale excavation that is narrowed further does not look like an eye. It reaches at most 95 % of
    the way from its edge to the edge of the disc.

    Args:
        mask: (S, S) {0, 1, 2}.
        wanted_vcdr: the vCDR to approach.
        narrowest, widest: limits of the scale.

    Returns:
        (1, S, S, 2) in [-1, 1], the origin of each pixel; None without a disc and a cup.
    """
    side = mask.shape[-1]
    disc, cup = mask > 0, mask == 2
    if cup.sum() < 16 or disc.sum() <= cup.sum():
        return None
    rows, columns = torch.nonzero(cup, as_tuple=True)
    y, x = rows.float().mean(), columns.float().mean()
    height, cup_height = (_extent(m) for m in (disc, cup))
    scale = min(max(wanted_vcdr * height / cup_height, narrowest), widest)
    grid_y, grid_x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    dy, dx = grid_y - y, grid_x - x
    radius = torch.hypot(dy, dx)
    turn = (torch.atan2(dy, dx) / (2 * math.pi) * RAYS) % RAYS
    edges = torch.stack([_radii(m, dy, dx, radius, turn) for m in (cup, disc)])
    cup_edge, disc_edge = _by_angle(edges, turn)
    new_edge = torch.minimum(cup_edge * scale, cup_edge + 0.95 * (disc_edge - cup_edge))
    inner = radius / new_edge.clamp(min=1e-3) * cup_edge
    share = (radius - new_edge) / (disc_edge - new_edge).clamp(min=1e-3)
    outer = cup_edge + share * (disc_edge - cup_edge)
    origin = torch.where(radius < new_edge, inner, outer)
    origin = torch.where(radius < disc_edge, origin, radius)
    factor = origin / radius.clamp(min=1e-3)
    points = torch.stack([x + dx * factor, y + dy * factor], dim=-1)
    return ((points + 0.5) * 2 / side - 1)[None]


def _radii(inside: Tensor, dy: Tensor, dx: Tensor, radius: Tensor, turn: Tensor) -> Tensor:
    """The largest radius of a region in each of RAYS directions, smoothed over neighbours."""
    ray = turn.long() % RAYS
    far = torch.zeros(RAYS).scatter_reduce(
        0, ray[inside], radius[inside], reduce="amax", include_self=True
    )
    known = far > 0
    far = torch.where(known, far, far[known].mean() if known.any() else far)
    ring = torch.cat([far[-2:], far, far[:2]])[None, None]
    return F.avg_pool1d(ring, 5, 1)[0, 0] + 0.5


def _by_angle(edges: Tensor, turn: Tensor) -> Tensor:
    """(K, RAYS) radii -> (K, S, S) in the direction of each pixel, linear between ray centres."""
    position = turn - 0.5
    low = torch.floor(position).long()
    share = position - low
    return torch.lerp(edges[:, low % RAYS], edges[:, (low + 1) % RAYS], share)


def _extent(inside: Tensor) -> int:
    rows = torch.nonzero(inside.any(dim=1))
    return int(rows.max() - rows.min()) + 1


def _sample(values: Tensor, grid: Tensor, mode: str) -> Tensor:
    return F.grid_sample(values[None], grid, mode=mode, padding_mode="border", align_corners=False)[
        0
    ]
