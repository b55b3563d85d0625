"""The field of view (FOV): the circular exposed retina in a frame."""

from dataclasses import dataclass

import cv2
import numpy as np

WORKING_SIDE = 384
"""Longer side, in pixels, to which a frame is reduced before the field is searched."""
DARK = 12
"""Largest value of the brightest channel, blurred, in a black border; 8-bit levels."""
LEAST_AREA = 0.02
"""Share of the frame that must be exposed."""
FULL_AREA = 0.97
"""Exposed share of the frame above which it has no visible border."""


@dataclass(frozen=True)
class FieldOfView:
    x: float
    """Centre, pixels of the original frame."""
    y: float
    """Centre, pixels of the original frame."""
    radius: float
    """Pixels of the original frame. The circle may reach outside a cropped frame."""


@dataclass(frozen=True)
class Exposure:
    """The exposed part of a frame, found once for all that need it."""

    small: np.ndarray
    """The frame, its longer side reduced to `WORKING_SIDE`, never enlarged."""
    bright: np.ndarray
    """The pixels of `small` that are brighter than a border can be, HW bool."""
    region: np.ndarray | None
    """The exposed pixels of `small`, HW bool; None if nothing is exposed."""
    field: FieldOfView | None
    """The exposed circle; None if nothing is exposed."""

    @property
    def share(self) -> float:
        """Exposed share of the frame; above FULL_AREA it has no visible border."""
        return 0.0 if self.region is None else float(self.region.mean())


def field_of_view(image: np.ndarray) -> FieldOfView | None:
    """The exposed circle of an HWC uint8 RGB frame; None if nothing is exposed."""
    return exposure(image).field


def exposure(image: np.ndarray) -> Exposure:
    """Find the exposed part of an HWC uint8 RGB frame.

    A circle is fitted to the border of the largest exposed region, without points on the edge of
    the frame, so that a field cropped above and below gets its full circle. If the frame has no
    visible border, or the border is not a circle, the circle spans the longer side of the region.
    """
    height, width = image.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Not by halving first: that blurs the seam of two pictures (fundus.field.fields).
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    bright = _lit(small)
    region = _largest(bright)
    if region is None:
        return Exposure(small, bright, None, None)
    circle = None if region.mean() > FULL_AREA else _fit(_free_border(region))
    x, y, radius = circle or _span(region)
    across, down = width / size[0], height / size[1]
    enlarged = max(height, width) / max(size)
    return Exposure(small, bright, region, FieldOfView(x * across, y * down, radius * enlarged))


def _largest(bright: np.ndarray) -> np.ndarray | None:
    """The largest region of HW bool, with holes filled, HW bool; None if it is tiny."""
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


def _lit(image: np.ndarray) -> np.ndarray:
    """The pixels that are brighter than a border can be, HW bool."""
    red, green, blue = cv2.split(image)  # NumPy's maximum over an axis of three is slow
    light = cv2.GaussianBlur(cv2.max(cv2.max(red, green), blue), (0, 0), 1.5)
    # A border can be as bright as 12 levels, and a dim field as dark as 40. A small share of the
    # frame's own bright level lies between the two.
    return light > max(DARK, 0.12 * float(np.percentile(light, 95)))


def _free_border(region: np.ndarray) -> np.ndarray:
    """(N, 2) xy of the convex outline of a region, without points on the frame's own edge."""
    outline, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(max(outline, key=len))
    drawn = np.zeros(region.shape, np.uint8)
    cv2.polylines(drawn, [hull], isClosed=True, color=1)
    # The hull bridges dark lids and shadows by straight chords; only the real border counts.
    border = drawn.astype(bool) & region
    border[:3] = border[-3:] = False
    border[:, :3] = border[:, -3:] = False
    return np.argwhere(border)[:, ::-1] + 0.5


def _fit(points: np.ndarray) -> tuple[float, float, float] | None:
    """Fit a circle (x, y, radius) to (N, 2) points; None if they are not on a circle.

    Least squares on the distances to the circle, with a soft-L1 loss that limits outliers.
    """
    if len(points) < 30:
        return None

    def distances(circle: np.ndarray) -> np.ndarray:
        return np.hypot(points[:, 0] - circle[0], points[:, 1] - circle[1]) - circle[2]

    import scipy.optimize  # half a second, which only the processes that read pictures spend

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
