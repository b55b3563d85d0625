"""Gradability: whether a picture shows enough of a fundus to be measured, and if not, why.

The detector decides whether the optic disc is visible. The measures here are taken at one size of
the field of view, so the resolution of the camera does not matter.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from fundus.field.fov import FULL_AREA, Exposure, FieldOfView, exposure
from fundus.field.halving import halved
from fundus.field.levels import percentile

SIDE = 512
"""Diameter of the field, in pixels, to which frames are scaled before they are measured."""
CROP_SIDE = 205
"""Side of a disc crop, in pixels, before it is measured: crops span about 0.4 of the field."""
COLOUR = ("red", "green", "blue")
"""Mean colour of the field. It has no threshold, but it differs between cameras."""
LOOK = {"sharpness": "sharpness"} | {f"field_{name}": name for name in COLOUR}
"""Columns of a row that differ between cameras, and their measures."""
RIM = 0.92
"""Share of the radius that is measured. Beyond it are the edge of the border and the notch."""


@dataclass(frozen=True)
class Thresholds:
    """Limits of each measure: `(worst, best)`. A picture at or below `worst` is ungradable.

    They refuse at most 1 % of each set of frames that experts outlined (benchmarks/quality.py). A
    picture with a measure below `DOUBTFUL` is measured and flagged as poor.
    """

    field: tuple[float, float] = (120.0, 400.0)
    """Diameter of the field of view, pixels of the frame."""
    coverage: tuple[float, float] = (0.5, 0.75)
    """Share of the circle that is inside the frame."""
    brightness: tuple[float, float] = (40.0, 100.0)
    """95th percentile of the brightest channel, 8-bit levels."""
    lit: tuple[float, float] = (0.35, 0.8)
    """Share of the field neither dark (below 25 levels) nor white (all channels above 245)."""
    sharpness: tuple[float, float] = (0.003, 0.02)
    """Contrast of fine structure. A blur of 1.6 % of the diameter leaves too little of it."""
    calm: tuple[float, float] = (-0.085, -0.07)
    """The same contrast, negated. Ordinary scenes and text have more of it than any fundus."""
    colour: tuple[float, float] = (0.15, 0.3)
    """Saturation; grey pictures (angiography, OCT angiography, red-free) have none."""
    redness: tuple[float, float] = (0.4, 0.8)
    """Share of the field where, approximately, red is at least green and green at least blue."""

    def __post_init__(self) -> None:
        for name, (worst, best) in self.__dict__.items():
            if not worst < best:
                raise ValueError(f"the quality threshold {name} is not below its best value")


DOUBTFUL = {"sharpness": 0.006, "redness": 0.6}
"""Measures below which a picture is poor, although it is not refused."""
RETINA = {"redness": (0.8, 1.0), "colour": (0.45, 0.9)}
"""Ranges in which a frame without a border counts as a retina that fills it, as some of DRIONS do.
Ordinary photographs have less colour, ultra-widefield pictures have more."""

REASONS = {
    "field": "the field of view is small",
    "coverage": "most of the field of view lies outside the frame",
    "brightness": "too dark",
    "lit": "most of the field is dark or white",
    "colour": "no colours: an angiogram, a red-free picture or no fundus photograph",
    "calm": "no fundus photograph: too much fine structure",
    "redness": "no fundus photograph: the colours are not a retina's",
    "sharpness": "too blurred",
}
"""Reasons in order of precedence: a picture with several failures gets the first one."""
NO_FUNDUS = ("brightness", "lit", "colour", "calm", "redness")
"""Failures after which nothing is measured, even if gradability only advises: the picture is black,
an angiogram or not a photograph of a fundus."""


@dataclass(frozen=True)
class Quality:
    score: float
    """0 (ungradable) to 1: the position of the worst measure between its limits."""
    reason: str | None
    """Why the picture is ungradable, with the measure in parentheses; None if it is gradable."""
    hopeless: bool
    """Not to be measured in any case: not a fundus photograph, or black."""
    poor: bool
    """Ungradable or close to it: its measures get the flag `poor_quality`."""
    measures: dict[str, float]
    """By the names and in the units of `Thresholds`, and the field's mean `red`, `green` and `blue`
    in 8-bit levels; empty if nothing is exposed."""


def assess(
    pixels: np.ndarray,
    *,
    seen: Exposure | None = None,
    thresholds: Thresholds | None = None,
    crop: bool = False,
    shrink: int = 1,
) -> Quality:
    """Assess the gradability of a picture.

    Args:
        pixels: HWC uint8 RGB.
        seen: the picture's exposure, if it is known already.
        thresholds: None for the defaults.
        crop: the picture is a disc crop, which has no field of view.
        shrink: pixels of the original frame per pixel, if the picture is a working frame.
    """
    thresholds = thresholds or Thresholds()
    whole = False
    if crop:
        measures = _of_crop(pixels)
    else:
        seen = seen or exposure(pixels)
        if seen.field is None:
            return Quality(0.0, "nothing is exposed", True, True, {})
        measures = _of_frame(pixels, seen.field)
        measures["field"] *= shrink
        whole = seen.share > FULL_AREA
        if whole and not all(a <= measures[name] <= b for name, (a, b) in RETINA.items()):
            return Quality(0.0, "no border of a field of view is seen", True, True, measures)
    shares = {
        name: float(np.clip((value - worst) / (best - worst), 0, 1))
        for name, value in measures.items()
        if name not in COLOUR
        for worst, best in [getattr(thresholds, name)]
    }
    for name, text in REASONS.items():
        if name in shares and shares[name] == 0:
            hopeless = any(shares.get(other) == 0 for other in NO_FUNDUS)
            return Quality(0.0, f"{text} ({abs(measures[name]):.3g})", hopeless, True, measures)
    poor = whole or any(measures[name] < least for name, least in DOUBTFUL.items())
    return Quality(min(shares.values()), None, False, poor, measures)


def _of_frame(pixels: np.ndarray, field: FieldOfView) -> dict[str, float]:
    near, factor = halved(pixels, 2 * field.radius, SIDE)
    scale = SIDE / (2 * field.radius)
    small = _resized(near, factor * scale)
    rows, columns = np.ogrid[: small.shape[0], : small.shape[1]]
    across, down = columns + 0.5 - field.x * scale, rows + 0.5 - field.y * scale
    inside = across**2 + down**2 < (RIM * SIDE / 2) ** 2
    return {
        "field": 2 * field.radius,
        "coverage": float(inside.sum() / (np.pi * (RIM * SIDE / 2) ** 2)),
        **_of_region(small, inside),
    }


def _of_crop(pixels: np.ndarray) -> dict[str, float]:
    near, _ = halved(pixels, max(pixels.shape[:2]), CROP_SIDE)
    small = _resized(near, CROP_SIDE / max(near.shape[:2]))
    return _of_region(small, np.ones(small.shape[:2], bool))


def _of_region(image: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """The measures that frames and crops share, over the pixels `inside` (HW bool)."""
    contrast = _contrast(cv2.extractChannel(image, 1).astype(np.float32), inside)
    # Shares and means need no more than every second pixel of every second row.
    mask, image = (np.ascontiguousarray(one[::2, ::2]) for one in (inside.view(np.uint8), image))
    inside = mask.view(bool)
    count = max(1, cv2.countNonZero(mask))

    def share(conditions: np.ndarray) -> float:
        return np.count_nonzero(conditions & inside) / count

    # By channels: NumPy's reductions over an axis of three are slow. OpenCV's differences of bytes
    # end at 0.
    red, green, blue = cv2.split(image)
    brightest = cv2.max(cv2.max(red, green), blue)
    faintest = cv2.min(cv2.min(red, green), blue)
    most, least = (cv2.mean(one, mask)[0] for one in (brightest, faintest))
    return {
        "brightness": percentile(brightest, 95, mask),
        "lit": share((brightest >= 25) & (faintest <= 245)),
        "sharpness": contrast,
        "calm": -contrast,
        "colour": (most - least) / (most + 1),
        "redness": share((red >= cv2.subtract(green, 4)) & (green >= cv2.subtract(blue, 12))),  # type: ignore[call-overload]
        **dict(zip(COLOUR, cv2.mean(image, mask), strict=False)),
    }


def _contrast(green: np.ndarray, inside: np.ndarray) -> float:
    """Standard deviation of the fine structure of HW float32, relative to its surroundings."""
    fine = cv2.GaussianBlur(green, (0, 0), 1.5) - cv2.GaussianBlur(green, (0, 0), 3)
    _, deviation = cv2.meanStdDev(fine / (_blurred_widely(green) + 8), mask=inside.view(np.uint8))
    return deviation.item()


def _blurred_widely(image: np.ndarray) -> np.ndarray:
    """HW float32 blurred by a standard deviation of 12 pixels, at a quarter of its size."""
    quarter = [max(1, side // 4) for side in image.shape[::-1]]
    small = cv2.resize(image, quarter, interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), 3), image.shape[::-1])


def _resized(pixels: np.ndarray, scale: float) -> np.ndarray:
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
