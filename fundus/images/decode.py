"""Bytes to pixels: the pictures in a picture file as upright 8-bit RGB arrays, or a refusal."""

import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from fundus.images import jpeg, kinds, levels, pages
from fundus.images.content import NO_END, Contents, Lost, Picture
from fundus.images.refusal import BROKEN, MAX_PIXELS, Refused, check_count, check_size, say

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "PPM", "WEBP", "GIF", "JPEG2000")
"""Pillow's readers that may see the bytes. Others run programs (EPS) or are no photographs."""

log = logging.getLogger(__name__)

Pixels = tuple[np.ndarray, tuple[str, ...]]
"""HWC uint8 RGB, upright, and what is to be remarked."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The first picture in `data` as HWC uint8 RGB, upright, as `read` gives it. Raises Refused."""
    return read(data, max_pixels=max_pixels).pictures[0].pixels


def read(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Contents:
    """The pictures in `data` as HWC uint8 RGB, upright (EXIF orientation applied).

    JPEG, PNG, TIFF, BMP, PPM, WebP, GIF, JPEG 2000, told by content; every page and every frame of
    those that may have several, but for copies at a smaller size. 16-bit values give their high
    byte, or that of the bits which they use; grey is repeated; alpha is laid on black unless it is
    empty; CMYK and palettes become RGB. Floating point and 32-bit pixels are refused: their range
    is not known. The sizes in the headers are checked against `max_pixels` and MAX_SIDE before any
    pixel is decoded. Raises Refused where no picture can be read.
    """
    if not data:
        raise Refused("decode_failed", "empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; what matters is raised
        image = _open(data)
        if image.format == "TIFF":
            found = list(_pages(data, max_pixels))
        else:
            found = list(_frames(image, data, max_pixels))
    return _numbered(_without_copies(found))


def _pages(data: bytes, max_pixels: int) -> Iterator[Picture | Lost]:
    """Every page of a TIFF that is no marked copy, numbered from 1."""
    found = pages.tiff_pages(data)
    check_count(len(found))
    for page in found:
        if page.width and page.height:
            check_size(page.width, page.height, max_pixels, len(found))
    for number, page in enumerate(found, start=1):
        try:
            if not page.width:
                raise Refused("decode_failed", "broken TIFF: the file is cut off before this page")
            alone = pages.page_alone(data, page) if number > 1 or len(found) > 1 else data
            pixels, flags = _loaded(_open(alone), alone)
            yield Picture(pixels, number, flags=flags)
        except Refused as refused:
            yield Lost(number, refused.status, refused.reason)


def _frames(image: ImageFile.ImageFile, data: bytes, max_pixels: int) -> Iterator[Picture | Lost]:
    """Every frame of a file that is no TIFF, numbered from 1."""
    check_size(*image.size, max_pixels)
    count = _count(image)
    check_count(count)
    check_size(*image.size, max_pixels, count)
    for number in range(1, count + 1):
        try:
            if number > 1:
                _seek(image, number - 1)
                check_size(*image.size, max_pixels)
            pixels, flags = _loaded(image, data)
            yield Picture(pixels, number, flags=flags)
        except Refused as refused:
            yield Lost(number, refused.status, refused.reason)


def _count(image: ImageFile.ImageFile) -> int:
    """The frames that the file says it has; those before the break where it breaks off."""
    try:
        return max(1, getattr(image, "n_frames", 1))
    except (*BROKEN, Image.DecompressionBombError):
        # A GIF is counted by walking through it. One more is promised than can be reached.
        count = image.tell() + 2
    try:
        image.seek(0)
    except (*BROKEN, Image.DecompressionBombError):
        return 1
    return count


def _seek(image: ImageFile.ImageFile, index: int) -> None:
    try:
        image.seek(index)
    except Image.DecompressionBombError as error:
        raise _bomb(error) from error
    except BROKEN as error:
        reason = f"broken {image.format}: the file is cut off before this frame"
        raise Refused("decode_failed", reason) from error


def _without_copies(found: list[Picture | Lost]) -> list[Picture | Lost]:
    """Without the pictures that are another one at a smaller size."""
    whole = [one.pixels for one in found if isinstance(one, Picture)]
    return [
        one
        for one in found
        if isinstance(one, Lost) or not any(pages.is_copy(one.pixels, other) for other in whole)
    ]


def _numbered(found: list[Picture | Lost]) -> Contents:
    """Numbered from 1. The reason of the first that is lost is raised where all are."""
    numbered = [replace(one, frame=number) for number, one in enumerate(found, start=1)]
    pictures = [one for one in numbered if isinstance(one, Picture)]
    lost = [one for one in numbered if isinstance(one, Lost)]
    if not pictures:
        raise Refused(lost[0].status, lost[0].reason)
    return Contents(pictures, lost)


def _open(data: bytes) -> ImageFile.ImageFile:
    """Pillow's image with its header read and no pixel decoded."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _bomb(error) from error
    except UnidentifiedImageError as error:
        raise kinds.unknown(data) from error
    except BROKEN as error:
        raise Refused("decode_failed", f"broken picture header: {say(error)}") from error


def _bomb(error: Exception) -> Refused:
    size, _, _ = str(error).partition(" exceeds")
    return Refused("too_large", f"too many pixels ({size})")


def _loaded(image: ImageFile.ImageFile, data: bytes) -> Pixels:
    """The frame at which the image stands."""
    size = "{} x {}".format(*image.size)
    stream = jpeg.parse(data) if image.format == "JPEG" else None
    if stream:
        jpeg.refuse_unread(stream)
    try:
        deep = levels.deep_colours(image, data)
        if deep is None:
            image.load()
        pixels, flags = _rgb(image) if deep is None else _of_deep_colours(deep)
    except MemoryError as error:
        raise Refused("too_large", f"not enough memory ({size})") from error
    except Image.DecompressionBombError as error:
        raise _bomb(error) from error
    except BROKEN as error:
        mended = _mended(data, stream) if stream and image.tell() == 0 else None
        if mended is None:
            raise Refused("decode_failed", f"broken {image.format}: {say(error)}") from error
        pixels, flags = mended, ()
    if stream and not jpeg.has_end(data, stream):
        flags += (NO_END,)
    return _upright(pixels, image), flags


def _mended(data: bytes, stream: jpeg.Stream) -> np.ndarray | None:
    """The pixels of a JPEG file that lacks its end marker alone; None where more is missing."""
    if jpeg.has_end(data, stream):
        return None

    def decoded(whole: bytes) -> np.ndarray:
        return _rgb(Image.open(io.BytesIO(whole), formats=("JPEG",)))[0]

    try:
        return jpeg.mended(data, stream, decoded)
    except BROKEN:
        return None


def _upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """By the orientation in the image's EXIF; of a TIFF that is loaded, Pillow has turned it."""
    try:
        orientation = image.getexif().get(274)
    except BROKEN as error:
        # The pixels are sound; metadata that cannot be read tells no orientation.
        log.info("EXIF not read: %s", say(error))
        return pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    # What is left after it, of EXIF's eight orientations.
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _of_deep_colours(values: np.ndarray) -> Pixels:
    """HWC uint16 of 2 to 4 channels (grey or RGB, alpha last where their number is even)."""
    has_alpha = values.shape[2] % 2 == 0
    colours = values[..., :-1] if has_alpha else values
    pixels, flags = levels.to_8_bits(colours)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    if has_alpha:
        alpha = levels.high_byte(values[..., -1], levels.depth(colours))
        pixels, empty = levels.on_black(pixels, alpha)
        flags += empty
    return pixels, flags


def _rgb(image: Image.Image) -> Pixels:
    """Any mode of Pillow as HWC uint8 RGB."""
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16)  # native byte order
        return _grey_to_rgb(grey, image)
    if image.mode == "I" and image.format == "PPM":  # Pillow has scaled it to 0..65535
        return _grey_to_rgb(np.asarray(image).clip(0, 0xFFFF).astype(np.uint16), image)
    if image.mode in ("F", "I"):
        kind = "floating point" if image.mode == "F" else "32-bit or signed"
        raise Refused("unsupported", f"{kind} pixels, whose range is not known")
    try:
        if image.mode in ("RGBa", "La"):  # colours that alpha has dimmed already
            plain = np.asarray(image)[..., :-1]
            return np.ascontiguousarray(np.broadcast_to(plain, (*plain.shape[:2], 3))), ()
        if image.has_transparency_data:
            rgba = np.asarray(image.convert("RGBA"))
            return levels.on_black(rgba[..., :3], rgba[..., 3])
        return np.array(image.convert("RGB")), ()
    except MemoryError as error:
        raise Refused("too_large", "not enough memory ({} x {})".format(*image.size)) from error
    except BROKEN as error:
        raise Refused("unsupported", f"{image.mode} pixels: {say(error)}") from error


def _grey_to_rgb(grey: np.ndarray, image: Image.Image) -> Pixels:
    """HW integers of 16 bits (12 in some TIFFs) as HWC uint8."""
    tags = getattr(image, "tag_v2", {})
    said = 12 if tags.get(258) == (12,) else 16  # BitsPerSample: Pillow leaves 12 bits unscaled
    high, flags = levels.to_8_bits(grey, said)
    if tags.get(262) == 0:  # PhotometricInterpretation WhiteIsZero: Pillow inverts 8 bits alone
        high = 255 - high
    return np.repeat(high[..., None], 3, axis=2), flags
