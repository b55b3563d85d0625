"""Detects pictures with two fields of view: both eyes, or one eye twice, side by side or stacked.

Such a picture has two discs, and nobody would know which of them was measured.
"""

import cv2
import numpy as np

from fundus.field import fov

REASON = "two fields of view in one picture: give each eye a picture of its own"

SECOND = 0.3
"""Least area of a second field, as a share of the largest."""
LEAST = 0.02
"""Least area of a field, as a share of the picture."""
FILLED = 0.6
"""Least share of its bounding box that a field fills; a circle fills 0.79."""
LONG = 1.5
"""Aspect ratio above which one exposed region may be two fields that touch."""
WAIST = 0.75
"""Extent of such a region at its waist, relative to the smaller of its two maxima."""
SEAM = 2.5
"""Step across the seam of joined pictures, relative to the steps beside it; 1.6 in real frames."""


def are_two(image: np.ndarray, seen: fov.Exposure | None = None) -> bool:
    """Whether a picture shows two fields of view.

    It does if it has two exposed regions of similar size, one long region with a waist, one region
    with a waist in both directions (four fields), or one with a straight seam through its middle
    from edge to edge.

    Args:
        image: HWC uint8 RGB.
        seen: the picture's exposure, if it is known already.
    """
    seen = seen or fov.exposure(image)
    small, region = seen.small, seen.region
    if _regions(seen) > 1:
        return True
    if region is None:
        return False
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside, shape = small[box], region[box]
    upright = inside.transpose(1, 0, 2), shape.T
    if max(waist(shape), waist(shape.T)) < WAIST:
        return True
    return any(
        (shape.shape[1] > LONG * shape.shape[0] and waist(shape) < WAIST) or seam(inside) > SEAM
        for inside, shape in ((inside, shape), upright)
    )


def _regions(seen: fov.Exposure) -> int:
    """The number of exposed parts that may each be a field."""
    height, width = seen.small.shape[:2]
    least = max(SECOND * seen.boxes[:, cv2.CC_STAT_AREA].max(initial=0), LEAST * height * width)
    return sum(
        area >= least and area >= FILLED * width * height and 0.5 <= width / height <= 2
        for _, _, width, height, area in seen.boxes.tolist()
    )


def waist(shape: np.ndarray) -> float:
    """The least extent in the middle third of an HW bool region, relative to its outer maxima."""
    heights = cv2.blur(shape.sum(axis=0).astype(np.float32)[None], (5, 1))[0]
    third = len(heights) // 3
    left, right = heights[:third].max(initial=0), heights[-third:].max(initial=0)
    return float(heights[third:-third].min(initial=np.inf) / max(1.0, min(left, right)))


def seam(inside: np.ndarray) -> float:
    """The step across the middle column of HWC uint8, relative to the median of those beside it."""
    middle = (inside.shape[1] - 1) // 2
    if middle < 20:
        return 0.0
    near = inside[:, middle - 15 : middle + 17].astype(np.int16)
    steps = abs(np.diff(near, axis=1)).mean(axis=(0, 2))
    beside = np.r_[steps[:12], steps[19:]]
    return float(steps[12:19].max() / (np.median(beside) + 0.5))
