"""The 8 symmetries of the square for test-time augmentation, without torch."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np

TTA = 8
"""Number of flips and quarter turns of each picture (paper, section 4.2)."""

Profile = Literal["exact", "fast"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
"""Numbers of passes per picture, see `seen_by`."""

Turn = Callable[[np.ndarray], np.ndarray]


def turns() -> list[tuple[Turn, Turn]]:
    """The 8 symmetries on (..., H, W), each with its inverse. Both return views."""

    def turn(quarters: int, flip: bool) -> tuple[Turn, Turn]:
        def do(x: np.ndarray) -> np.ndarray:
            return np.rot90(np.flip(x, -1) if flip else x, quarters, (-2, -1))

        def undo(x: np.ndarray) -> np.ndarray:
            back = np.rot90(x, -quarters, (-2, -1))
            return np.flip(back, -1) if flip else back

        return do, undo

    return [turn(quarters, flip) for flip in (False, True) for quarters in range(4)]


def seen_by(profile: Profile, member: int) -> tuple[int, ...]:
    """The turns, as indices of `turns`, in which one network of a segmenter sees a picture.

    With `exact` every network sees all 8. With `fast` each sees 2, a rotation of its own and the
    mirror image of that rotation: four networks see all 8 together, a student the upright two.
    """
    if profile == "exact":
        return tuple(range(TTA))
    return member % 4, member % 4 + 4


def turned(pictures: np.ndarray, which: Sequence[int] = range(TTA)) -> np.ndarray:
    """(N, C, S, S) -> (N x turns, C, S, S): all turns of the first picture come first."""
    known = turns()
    seen = np.stack([known[i][0](pictures) for i in which], axis=1)
    return seen.reshape(-1, *pictures.shape[1:])


def turned_back(maps: np.ndarray, which: Sequence[int] = range(TTA)) -> np.ndarray:
    """(N x turns, C, S, S) maps of pictures of `turned` -> (N, turns, C, S, S), upright."""
    known = turns()
    apart = maps.reshape(-1, len(which), *maps.shape[1:])
    return np.stack([known[i][1](apart[:, at]) for at, i in enumerate(which)], axis=1)
