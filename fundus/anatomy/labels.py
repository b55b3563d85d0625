"""Labels of the optic disc and cup: one internal convention, and conversions from public ones.

A mask is HW uint8 with 0 background, 1 rim, 2 cup. The disc is rim and cup together, so the cup is
in its disc by construction.
"""

from collections.abc import Collection

import numpy as np

from fundus.errors import ConfigurationError

BACKGROUND, RIM, CUP = 0, 1, 2

REFUGE_CUP, REFUGE_RIM, REFUGE_BACKGROUND = 0, 128, 255


def disc_of(mask: np.ndarray) -> np.ndarray:
    """The disc, cup included, of a {0, 1, 2} mask: HW bool."""
    return mask >= RIM


def cup_of(mask: np.ndarray) -> np.ndarray:
    """The cup of a {0, 1, 2} mask: HW bool."""
    return mask == CUP


def compose(disc: np.ndarray, cup: np.ndarray) -> np.ndarray:
    """Put a disc and a cup, both HW bool, into one HW uint8 {0, 1, 2} mask.

    The cup is clipped to the disc: cup pixels outside it become background, never rim.
    Shapes that differ raise ConfigurationError.
    """
    if disc.shape != cup.shape:
        raise ConfigurationError(f"the disc is {disc.shape} pixels and the cup {cup.shape}")
    mask = disc.astype(bool).astype(np.uint8)
    mask[cup.astype(bool) & disc.astype(bool)] = CUP
    return mask


def from_plain(pixels: np.ndarray, structures: Collection[str] = ("disc", "cup")) -> np.ndarray:
    """A mask that is in this module's convention already: checked, returned as HW uint8.

    With structures ("disc",) the values 0 and 1 alone are known.
    Any other value or shape raises ConfigurationError naming it.
    """
    _refuse_unknown(pixels, (BACKGROUND, RIM, CUP) if "cup" in structures else (BACKGROUND, RIM))
    return pixels.astype(np.uint8)


def from_refuge(pixels: np.ndarray) -> np.ndarray:
    """REFUGE's HW masks (0 cup, 128 rim, 255 background) as HW uint8 {0, 1, 2}.

    Any other value or shape raises ConfigurationError naming it.
    """
    _refuse_unknown(pixels, (REFUGE_CUP, REFUGE_RIM, REFUGE_BACKGROUND))
    mask = np.full(pixels.shape, BACKGROUND, np.uint8)
    mask[pixels == REFUGE_RIM] = RIM
    mask[pixels == REFUGE_CUP] = CUP
    return mask


def from_binary(disc: np.ndarray, cup: np.ndarray | None = None) -> np.ndarray:
    """One HW picture for each structure, zero outside and one other value inside, as {0, 1, 2}.

    RIM-ONE r3 and RIM-ONE DL come so, with 0 and 255. Without a cup the mask holds 0 and 1.
    A picture with more than one value besides zero, or another shape, raises ConfigurationError.
    """
    disc_inside = _inside(disc, "disc")
    cup_inside = np.zeros_like(disc_inside) if cup is None else _inside(cup, "cup")
    return compose(disc_inside, cup_inside)


def from_soft(disc: np.ndarray, cup: np.ndarray, *, consensus: int, readers: int = 4) -> np.ndarray:
    """Drishti-GS's soft maps as HW uint8 {0, 1, 2}: inside where `consensus` readers agree.

    disc, cup: HW uint8, 255 times the share of readers who put the pixel inside, so that 4 readers
    give about 0, 64, 128, 191, 255. A value between two shares counts as the nearer one.
    Other dtypes or shapes, and a consensus outside 1..readers, raise ConfigurationError.
    """
    if not 1 <= consensus <= readers:
        raise ConfigurationError(
            f"a consensus of {consensus} among {readers} readers does not exist"
        )
    for name, pixels in (("disc", disc), ("cup", cup)):
        if pixels.dtype != np.uint8 or pixels.ndim != 2:
            raise ConfigurationError(
                f"the soft map of the {name} is {pixels.dtype} {pixels.shape}, not uint8 (H, W)"
            )
    least = (consensus - 0.5) * 255 / readers
    return compose(disc >= least, cup >= least)


def _refuse_unknown(pixels: np.ndarray, known: tuple[int, ...]) -> None:
    if pixels.ndim != 2:
        raise ConfigurationError(f"a mask has one channel (H, W), this one is {pixels.shape}")
    unknown = np.setdiff1d(pixels, known)
    if unknown.size:
        found = ", ".join(str(value) for value in unknown[:8].tolist())
        more = ", ..." if unknown.size > 8 else ""
        raise ConfigurationError(f"unknown mask values {found}{more}; known are {known}")


def _inside(pixels: np.ndarray, name: str) -> np.ndarray:
    if pixels.ndim != 2:
        raise ConfigurationError(
            f"the {name} mask has one channel (H, W), this one is {pixels.shape}"
        )
    values = np.unique(pixels)
    if values.size > 2 or (values.size == 2 and values[0] != 0):
        raise ConfigurationError(
            f"the {name} mask is not binary: {values.size} values, {values[0]} to {values[-1]}"
        )
    return pixels != 0
