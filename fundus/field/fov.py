"""The field of view (FOV): the circular exposed retina in a frame."""

from dataclasses import dataclass

import cv2
import numpy as np

from fundus.field.levels import percentile

WORKING_SIDE = 384
"""Longest side, in pixels, of the reduced frame in which the field is searched. A frame that is up
to twice as long is searched as it is: in one of 300 pixels, few points are left of a short arc."""
DARK = 12
"""Largest value of the brightest channel, blurred, in a black border; 8-bit levels."""
LEAST_AREA = 0.02
"""Share of the frame that must be exposed."""
FULL_AREA = 0.97
"""Exposed share of the frame above which it has no visible border."""
MOST_STEPS, LEAST_STEP = 100, 0.003
"""Of the circle's fit: it ends after so many steps, or after a step of fewer pixels."""


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
    """The frame as it was searched, whole or reduced by a whole number."""
    boxes: np.ndarray
    """(N, 5) integers per exposed part of `small`: left, top, width, height, area, pixels."""
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
    # By a whole number, so that of each block the pixels in the middle stay, which is three times
    # as fast as the mean of all. Blocks are counted from the middle of the frame on, so that the
    # seam of two joined pictures stays sharp (fundus.field.fields).
    longest = max(image.shape[:2])
    factor = 1 if longest <= 2 * WORKING_SIDE else -(-longest // WORKING_SIDE)
    top, left = (side // 2 % factor for side in image.shape[:2])
    height, width = (max(1, side // factor) for side in image[top:, left:].shape[:2])
    even = image[top : top + height * factor, left : left + width * factor]
    small = cv2.resize(even, (width, height), interpolation=cv2.INTER_LINEAR)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(_lit(small))
    boxes = stats[1:]
    region = _largest(labels, boxes[:, cv2.CC_STAT_AREA])
    if region is None:
        return Exposure(small, boxes, None, None)
    circle = None if region.mean() > FULL_AREA else circle_of(_free_border(region))
    x, y, radius = (factor * value for value in circle or _span(region))
    return Exposure(small, boxes, region, FieldOfView(left + x, top + y, radius))


def _largest(labels: np.ndarray, areas: np.ndarray) -> np.ndarray | None:
    """The largest of the labelled regions, with holes filled, HW bool; None if it is tiny."""
    if areas.max(initial=0) < max(1, LEAST_AREA * labels.size):
        return None
    largest = (labels == 1 + areas.argmax()).view(np.uint8)
    outline, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(labels.shape, np.uint8)
    cv2.drawContours(filled, outline, -1, 1, thickness=cv2.FILLED)
    return filled.view(bool)


def _lit(image: np.ndarray) -> np.ndarray:
    """The pixels that are brighter than a border can be, HW uint8 {0, 1}."""
    red, green, blue = cv2.split(image)  # NumPy's maximum over an axis of three is slow
    light = cv2.GaussianBlur(cv2.max(cv2.max(red, green), blue), (0, 0), 1.5)
    # A border can be as bright as 12 levels, and a dim field as dark as 40. A small share of the
    # frame's own bright level lies between the two.
    return (light > max(DARK, 0.12 * percentile(light, 95))).view(np.uint8)


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


def circle_of(points: np.ndarray) -> tuple[float, float, float] | None:
    """Fit a circle (x, y, radius) to (N, 2) points; None if they are not on a circle.

    Least squares on the distances to the circle, with a soft-L1 loss that limits outliers, by
    reweighted Gauss-Newton steps from the circle that fits best algebraically (Kasa, IEEE Trans
    Instrum Meas 1976;25:8). `scipy.optimize.least_squares` finds the same circle more slowly, and
    its import delays the first row of a screening.
    """
    if len(points) < 30:
        return None
    ones = np.ones(len(points))
    (x, y, rest), *_ = np.linalg.lstsq(np.c_[2 * points, ones], (points**2).sum(axis=1))
    circle = np.array([x, y, np.sqrt(rest + x**2 + y**2)])
    for _ in range(MOST_STEPS):
        away = points - circle[:2]
        distances = np.sqrt((away**2).sum(axis=1)).clip(1e-9)
        errors = distances - circle[2]
        slopes = np.c_[away / distances[:, None], ones]
        weighted = slopes.T / np.sqrt(1 + errors**2)
        step, *_ = np.linalg.lstsq(weighted @ slopes, weighted @ errors)
        circle += step
        if np.abs(step).max() < LEAST_STEP:
            break
    x, y, radius = circle.tolist()
    near = np.abs(np.linalg.norm(points - circle[:2], axis=1) - radius) < 0.03 * radius
    plausible = radius < 2 * np.ptp(points, axis=0).max()
    return (x, y, radius) if near.mean() > 0.7 and plausible else None


def _span(region: np.ndarray) -> tuple[float, float, float]:
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    bottom, right = int(rows[-1]) + 1, int(columns[-1]) + 1
    top, left = int(rows[0]), int(columns[0])
    return (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2
