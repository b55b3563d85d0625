"""Clinical measures of one mask. Ratios and rim widths have no unit, so need no pixel spacing.

A mask is HW uint8, 0 background, 1 rim, 2 cup, upright (superior is the top row), with square
pixels. Clean it first (`postprocess.clean`): a stray pixel counts fully in an extent.

Undefined measures are None. Without a disc nothing is defined. A disc without a cup has no ratio
either: an absent cup, a missed one and one that nobody outlined (in sets with only the disc) look
alike in a mask, and a ratio of 0 would call all three healthy.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from fundus.anatomy.labels import cup_of, disc_of

Laterality = Literal["OD", "OS"]

SECTOR_DEGREES = 45
_STEPS = 512
# Half-degree rays that never run along an axis. There they could fall between two pixel columns,
# and an eye and its mirror image would give different values.
_RAYS = np.deg2rad(np.arange(-SECTOR_DEGREES / 2 + 0.25, SECTOR_DEGREES / 2, 0.5))


def _points(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the points of rays of length 1: (rays, _STEPS) float32 each."""
    distances = (np.arange(_STEPS) + 0.5) / _STEPS
    return tuple(
        (along.reshape(-1, 1) * distances).astype(np.float32)
        for along in (np.cos(angles), np.sin(angles))
    )


_SECTORS = _points(np.deg2rad([[0], [90], [180], [270]]) + _RAYS)
"""Rays to the right, below, to the left and above, one sector after the other."""


@dataclass(frozen=True)
class Biomarkers:
    """Measures of one eye; None where undefined."""

    vcdr: float | None
    """Vertical cup-to-disc ratio, of inclusive vertical extents."""
    hcdr: float | None
    """Horizontal cup-to-disc ratio, of inclusive horizontal extents."""
    area_cdr: float | None
    """Cup area over disc area."""
    rim_inferior: float | None
    """Mean rim width in the inferior sector, in vertical disc diameters."""
    rim_superior: float | None
    """Mean rim width in the superior sector, likewise."""
    rim_nasal: float | None
    """Mean rim width in the nasal sector, likewise; None if the laterality is unknown."""
    rim_temporal: float | None
    """Mean rim width in the temporal sector, likewise; None if the laterality is unknown."""


UNDEFINED = Biomarkers(None, None, None, None, None, None, None)


def measure(mask: np.ndarray, laterality: Laterality | None = None) -> Biomarkers:
    """All measures of an HW uint8 {0, 1, 2} mask; `UNDEFINED` without a disc or without a cup.

    Rim widths are those of the ISNT rule (Jonas, Gusek and Naumann, Invest Ophthalmol Vis Sci
    1988;29:1151: the rim is broadest inferiorly, then superiorly, nasally, temporally; Harizman et
    al., Arch Ophthalmol 2006;124:1579), defined here as follows. From the disc's centroid, rays run
    every half degree through the 45 degrees about each half-axis. The rim's width on a ray is the
    distance from the cup's furthest point on it to the disc's, or the whole radius of the disc if
    the ray misses the cup. A sector's value is the mean over its rays, divided by the vertical disc
    diameter. In a photograph of a right eye (OD) nasal is to the right, of a left eye to the left.

    Raises:
        ValueError: a laterality other than "OD", "OS" and None.
    """
    if laterality not in ("OD", "OS", None):
        raise ValueError(f'laterality is "OD", "OS" or None, not {laterality!r}')
    disc, cup = disc_of(mask), cup_of(mask)
    disc_height, cup_height = _extent(disc, axis=0), _extent(cup, axis=0)
    if not disc_height or not cup_height:
        return UNDEFINED
    right, inferior, left, superior = _rim_widths(disc, cup) / disc_height
    nasal, temporal = (right, left) if laterality == "OD" else (left, right)
    return Biomarkers(
        vcdr=cup_height / disc_height,
        hcdr=_extent(cup, axis=1) / _extent(disc, axis=1),
        area_cdr=float(np.count_nonzero(cup) / np.count_nonzero(disc)),
        rim_inferior=float(inferior),
        rim_superior=float(superior),
        rim_nasal=float(nasal) if laterality else None,
        rim_temporal=float(temporal) if laterality else None,
    )


def vcdr(mask: np.ndarray) -> float | None:
    """Vertical cup-to-disc ratio of an HW uint8 {0, 1, 2} mask; None without a disc or a cup.

    Rows from the first to the last of the cup, both counted, over those of the disc. REFUGE
    (Orlando et al., Med Image Anal 2020;59:101570) takes the fullest column instead; on upright
    outlines the two agree, on tilted ones the extent is what a clinician's two lines mark.
    """
    disc_height = _extent(disc_of(mask), axis=0)
    cup_height = _extent(cup_of(mask), axis=0)
    return cup_height / disc_height if disc_height and cup_height else None


def _extent(inside: np.ndarray, axis: int) -> int:
    """Rows (axis 0) or columns (axis 1) from the first to the last inside, inclusive; 0 if none."""
    positions = np.flatnonzero(inside.any(axis=1 - axis))
    return int(positions[-1] - positions[0] + 1) if positions.size else 0


def rim_profile(mask: np.ndarray, count: int = 72) -> np.ndarray:
    """Rim width by angle of an HW uint8 {0, 1, 2} mask: (count,) float, vertical disc diameters.

    The rays are those of `measure`, spread evenly over the circle. The first runs half a step
    below the horizontal to the right; the others follow clockwise as the picture is seen: right,
    below, left, above. NaN everywhere without a disc or without a cup.
    """
    disc, cup = disc_of(mask), cup_of(mask)
    disc_height = _extent(disc, axis=0)
    if not disc_height or not cup.any():
        return np.full(count, np.nan)
    angles = (np.arange(count) + 0.5) * (2 * np.pi / count)
    return _ray_widths(disc, cup, _points(angles)) / disc_height


def _rim_widths(disc: np.ndarray, cup: np.ndarray) -> np.ndarray:
    """Mean rim width, in pixels, of the sectors to the right, below, to the left and above."""
    return _ray_widths(disc, cup, _SECTORS).reshape(4, -1).mean(axis=-1)


def _ray_widths(
    disc: np.ndarray, cup: np.ndarray, rays: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Rim width, in pixels, on each of the rays (`_points`) from the disc's centroid."""
    labels = disc.astype(np.uint8) + cup
    sums = cv2.moments(labels, binaryImage=True)
    # OpenCV takes the nearest pixel centre; pixel 0 has its centre at 0. Outside is background.
    x, y = sums["m10"] / sums["m00"], sums["m01"] / sums["m00"]
    rows = np.flatnonzero(disc.any(axis=1))
    first = disc[rows].argmax(axis=1)
    last = disc.shape[1] - 1 - disc[rows, ::-1].argmax(axis=1)
    reach = float(np.hypot(rows - y, np.maximum(x - first, last - x)).max()) + 1
    along_x, along_y = (unit * np.float32(reach) for unit in rays)
    along_x += np.float32(x)
    along_y += np.float32(y)
    seen = cv2.remap(labels, along_x, along_y, cv2.INTER_NEAREST)
    disc_steps, cup_steps = (_steps_to_last(seen >= label) for label in (1, 2))
    return (disc_steps - cup_steps) * (reach / _STEPS)


def _steps_to_last(inside: np.ndarray) -> np.ndarray:
    """The number of steps (last axis) up to the last that is inside; 0 if none is."""
    after = inside[..., ::-1].argmax(axis=-1)
    return np.where(inside.any(axis=-1), inside.shape[-1] - after, 0)
