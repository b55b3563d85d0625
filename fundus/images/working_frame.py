"""The working frame: a picture reduced to what the networks can see.

A ROI of 128 pixels at 1.5 disc diameters shows no more of a field of 3,000 pixels than of one of
700. A JPEG is therefore decoded at the scale 1/2, 1/4 or 1/8 of its cosine transform, which costs
less than the whole, and other pictures are reduced right after they are decoded. Pixel j of the
working frame covers the original pixels from `shrink * j` on, so that coordinates of the working
frame times `shrink` are those of the original.
"""

from dataclasses import replace

import numpy as np
from PIL import Image

from fundus.images.content import Picture

FACTORS = (8, 4, 2)
"""Original pixels per pixel of a working frame, in both directions."""
LEAST_DISC, LEAST_DISC_OF_CROP = 0.12, 0.2
"""Smallest disc whose ROI gets its pixels, in shorter sides of a frame and of a disc crop. The disc
has 0.12 to 0.14 of the diameter of a field of 45 degrees, and more of a narrower one."""
LEAST_FIELD = 512
"""Pixels at which gradability is measured."""


def least_side(roi_side: int, roi_scale: float, detector_side: int, *, precropped: bool) -> int:
    """The shorter side, in pixels, from which a picture gives the networks all that they can see.

    Args:
        roi_side: side of the ROI, pixels.
        roi_scale: side of the ROI, disc diameters.
        detector_side: side of the detector's input, pixels.
        precropped: the pictures are disc crops.
    """
    if precropped:
        return round(roi_side / (roi_scale * LEAST_DISC_OF_CROP))
    return max(LEAST_FIELD, detector_side, round(roi_side / (roi_scale * LEAST_DISC)))


def factor(height: int, width: int, least: int | None) -> int:
    """The largest of FACTORS that leaves `least` pixels to the shorter side, else 1."""
    return next((n for n in FACTORS if least and min(height, width) >= n * least), 1)


def reduced(picture: Picture, least: int | None) -> Picture:
    """The picture as a working frame, each pixel the mean of `shrink` x `shrink` pixels.

    A picture that is one already, or too small to be reduced, stays as it is.
    """
    height, width = picture.size
    shrink = factor(height, width, least)
    if picture.shrink > 1 or shrink == 1:
        return picture
    small = np.array(Image.fromarray(picture.pixels).reduce(shrink))
    return replace(picture, pixels=small, shrink=shrink, original=(height, width))
