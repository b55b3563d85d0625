"""Labelled sets as tensors: read once, cropped to inputs of networks, drawn in seeded batches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor

from fundus.anatomy import biomarkers
from fundus.anatomy.labels import disc_of
from fundus.datasets.samples import HELD_BACK, LabelledSet, Sample, person_of
from fundus.errors import ConfigurationError
from fundus.field import fov, roi
from fundus.field.roi import Roi

CUP_UNKNOWN = 3
"""Label of a disc in a picture whose cup was not outlined."""


@dataclass(frozen=True)
class Crops:
    """Square inputs of a network in memory."""

    ids: tuple[str, ...]
    images: Tensor
    """(N, 3, S, S) uint8 RGB."""
    masks: Tensor
    """(N, S, S) uint8 {0 background, 1 rim, 2 cup}, or {0, 3} if only the disc is outlined; 0 where
    unlabelled."""
    vcdr: np.ndarray
    """(N,) vCDR of the experts' masks; NaN where undefined."""
    sets: tuple[str, ...] = ()
    """The data set of each picture, for its camera and its experts; "" if irrelevant."""
    persons: tuple[str, ...] = ()
    """The person of each picture (samples.person_of); by default each has a person of its own."""

    def __post_init__(self) -> None:
        if not self.sets:
            object.__setattr__(self, "sets", ("",) * len(self.ids))
        if not self.persons:
            apart = tuple(f"{name}/{i}" for name, i in zip(self.sets, self.ids, strict=True))
            object.__setattr__(self, "persons", apart)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Crops":
        """The crops at these indices."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Crops(
            tuple(self.ids[i] for i in chosen),
            self.images[chosen],
            self.masks[chosen],
            self.vcdr[chosen],
            tuple(self.sets[i] for i in chosen),
            tuple(self.persons[i] for i in chosen),
        )


def disc_crops(labelled: LabelledSet, side: int, *, roi_scale: float) -> Crops:
    """ROIs `roi_scale` disc diameters wide around the experts' discs, from crops or frames."""

    def place(image: np.ndarray, mask: np.ndarray) -> Roi:
        return around_disc(mask, roi_scale)

    return crops_of(labelled, side, place)


def frames(labelled: LabelledSet, side: int) -> Crops:
    """Inputs of the detector: the square around each frame's field of view."""

    def place(image: np.ndarray, mask: np.ndarray) -> Roi:
        field = fov.field_of_view(image)
        return roi.of_field(field) if field else roi.whole(*image.shape[:2])

    return crops_of(labelled, side, place)


def around_disc(mask: np.ndarray, roi_scale: float) -> Roi:
    """The square around the disc of an HW mask, `roi_scale` equal-area diameters wide."""
    rows, columns = np.nonzero(disc_of(mask))
    if not len(rows):
        raise ConfigurationError("a mask has no disc: leave its picture out, or outline the disc")
    diameter = 2 * np.sqrt(len(rows) / np.pi)
    return roi.around(columns.mean() + 0.5, rows.mean() + 0.5, roi_scale * diameter)


def join(parts: Sequence[Crops]) -> Crops:
    """Join the crops of several sets, all of the same side."""
    return Crops(
        tuple(i for part in parts for i in part.ids),
        torch.cat([part.images for part in parts]),
        torch.cat([part.masks for part in parts]),
        np.concatenate([part.vcdr for part in parts]),
        tuple(name for part in parts for name in part.sets),
        tuple(name for part in parts for name in part.persons),
    )


def split(persons: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Split into indices to learn from, and those of every eighth person to validate on.

    Args:
        persons: the person of each picture; all pictures of a person are on the same side.
    """
    numbers = {person: number for number, person in enumerate(dict.fromkeys(persons))}
    held = np.array([numbers[one] % HELD_BACK == HELD_BACK - 1 for one in persons], dtype=bool)
    return np.flatnonzero(~held), np.flatnonzero(held)


def batches(
    weights: np.ndarray,
    size: int,
    *,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    draws: int = 0,
) -> Iterator[np.ndarray]:
    """One rank's parts of the batches of an epoch. The batches are the same for any world.

    Ranks share each batch without overlap; some get one index more than others.

    Args:
        weights: (N,) of the indices. With equal weights and no `draws`, each index comes once per
            epoch; otherwise indices are drawn with replacement in proportion to their weights.
        size: indices per batch over all ranks; at least `world`.
        seed, epoch: determine the draws.
        rank, world: this worker's number, and the number of workers.
        draws: indices per epoch; 0 for N.
    """
    draw = np.random.default_rng([seed, epoch])
    if np.ptp(weights) == 0 and not draws:
        order = draw.permutation(len(weights))
    else:
        order = draw.choice(len(weights), size=draws or len(weights), p=weights / weights.sum())
    count = len(order)
    size = max(size, world)
    order = np.resize(order, ceil(count / size) * size)  # wraps round: the last batch is full
    for start in range(0, len(order), size):
        yield order[start + rank : start + size : world]


def steps_per_epoch(count: int, size: int, world: int = 1) -> int:
    """The number of batches per epoch."""
    return ceil(count / max(size, world))


def to_maps(masks: Tensor) -> Tensor:
    """(N, S, S) uint8 labels -> (N, 2, S, S) float32 {0, 1}: disc (cup included), then cup."""
    return torch.stack([masks >= 1, masks == 2], dim=1).float()


def cup_unknown(masks: Tensor) -> Tensor:
    """(N, S, S) uint8 labels -> (N,) bool: the disc is outlined and the cup is not."""
    return (masks == CUP_UNKNOWN).flatten(1).any(dim=1)


Place = Callable[[np.ndarray, np.ndarray], Roi]
"""From an HWC uint8 picture and its HW mask to the square that the network sees."""


def crops_of(labelled: LabelledSet, side: int, place: Place) -> Crops:
    """Read a set and crop each picture and mask to the square that `place` returns."""
    images, masks, vcdr = [], [], []
    for sample in labelled.samples:
        image, mask = _read(sample)
        square = place(image, mask)
        images.append(roi.crop(image, square, side))
        masks.append(roi.crop_mask(mask, square, side))
        if "cup" in sample.structures:
            vcdr.append(biomarkers.vcdr(mask))
        else:
            masks[-1][masks[-1] > 0] = CUP_UNKNOWN
            vcdr.append(None)
    if not images:
        raise ConfigurationError(f"{labelled.name} has no pictures: give another set")
    return Crops(
        tuple(sample.id for sample in labelled.samples),
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(np.stack(masks)),
        np.array(vcdr, dtype=float),
        tuple(sample.set for sample in labelled.samples),
        tuple(map(person_of, labelled.samples)),
    )


def _read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    image = sample.read_image()
    mask = sample.read_mask()
    return image, np.zeros(image.shape[:2], np.uint8) if mask is None else mask
