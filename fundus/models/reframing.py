"""The ROI of a picture that is a disc crop already: the segmenter itself finds the disc.

A crop may be cut at any tightness, and a segmenter draws well only at the scale that it knows. So
the picture is looked at again and again, each time at the ROI that the last answer asks for. The
answers come to rest in one place from either side: on crops of 2 and of 3 disc diameters at the
same 1.01 +- 0.05 of the experts' diameter, after four to six looks (docs/experiments.md).
"""

from collections.abc import Callable

import numpy as np

from fundus.anatomy.labels import disc_of
from fundus.images import roi
from fundus.images.roi import Roi

LOOKS = 8
"""Single passes at most."""
AT_REST = 0.01
"""Change of the disc's diameter, and movement of its centre in diameters, that ends the search."""
SMALLEST, LARGEST = 0.2, 1.1
"""Diameters of a disc, in shorter sides of its crop, that are believed."""

Draw = Callable[[np.ndarray], np.ndarray]
"""A (side, side, 3) uint8 RGB crop -> its (side, side) uint8 mask {0, 1, 2}, from a single pass."""


def settle(picture: np.ndarray, draw: Draw, *, side: int, scale: float) -> Roi:
    """The square of `scale` disc diameters around the disc of a disc crop.

    picture: HWC uint8 RGB, any size and aspect; side: the segmenter's input, pixels. The ROI is in
    pixels of the picture and may reach outside it. A picture in which no disc is drawn, or one of a
    size that is not believed, is taken whole.
    """
    height, width = picture.shape[:2]
    whole = where = roi.whole(height, width)
    before = None
    for _ in range(LOOKS):
        # The first look is at the picture as it is: mirrored margins of a crop that is not square
        # show a second disc, and the search then takes longer (1.56 to 1.38 diameters at 3).
        disc = _disc(draw(roi.crop(picture, where, side, mirrored=before is not None)), where)
        if disc is None:
            return whole
        x, y, diameter = disc
        believed = SMALLEST < diameter / min(height, width) < LARGEST
        if not (believed and 0 < x < width and 0 < y < height):
            return whole
        where = roi.around(x, y, scale * diameter)
        if before and _apart(before, disc) < AT_REST:
            break
        before = disc
    return where


def _disc(mask: np.ndarray, where: Roi) -> tuple[float, float, float] | None:
    """Centre (x, y) and equal-area diameter of the disc drawn in a ROI, pixels of the picture."""
    rows, columns = np.nonzero(disc_of(mask))
    if not len(rows):
        return None
    pixel = where.size / mask.shape[0]
    x, y = where.to_frame(np.array([columns.mean(), rows.mean()]) + 0.5, mask.shape[0])
    return float(x), float(y), float(2 * np.sqrt(len(rows) / np.pi) * pixel)


def _apart(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """How far two discs differ, in diameters of the first."""
    return float(np.abs(np.subtract(one, other)).max() / one[2])
