"""Conversion of deep values to 8 bits, also where 16-bit values use only 8, 10, 12 or 14 bits."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from fundus.images import jpeg2000
from fundus.images.content import ALPHA, SCALED

DEPTHS = (8, 10, 12, 14, 16)
"""Bits per sample that cameras and their software use."""
SHOWN = 0.1
"""Share of a picture's light that its alpha channel must leave; below it, the channel is empty."""


def depth(values: np.ndarray, declared: int = 16) -> int:
    """The bits per sample that unsigned integers really use.

    If the largest value needs fewer bits than declared, or more, this is the least depth of
    `DEPTHS` that holds it. Otherwise pictures of 12 bits that are declared as 16 would be black.
    The highest value of 16 bits does not count, because burned-in text has it.
    """
    top = int(values.max(initial=0))
    if top == 0xFFFF:
        top = int(values[values < top].max(initial=0))
    used = next((bits for bits in DEPTHS if top < 1 << bits), 16)
    return used if top and (used < declared - 1 or top >= 1 << declared) else declared


def to_8_bits(values: np.ndarray, declared: int = 16) -> tuple[np.ndarray, tuple[str, ...]]:
    """Unsigned integers as uint8 of the same shape by their `depth`, and a flag if it differs."""
    bits = depth(values, declared)
    return high_byte(values, bits), (SCALED,) if bits != declared else ()


def high_byte(values: np.ndarray, bits: int) -> np.ndarray:
    """The highest 8 of `bits` bits of unsigned integers, as uint8."""
    if bits < 8:
        values = values.astype(np.uint32) * 255 // (2**bits - 1)
    return (values >> max(0, bits - 8)).clip(0, 255).astype(np.uint8)


def on_black(colours: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Compose HWC uint8 colours on black by their HW uint8 alpha.

    An alpha that is empty, or the same everywhere, is ignored.
    """
    if alpha.min() == alpha.max() < 255:
        return colours, (ALPHA,)
    shown = (colours * (alpha[..., None] / np.float32(255))).round().astype(np.uint8)
    if shown.sum(dtype=np.int64) < SHOWN * colours.sum(dtype=np.int64):
        return colours, (ALPHA,)
    return shown, ()


def deep_colours(image: Image.Image, data: bytes) -> np.ndarray | None:
    """HWC uint16 of a colour picture with 16-bit samples; None for other pictures.

    Pillow would return only the high byte. Channels: RGB, RGBA or grey with alpha.
    """
    colour = image.mode in ("RGB", "RGBA", "RGBa")
    if image.format == "PNG" and data[24:26] in (b"\x10\x02", b"\x10\x04", b"\x10\x06"):
        return _by_imagecodecs("png", data)
    if image.format == "TIFF" and colour:
        tags: Mapping[int, tuple] = image.tag_v2  # type: ignore[attr-defined]
        if set(tags.get(258, ())) == {16}:
            found = _by_imagecodecs("tiff", data)
            if tags.get(284) == 2:  # PlanarConfiguration
                found = found.transpose(1, 2, 0)
            return found[..., :3] if tags.get(338) == (0,) else found
    if image.format == "JPEG2000" and colour:
        stream = jpeg2000.parse(data)
        if stream and stream.precision == 16 and not stream.signed:
            return _by_imagecodecs("jpeg2k", data)
    if image.format == "PPM" and colour:
        return _deep_ppm(image, data)
    return None


def _by_imagecodecs(codec: str, data: bytes) -> np.ndarray:
    """HWC uint16. Any exception of a codec means a broken picture and becomes a ValueError."""
    import imagecodecs  # takes 0.2 s, so only when a picture needs it

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
