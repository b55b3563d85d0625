"""Outlines of disc and cup as paths that a page draws over a picture."""

import cv2
import numpy as np

from fundus.anatomy.labels import cup_of, disc_of

SMOOTH = 2
UNIT = 1000
"""Outlines are whole numbers from 0 to UNIT, the ROI's side."""

Outline = list[list[int]]
"""Closed lines, each flat: x, y, x, y, in units of the ROI."""


def outlines(mask: np.ndarray) -> tuple[Outline, Outline]:
    """The disc's and the cup's outline in a (S, S) uint8 {0, 1, 2} mask."""
    disc, cup = (
        [_flat(one, mask.shape[0]) for one in _contours(part(mask))] for part in (disc_of, cup_of)
    )
    return disc, cup


def path(lines: Outline) -> str:
    """An outline as the `d` of an SVG path."""
    points = [list(zip(flat[::2], flat[1::2], strict=True)) for flat in lines]
    return "".join("M" + "L".join(f"{x} {y}" for x, y in line) + "Z" for line in points)


def _contours(inside: np.ndarray) -> list[np.ndarray]:
    """Outlines of a region at `SMOOTH` times the mask's resolution, without its steps."""
    large = cv2.resize(inside.astype(np.float32), None, fx=SMOOTH, fy=SMOOTH)
    large = cv2.GaussianBlur(large, (0, 0), SMOOTH)
    found, _ = cv2.findContours(
        (large > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    return [cv2.approxPolyDP(each, 0.002 * large.shape[0], True) for each in found]


def _flat(contour: np.ndarray, side: int) -> list[int]:
    scaled = (contour.reshape(-1, 2) + 0.5) * (UNIT / (SMOOTH * side))
    return [int(value) for value in scaled.round().reshape(-1)]
