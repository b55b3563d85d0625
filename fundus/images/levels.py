"""Deep values as 8 bits: 16-bit containers whose values use 8, 10, 12 or 14 of them too."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from fundus.images.content import ALPHA, SCALED

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras and their software give to a sample."""
SHOWN = 0.1
"""Share of a picture's light that its alpha channel must leave; one that leaves less is empty."""


def depth(values: np.ndarray, said: int = 16) -> int:
    """The bits of a sample that unsigned integers, said to be of `said` bits, really have.

    Where the largest value fits into fewer bits than said, or does not fit into them, the least
    depth in `DEPTHS` that holds it: otherwise pictures of 12 bits in a container of 16 are black.
    The container's own highest value does not count, for text is burned in with it.
    """
    top = int(values.max(initial=0))
    if top == 0xFFFF:
        top = int(values[values < top].max(initial=0))
    used = next((bits for bits in DEPTHS if top < 1 << bits), 16)
    return used if top and (used < said - 1 or top >= 1 << said) else said


def to_8_bits(values: np.ndarray, said: int = 16) -> tuple[np.ndarray, tuple[str, ...]]:
    """Unsigned integers as uint8 of the same shape by their `depth`, and a remark if it differs."""
    bits = depth(values, said)
    return high_byte(values, bits), (SCALED,) if bits != said else ()


def high_byte(values: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned integers of so many bits as uint8."""
    if bits < 8:
        values = values.astype(np.uint32) * 255 // (2**bits - 1)
    return (values >> max(0, bits - 8)).clip(0, 255).astype(np.uint8)


def on_black(colours: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """HWC uint8 colours with their HW uint8 alpha laid on black; an empty alpha is left out."""
    shown = (colours * (alpha[..., None] / np.float32(255))).round().astype(np.uint8)
    if shown.sum(dtype=np.int64) < SHOWN * colours.sum(dtype=np.int64):
        return colours, (ALPHA,)
    return shown, ()


def deep_colours(image: Image.Image, data: bytes) -> np.ndarray | None:
    """HWC uint16 of a colour picture of more than 8 bits in a container of 16; None for others.

    Pillow gives the high byte alone. Channels: RGB, RGBA or grey with alpha.
    """
    colour = image.mode in ("RGB", "RGBA", "RGBa")
    if image.format == "PNG" and data[24:26] in (b"\x10\x02", b"\x10\x04", b"\x10\x06"):
        return _by_imagecodecs("png", data)
    if image.format == "TIFF" and colour:
        tags: Mapping[int, tuple] = image.tag_v2  # type: ignore[attr-defined]
        if set(tags.get(258, ())) == {16}:
            found = _by_imagecodecs("tiff", data)
            return found[..., :3] if tags.get(338) == (0,) else found
    if image.format == "JPEG2000" and colour:
        at = data.find(b"\xff\x4f\xff\x51")
        if data[at + 42 : at + 43] == b"\x0f":  # 16 bits, unsigned
            return _by_imagecodecs("jpeg2k", data)
    if image.format == "PPM" and colour:
        return _deep_ppm(image, data)
    return None


def _by_imagecodecs(codec: str, data: bytes) -> np.ndarray:
    """HWC uint16. Whatever a codec of C raises is a broken picture's ValueError."""
    import imagecodecs  # 0.2 s: with the first picture that wants it

    try:
        found = getattr(imagecodecs, f"{codec}_decode")(data)
    except Exception as error:
        raise ValueError(f"{codec}: {type(error).__name__}") from error
    if found.ndim != 3 or found.dtype != np.uint16:
        raise ValueError(f"{codec}: other pixels than its header says")
    return found


def _deep_ppm(image: Image.Image, data: bytes) -> np.ndarray | None:
    codec, _, offset, about = image.tile[0]  # type: ignore[attr-defined]
    most = about[1] if isinstance(about, tuple) else 255
    if most < 256:
        return None
    count = 3 * image.width * image.height
    if codec == "ppm_plain":
        values = np.array(data[offset:].split()[:count], np.uint32)
    else:
        values = np.frombuffer(data, ">u2", count, offset).astype(np.uint32)
    return (values * 0xFFFF // most).astype(np.uint16).reshape(image.height, image.width, 3)
