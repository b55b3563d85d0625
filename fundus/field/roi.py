"""The square region of interest (ROI) around the disc, and exact conversions to the frame and back.

Coordinates are continuous: pixel j covers [j, j + 1), and its centre is j + 0.5. The ROI is an
axis-aligned square in pixels of the original frame. It may reach outside the frame.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fundus.field.fov import FieldOfView


@dataclass(frozen=True)
class Roi:
    x: float
    """Left edge, pixels of the original frame; may be negative."""
    y: float
    """Upper edge, pixels of the original frame."""
    size: float
    """Side, pixels of the original frame; above 0."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.x) and math.isfinite(self.y) and 0 < self.size < math.inf):
            raise ValueError(f"a ROI has a finite corner and a side above zero, not {self}")

    def times(self, factor: float) -> "Roi":
        """The same square in pixels of which there are `factor` times as many per side."""
        return Roi(self.x * factor, self.y * factor, self.size * factor)

    def to_frame(self, points: np.ndarray, side: int) -> np.ndarray:
        """(..., 2) float xy, from pixels of a `side` x `side` raster of the ROI to the frame's."""
        return np.asarray(points, float) * (self.size / side) + (self.x, self.y)

    def to_roi(self, points: np.ndarray, side: int) -> np.ndarray:
        """(..., 2) float xy, from pixels of the frame to those of a `side` x `side` ROI raster."""
        return (np.asarray(points, float) - (self.x, self.y)) * (side / self.size)


def around(x: float, y: float, size: float) -> Roi:
    """The square of side `size` centred on (x, y), pixels of the frame."""
    return Roi(x - size / 2, y - size / 2, size)


def whole(height: int, width: int) -> Roi:
    """The smallest square that contains a frame of height x width, centred on it."""
    return around(width / 2, height / 2, max(height, width))


def of_field(field: FieldOfView) -> Roi:
    """The square around the field of view."""
    return around(field.x, field.y, 2 * field.radius)


def crop(image: np.ndarray, roi: Roi, side: int, *, mirrored: bool = False) -> np.ndarray:
    """Crop the ROI from a frame by a triangle filter: antialiased if reduced, else bilinear.

    Args:
        image: HWC uint8.
        roi: in pixels of the frame.
        side: of the result, pixels.
        mirrored: continue the frame outside its edges by mirroring instead of black.

    Returns:
        (side, side, C) uint8.
    """
    # Pillow's filter reads pixels beyond the box: the window has a margin for them.
    margin = math.ceil(roi.size / side) + 1
    left, top = math.floor(roi.x) - margin, math.floor(roi.y) - margin
    right, bottom = math.ceil(roi.x + roi.size) + margin, math.ceil(roi.y + roi.size) + margin
    take = _mirrored_window if mirrored else _black_window
    window = take(image, top, bottom, left, right)
    box = (roi.x - left, roi.y - top, roi.x - left + roi.size, roi.y - top + roi.size)
    resized = Image.fromarray(window).resize((side, side), Image.Resampling.BILINEAR, box=box)
    return np.array(resized)


def crop_mask(mask: np.ndarray, roi: Roi, side: int) -> np.ndarray:
    """Crop the ROI from an HW mask as (side, side), by the nearest pixel centre.

    The type stays; outside the frame the label is 0, background.
    """
    centres = (np.arange(side) + 0.5) * (roi.size / side)
    return _take(mask, np.floor(centres + roi.y), np.floor(centres + roi.x))


def restore(mask: np.ndarray, roi: Roi, height: int, width: int) -> np.ndarray:
    """Convert a (side, side) mask of the ROI to original coordinates, by the nearest pixel centre.

    The result is HW of the same type; outside the ROI the label is 0, background.
    """
    scale = mask.shape[0] / roi.size
    rows = np.floor((np.arange(height) + 0.5 - roi.y) * scale)
    columns = np.floor((np.arange(width) + 0.5 - roi.x) * scale)
    return _take(mask, rows, columns)


def _black_window(image: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Rows top to bottom and columns left to right, without their ends; black outside the frame."""
    window = np.zeros((bottom - top, right - left, image.shape[2]), np.uint8)
    rows = slice(max(top, 0), max(min(bottom, image.shape[0]), 0))
    columns = slice(max(left, 0), max(min(right, image.shape[1]), 0))
    inside = image[rows, columns]
    if inside.size:
        y, x = rows.start - top, columns.start - left
        window[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return window


def _mirrored_window(image: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """As `_black_window`, but the frame is mirrored at its edges as often as necessary."""

    def folded(start: int, stop: int, length: int) -> np.ndarray:
        index = np.arange(start, stop) % (2 * length)
        return np.minimum(index, 2 * length - 1 - index)

    height, width = image.shape[:2]
    if top >= 0 and left >= 0 and bottom <= height and right <= width:
        return np.ascontiguousarray(image[top:bottom, left:right])
    return image[np.ix_(folded(top, bottom, height), folded(left, right, width))]


def _take(mask: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """mask[rows x columns]; 0 where an index is outside the mask."""
    # NumPy takes along one axis at a time five times as fast as from both at once.
    height, width = mask.shape
    near = mask.take(rows.clip(0, height - 1).astype(int), axis=0)
    taken = near.take(columns.clip(0, width - 1).astype(int), axis=1)
    taken[(rows < 0) | (rows >= height)] = 0
    taken[:, (columns < 0) | (columns >= width)] = 0
    return taken
