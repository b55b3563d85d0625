"""The margins of a ROI that reaches outside its picture, as that of a tight disc crop does.

A crop continues its picture by mirroring. If the disc comes close to the edge, a second disc in the
margin touches it, and a segmenter draws the disc too small, but the cup as large as otherwise. In
faded margins it draws the disc right, and the cup too large. So the disc is taken from a crop with
faded margins, and the cup from one with mirrored margins (docs/experiments.md).
"""

import numpy as np

from fundus.field.roi import Roi

CORNER = 0.12
"""Side of the squares in the corners of the picture that show its background, in shorter sides."""


def outside(roi: Roi, height: int, width: int, side: int) -> np.ndarray:
    """Which pixels of a ROI's crop are outside its picture.

    Args:
        roi: in pixels of the picture.
        height, width: of the picture.
        side: of the crop, pixels.

    Returns:
        (side, side) bool, by the centres of the crop's pixels.
    """
    centres = (np.arange(side) + 0.5) * (roi.size / side)
    rows, columns = centres + roi.y, centres + roi.x
    return ((rows < 0) | (rows >= height))[:, None] | ((columns < 0) | (columns >= width))


def faded(crop: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Fade the mirrored margins of a crop: half mirrored, half in the colour of the background.

    The background is the median colour of the corners of the picture, so far as the crop shows it.

    Args:
        crop: (S, S, 3) uint8 RGB.
        outside: (S, S) bool, as `outside` returns it; at least one pixel is inside.
    """
    inside = ~outside
    shown = crop[np.ix_(inside.any(axis=1), inside.any(axis=0))]
    size = max(2, round(CORNER * min(shown.shape[:2])))
    ends = slice(None, size), slice(-size, None)
    corners = [shown[rows, columns].reshape(-1, 3) for rows in ends for columns in ends]
    background = np.median(np.concatenate(corners), axis=0)
    return np.where(outside[..., None], crop / 2 + background / 2, crop).astype(np.uint8)
