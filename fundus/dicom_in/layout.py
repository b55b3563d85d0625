"""The order of uncompressed samples, found from them if the header contradicts itself or them."""

from dataclasses import dataclass

import numpy as np

LOOKED_AT = 2_000_000
"""Samples."""
DARK = 20
"""8-bit levels below which a first channel is dark: red, or luminance."""
NEUTRAL = 10
"""8-bit levels by which the colour of a dark pixel may differ from 128 in YCbCr."""
SHARE = 0.9
"""Share of the dark pixels that must agree."""
LEAST = 0.005
"""Share of the pixels that must be dark to decide between RGB and YBR_FULL."""


@dataclass(frozen=True)
class Layout:
    """The layout of one uncompressed frame."""

    samples: int
    """Samples per pixel: 1 or 3."""
    halved: bool
    """YBR_FULL_422 according to the standard: two bytes per pixel."""
    size: int
    """Bytes of a frame."""
    contradicted: bool
    """Other elements of the header or the length contradict this layout."""


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
    """Return the layout that fits the length; None if none does and the header contradicts itself.

    Args:
        pixels: Pixels per frame.
        depth: Bytes per sample.
        samples: Samples per pixel according to the header.
        photometric: Its photometric interpretation.
        implied: Samples per pixel according to the photometric interpretation.
        count: Number of frames.
        length: Bytes of all frames. For a file that is cut off, the length that it should have.
    """
    unit = pixels * depth

    def fits(samples_of: int) -> bool:
        return length - count * unit * samples_of in (0, 1)

    if photometric.startswith("YBR_FULL") and depth == 1 and fits(2):
        return Layout(3, True, 2 * unit, photometric != "YBR_FULL_422" or samples != 3)
    named = photometric == "YBR_FULL_422"
    if samples == implied and fits(samples):
        return Layout(samples, False, samples * unit, named)
    if samples == implied == 3 and count > 1 and length // (3 * unit) and length % (3 * unit) < 2:
        return Layout(3, False, 3 * unit, True)  # two elements against the number of frames
    for other in (samples, implied, 1, 3):
        if other in (1, 3) and fits(other):
            return Layout(other, False, other * unit, True)
    if samples != implied:
        return None
    # More frames than declared, or a length that fits nothing: the samples per pixel are the same.
    size = 2 * unit if named else samples * unit
    return Layout(samples, named, size, length > count * size + 1)


def is_planar(data: bytes, depth: int, width: int, declared: bool) -> bool:
    """Return whether 3 samples per pixel are stored plane by plane.

    Neighbours in a row of a plane differ little, and equally at every position. In interleaved
    colours, every third step differs from the others.

    Args:
        data: The samples of one frame.
        depth: Bytes per sample.
        width: Pixels per row.
        declared: The answer of the header, which is returned if the samples do not decide.
    """
    values = np.frombuffer(data, np.uint8 if depth == 1 else "<u2", len(data) // depth)
    start = max(0, len(values) // 2 - LOOKED_AT // 2) // (3 * width) * 3 * width
    some = values[start : start + LOOKED_AT].astype(np.int32)
    some = some[: len(some) // 3 * 3]
    if len(some) < 300 or width < 4:
        return declared
    steps = abs(np.diff(some))
    in_row = np.arange(1, len(some)) % width != 0
    phases = np.array([steps[k::3][in_row[k::3]].mean() for k in range(3)]) + 1e-6
    near, third = steps[in_row].mean(), abs(some[3:] - some[:-3])[in_row[2:]].mean()
    uneven = phases.max() / phases.min()
    if uneven > 1.5 or near > 1.25 * third:
        return False
    if uneven < 1.15 and near < 0.8 * third:
        return True
    return declared


def colours_of(values: np.ndarray) -> str | None:
    """Return "RGB" or "YBR_FULL" by the dark pixels of stored HWC uint8; None if undecided.

    The black border of a fundus photograph is (0, 0, 0) in RGB and (0, 128, 128) in YBR_FULL.
    """
    some = values.reshape(-1, 3)
    some = some[:: max(1, len(some) // LOOKED_AT)].astype(np.int16)
    dark = some[some[:, 0] < DARK]
    if len(dark) < max(20, LEAST * len(some)):
        return None
    if (abs(dark[:, 1:] - 128).max(axis=1) <= NEUTRAL).mean() > SHARE:
        return "YBR_FULL"
    return "RGB" if (dark[:, 1:].max(axis=1) < 2 * DARK).mean() > SHARE else None
