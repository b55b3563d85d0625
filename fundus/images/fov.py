"""The field of view (FOV): the circular exposed retina in a frame."""

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.optimize

WORKING_SIDE = 384
"""The frame's longer side, in pixels, at which the field is looked for."""
DARK = 12
"""8-bit levels of the brightest channel, blurred, that a black border may have."""
LEAST_AREA = 0.02
"""Share of the frame that must be exposed."""
FULL_AREA = 0.97
"""Share of the frame from which on it counts as exposed throughout: no border is seen."""


@dataclass(frozen=True)
class FieldOfView:
    x: float
    """Centre, pixels of the original frame."""
    y: float
    """Centre, pixels of the original frame."""
    radius: float
    """Pixels of the original frame. The circle may reach outside a cropped frame."""


def field_of_view(image: np.ndarray) -> FieldOfView | None:
    """The exposed circle of an HWC uint8 RGB frame; None when nothing is exposed.

    A circle is fitted to the border of the largest exposed region, where it does not run along the
    frame's own edge: fields cropped above and below are found whole. A frame exposed throughout, or
    a border that is no circle, gives the circle that spans the exposed region's longer side.
    """
    height, width = image.shape[:2]
    small = reduced(image)
    region = exposed(small)
    if region is None:
        return None
    circle = None if region.mean() > FULL_AREA else _fit(_free_border(region))
    x, y, radius = circle or _span(region)
    across, down = width / small.shape[1], height / small.shape[0]
    return FieldOfView(x * across, y * down, radius * max(height, width) / max(small.shape[:2]))


def exposed_share(image: np.ndarray) -> float:
    """Share of an HWC uint8 RGB frame that is exposed; above FULL_AREA no border is seen."""
    region = exposed(reduced(image))
    return 0.0 if region is None else float(region.mean())


def reduced(image: np.ndarray) -> np.ndarray:
    """The frame at the size at which the field is looked for, never enlarged."""
    height, width = image.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def exposed(image: np.ndarray) -> np.ndarray | None:
    """The largest region brighter than the border, holes filled: HW bool."""
    bright = lit(image)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(bright.astype(np.uint8))
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    if stats[largest, cv2.CC_STAT_AREA] < LEAST_AREA * bright.size:
        return None
    outline, _ = cv2.findContours(
        (labels == largest).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    filled = np.zeros(bright.shape, np.uint8)
    cv2.drawContours(filled, outline, -1, 1, thickness=cv2.FILLED)
    return filled.astype(bool)


def lit(image: np.ndarray) -> np.ndarray:
    """What is brighter than a border may be: HW bool."""
    light = cv2.GaussianBlur(image.max(axis=2), (0, 0), 1.5)
    # A border can be as bright as 12 levels and a dim field as dark as 40: between the two lies a
    # small share of the frame's own bright level.
    return light > max(DARK, 0.12 * float(np.percentile(light, 95)))


def _free_border(region: np.ndarray) -> np.ndarray:
    """(N, 2) xy of the convex outline of a region, without points on the frame's own edge."""
    outline, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(max(outline, key=len))
    drawn = np.zeros(region.shape, np.uint8)
    cv2.polylines(drawn, [hull], isClosed=True, color=1)
    # The hull bridges dark lids and shadows by straight chords: only real border counts.
    border = drawn.astype(bool) & region
    border[:3] = border[-3:] = False
    border[:, :3] = border[:, -3:] = False
    return np.argwhere(border)[:, ::-1] + 0.5


def _fit(points: np.ndarray) -> tuple[float, float, float] | None:
    """Circle (x, y, radius) through (N, 2) points, outliers weighed down; None if it is none.

    Least squares on distances to the circle with a soft-L1 loss.
    """
    if len(points) < 30:
        return None

    def distances(circle: np.ndarray) -> np.ndarray:
        return np.hypot(points[:, 0] - circle[0], points[:, 1] - circle[1]) - circle[2]

    start = np.array([*points.mean(axis=0), np.ptp(points, axis=0).max() / 2])
    found = scipy.optimize.least_squares(distances, start, loss="soft_l1", f_scale=1.0)
    x, y, radius = (float(value) for value in found.x)
    near = np.abs(distances(found.x)) < 0.03 * radius
    plausible = radius < 2 * np.ptp(points, axis=0).max()
    return (x, y, radius) if near.mean() > 0.7 and plausible else None


def _span(region: np.ndarray) -> tuple[float, float, float]:
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    bottom, right = int(rows[-1]) + 1, int(columns[-1]) + 1
    top, left = int(rows[0]), int(columns[0])
    return (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2
