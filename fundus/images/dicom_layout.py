"""How uncompressed samples lie, told by the samples where the header contradicts itself or them."""

from dataclasses import dataclass

import numpy as np

LOOKED_AT = 2_000_000
"""Samples."""
DARK = 20
"""8-bit levels below which a first channel is dark: red, or luminance."""
NEUTRAL = 10
"""8-bit levels by which the colour of a dark pixel may differ from 128 in YCbCr."""
SHARE = 0.9
"""Of the dark pixels that must agree."""
LEAST = 0.005
"""Share of the pixels that must be dark for anything to be told."""


@dataclass(frozen=True)
class Layout:
    """Of one uncompressed frame."""

    samples: int
    """A pixel: 1 or 3."""
    halved: bool
    """YBR_FULL_422 as it should be: two bytes a pixel."""
    size: int
    """Bytes of a frame."""
    contradicted: bool
    """By the header's other elements or by the length."""


def layout(
    *,
    pixels: int,
    depth: int,
    samples: int,
    photometric: str,
    implied: int,
    count: int,
    length: int,
) -> Layout | None:
    """The one that the length fits; None where none does and the header contradicts itself.

    pixels: of a frame. depth: bytes of a sample. samples: as the header says; implied: as its
    photometric interpretation does. count: frames. length: bytes of all.
    """
    unit = pixels * depth

    def fits(samples_of: int) -> bool:
        return length - count * unit * samples_of in (0, 1)

    if photometric.startswith("YBR_FULL") and depth == 1 and fits(2):
        return Layout(3, True, 2 * unit, photometric != "YBR_FULL_422" or samples != 3)
    named = photometric == "YBR_FULL_422"
    if samples == implied and fits(samples):
        return Layout(samples, False, samples * unit, named)
    for other in (samples, implied, 1, 3):
        if other in (1, 3) and fits(other):
            return Layout(other, False, other * unit, True)
    if samples != implied:
        return None
    # Cut off, or more frames than it says: neither changes the samples of a pixel.
    size = 2 * unit if named else samples * unit
    return Layout(samples, named, size, length > count * size + 1)


def is_planar(data: bytes, depth: int, said: bool) -> bool:
    """Whether 3 samples a pixel lie plane by plane.

    Neighbours in a plane differ little, and alike wherever they are; of interleaved colours every
    third step differs from the others. Where neither is plain, what is said.
    """
    values = np.frombuffer(data, np.uint8 if depth == 1 else "<u2", len(data) // depth)
    start = max(0, len(values) // 2 - LOOKED_AT // 2) // 3 * 3
    some = values[start : start + LOOKED_AT].astype(np.int32)
    some = some[: len(some) // 3 * 3]
    if len(some) < 300:
        return said
    steps = abs(np.diff(some))
    phases = np.array([steps[k::3].mean() for k in range(3)]) + 1e-6
    near, third = steps.mean(), abs(some[3:] - some[:-3]).mean()
    uneven = phases.max() / phases.min()
    if uneven > 1.5 or near > 1.25 * third:
        return False
    if uneven < 1.15 and near < 0.8 * third:
        return True
    return said


def colours_of(values: np.ndarray) -> str | None:
    """ "RGB" or "YBR_FULL" by the dark pixels of HWC uint8 as stored; None where they do not tell.

    The black border of a fundus photograph is (0, 0, 0) in the one and (0, 128, 128) in the other.
    """
    some = values.reshape(-1, 3)
    some = some[:: max(1, len(some) // LOOKED_AT)].astype(np.int16)
    dark = some[some[:, 0] < DARK]
    if len(dark) < max(20, LEAST * len(some)):
        return None
    if (abs(dark[:, 1:] - 128).max(axis=1) <= NEUTRAL).mean() > SHARE:
        return "YBR_FULL"
    return "RGB" if (dark[:, 1:].max(axis=1) < 2 * DARK).mean() > SHARE else None
