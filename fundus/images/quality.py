"""Gradability: whether a picture shows enough of a fundus to be measured, and if not, why.

Whether the optic disc is seen is the detector's to say. Everything here is measured at one size of
the field of view, so the camera's pixels do not matter, and advises: thresholds are the caller's.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from fundus.images.fov import FULL_AREA, FieldOfView, exposed_share, field_of_view

SIDE = 512
"""Pixels of the field's diameter at which it is measured."""
CROP_SIDE = 205
"""Pixels of a disc crop's side: crops span about 0.4 of the field."""
COLOUR = ("red", "green", "blue")
"""The mean colour of the field: no threshold is on it, yet it tells cameras apart."""
LOOK = {"sharpness": "sharpness"} | {f"field_{name}": name for name in COLOUR}
"""Columns of a row that tell one camera's pictures from another's, and their measures."""
RIM = 0.92
"""Share of the radius that is measured: beyond lie the border's edge and the camera's notch."""


@dataclass(frozen=True)
class Thresholds:
    """A picture on the wrong side of one is ungradable. `(refused at, as good as it gets at)`.

    Set so that of every set of frames that experts outlined at most 1 % is refused
    (benchmarks/quality.py). What lies below `DOUBTFUL` is measured and said to be poor.
    """

    field: tuple[float, float] = (120.0, 400.0)
    """Diameter of the field of view, pixels of the frame."""
    coverage: tuple[float, float] = (0.5, 0.75)
    """Share of the circle that lies in the frame."""
    brightness: tuple[float, float] = (40.0, 100.0)
    """95th percentile of the brightest channel, 8-bit levels."""
    lit: tuple[float, float] = (0.35, 0.8)
    """Share of the field neither dark (below 25 levels) nor white (all channels above 245)."""
    sharpness: tuple[float, float] = (0.003, 0.02)
    """Contrast of fine structure; a blur of 1.6 % of the diameter leaves too little of it."""
    calm: tuple[float, float] = (-0.085, -0.07)
    """Minus the same contrast: scenes and pages have more of it than any fundus."""
    colour: tuple[float, float] = (0.15, 0.3)
    """Saturation; grey pictures (angiography, OCT angiography, red-free) have none."""
    redness: tuple[float, float] = (0.4, 0.8)
    """Share of the field where red is at least green and green at least blue, about."""

    def __post_init__(self) -> None:
        for name, (worst, best) in self.__dict__.items():
            if not worst < best:
                raise ValueError(f"the quality threshold {name} is not below its best value")


DOUBTFUL = {"sharpness": 0.006, "redness": 0.6}
"""Measures below which a picture is poor although it is not refused."""
RETINA = {"redness": (0.8, 1.0), "colour": (0.45, 0.9)}
"""What a frame without a border must have to be taken for a retina that fills it: some of DRIONS'
are such. A cat has less colour, an ultra-widefield picture more."""

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
"""In this order: what a picture is called when it fails in several ways."""
NO_FUNDUS = ("brightness", "lit", "colour", "calm", "redness")
"""The failures after which nothing is measured even where gradability only advises: a black frame,
an angiogram, a page or a cat has no measure, flagged or not."""


@dataclass(frozen=True)
class Quality:
    score: float
    """0 (ungradable) to 1: how far the worst measure is from its threshold."""
    reason: str | None
    """Why the picture is ungradable, the measure in parentheses; None where it is gradable."""
    hopeless: bool
    """Not even with a remark is it to be measured: it is no fundus photograph, or black."""
    poor: bool
    """Ungradable or near it: a measure of it carries the flag `poor_quality`."""
    measures: dict[str, float]
    """By the names and in the units of `Thresholds`, and the field's mean `red`, `green` and `blue`
    in 8-bit levels; empty where nothing is exposed."""


def assess(
    pixels: np.ndarray, *, thresholds: Thresholds | None = None, crop: bool = False
) -> Quality:
    """Gradability of an HWC uint8 RGB frame; with `crop`, of a disc crop, which has no field."""
    thresholds = thresholds or Thresholds()
    whole = False
    if crop:
        measures = _of_crop(pixels)
    else:
        field = field_of_view(pixels)
        if field is None:
            return Quality(0.0, "nothing is exposed", True, True, {})
        measures = _of_frame(pixels, field)
        whole = exposed_share(pixels) > FULL_AREA
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
    scale = SIDE / (2 * field.radius)
    small = _resized(pixels, scale)
    rows, columns = np.ogrid[: small.shape[0], : small.shape[1]]
    distance = np.hypot(columns + 0.5 - field.x * scale, rows + 0.5 - field.y * scale)
    inside = distance < RIM * SIDE / 2
    return {
        "field": 2 * field.radius,
        "coverage": float(inside.sum() / (np.pi * (RIM * SIDE / 2) ** 2)),
        **_of_region(small, inside),
    }


def _of_crop(pixels: np.ndarray) -> dict[str, float]:
    small = _resized(pixels, CROP_SIDE / max(pixels.shape[:2]))
    return _of_region(small, np.ones(small.shape[:2], bool))


def _of_region(image: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """What is measured alike in frames and crops, of the pixels `inside` (HW bool)."""
    levels = image[inside].astype(np.int16)
    brightest, faintest = levels.max(axis=1), levels.min(axis=1)
    red, green, blue = levels.T
    green_HW = image[..., 1].astype(np.float32)
    fine = cv2.GaussianBlur(green_HW, (0, 0), 1.5) - cv2.GaussianBlur(green_HW, (0, 0), 3)
    contrast = float((fine / (cv2.GaussianBlur(green_HW, (0, 0), 12) + 8))[inside].std())
    return {
        "brightness": float(np.percentile(brightest, 95)),
        "lit": float(((brightest >= 25) & (faintest <= 245)).mean()),
        "sharpness": contrast,
        "calm": -contrast,
        "colour": float((brightest - faintest).mean() / (brightest.mean() + 1)),
        "redness": float(((red >= green - 4) & (green >= blue - 12)).mean()),
        **dict(zip(COLOUR, levels.mean(axis=0).tolist(), strict=True)),
    }


def _resized(pixels: np.ndarray, scale: float) -> np.ndarray:
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
