"""From probabilities to one clean mask."""

from dataclasses import dataclass

import cv2
import numpy as np

from fundus.anatomy.labels import compose

NO_DISC = "no_disc"
NO_CUP = "no_cup"
CUP_OUTSIDE_DISC = "cup_outside_disc"


@dataclass(frozen=True)
class Cleaned:
    """A clean mask, which can be measured, and its flags."""

    mask: np.ndarray
    """HW uint8, 0 background, 1 rim, 2 cup: at most one disc and one cup, without holes."""
    flags: tuple[str, ...]
    """Any of "no_disc", "no_cup" (a disc, but no cup in it), "cup_outside_disc" (clipped)."""


def clean(
    probabilities: np.ndarray,
    *,
    disc_threshold: float = 0.5,
    cup_threshold: float = 0.5,
    ovals: bool = False,
) -> Cleaned:
    """Threshold, select the largest region, fill its holes, clip the cup to the disc.

    Regions are 8-connected. The cup is clipped before its largest region is selected, so cleaning a
    clean mask changes nothing.

    Args:
        probabilities: (2, H, W) float in [0, 1], the disc (cup included), then the cup.
        disc_threshold, cup_threshold: a pixel at its threshold is inside.
        ovals: replace disc and cup by the ellipses of their second moments and area. Experts draw
            smooth ovals; networks follow each vessel (docs/experiments.md).

    Raises:
        ValueError: another shape, values outside [0, 1] or NaN, which are faults of a program.
    """
    if probabilities.ndim != 3 or probabilities.shape[0] != 2:
        raise ValueError(f"expected (2, H, W) probabilities, not {probabilities.shape}")
    if not (probabilities.min() >= 0 and probabilities.max() <= 1):
        raise ValueError("probabilities reach outside [0, 1] or are not numbers")
    disc = _largest_filled(probabilities[0] >= disc_threshold)
    cup_anywhere = probabilities[1] >= cup_threshold
    cup = _largest_filled(cup_anywhere & disc)
    flags = []
    if not disc.any():
        flags.append(NO_DISC)
    elif not cup.any():
        flags.append(NO_CUP)
    if (cup_anywhere & ~disc).any():
        flags.append(CUP_OUTSIDE_DISC)
    if ovals:
        disc, cup = oval(disc), oval(cup)
    return Cleaned(compose(disc, cup), tuple(flags))


def oval(inside: np.ndarray) -> np.ndarray:
    """The ellipse with the second moments and the area of an HW bool region, as HW bool.

    A region without a width (fewer than 3 pixels, or all in one line) stays as it is.
    """
    found = cv2.moments(inside.view(np.uint8), binaryImage=True)
    area = found["m00"]
    if area < 3:
        return inside
    xx, xy, yy = (found[name] / (area - 1) for name in ("mu20", "mu11", "mu02"))
    determinant = xx * yy - xy**2
    if determinant < 1e-6:
        return inside
    # Row by row the ellipse is an interval about its own middle: no distance for each pixel.
    y = np.arange(inside.shape[0]) - found["m01"] / area
    reach = area / (np.pi * np.sqrt(determinant))
    half = np.sqrt(np.maximum(determinant * (reach - y**2 / yy) / yy, 0))
    half[y**2 > reach * yy] = -1
    middle = found["m10"] / area + y * xy / yy
    x = np.arange(inside.shape[1])
    return (x >= (middle - half)[:, None]) & (x <= (middle + half)[:, None])


def _largest_filled(inside: np.ndarray) -> np.ndarray:
    """The largest 8-connected piece of an HW bool picture, holes filled: HW bool."""
    outlines = _outlines(inside)
    if len(outlines) > 1:
        _, pieces, stats, _ = cv2.connectedComponentsWithStats(inside.view(np.uint8))
        outlines = _outlines(pieces == 1 + stats[1:, cv2.CC_STAT_AREA].argmax())
    filled = np.zeros(inside.shape, np.uint8)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    return filled.view(bool)


def _outlines(inside: np.ndarray) -> list[np.ndarray]:
    """The outer border of each 8-connected piece, also of pieces in a hole of another.

    Tracing is faster than labelling each pixel, and nearly all masks are one piece.
    """
    borders, levels = cv2.findContours(inside.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if levels is None:  # nothing is inside
        return []
    return [border for border, level in zip(borders, levels[0], strict=True) if level[3] < 0]
