"""Fast reduction of a picture before it is scaled to the size at which something is measured."""

import cv2
import numpy as np


def halved(image: np.ndarray, length: float, least: float) -> tuple[np.ndarray, int]:
    """Halve a picture by means of 2 x 2 pixels, while a length in it keeps `least` pixels.

    OpenCV halves much faster than it reduces by other ratios. An odd last row or column is left
    out, so that pixel j of the result covers the pixels from `factor * j` on.

    Args:
        image: HWC uint8.
        length: a length in the picture, pixels.
        least: pixels that this length keeps.

    Returns:
        The reduced picture, and the factor: pixels of `image` per pixel of it.
    """
    factor = 1
    while length >= 2 * factor * least and min(image.shape[:2]) > 1:
        height, width = (side // 2 for side in image.shape[:2])
        even = image[: 2 * height, : 2 * width]
        image = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
        factor *= 2
    return image, factor
