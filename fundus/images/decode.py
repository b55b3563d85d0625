"""From bytes to pixels: the pictures of a file as upright 8-bit RGB arrays, or a refusal."""

import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from fundus.images import jpeg, kinds, levels, pages, working_frame
from fundus.images.content import NO_END, Contents, Lost, Picture
from fundus.images.refusal import BROKEN, MAX_PIXELS, Refused, check_count, check_size, unquoted

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "PPM", "WEBP", "GIF", "JPEG2000")
"""The readers of Pillow that are used. Others run programs (EPS) or do not read photographs."""

_MP_ENTRIES = 0xB002
"""The index of an MPO in Pillow's `mpinfo`."""

log = logging.getLogger(__name__)

Pixels = tuple[np.ndarray, tuple[str, ...]]
"""HWC uint8 RGB, upright, and flags."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The first picture in `data`, HWC uint8 RGB, upright; see `read`. Raises Refused."""
    return read(data, max_pixels=max_pixels).pictures[0].pixels


def read(data: bytes, *, max_pixels: int = MAX_PIXELS, least_side: int | None = None) -> Contents:
    """Read all pictures in `data` as HWC uint8 RGB, upright (EXIF orientation applied).

    JPEG, PNG, TIFF, BMP, PPM, WebP, GIF and JPEG 2000 are recognised by content. All their pages
    and frames are read, except for copies at a smaller size. Of 16-bit values the high byte is
    taken, or the highest of the bits that they use. Grey is repeated, alpha is composed on black
    unless it is empty, CMYK and palettes become RGB. Floating-point and 32-bit pixels are refused,
    because their range is unknown.

    Args:
        data: the file.
        max_pixels: of all frames together. The sizes in the headers are checked against it, and
            against `MAX_SIDE`, before any pixel is decoded.
        least_side: pixels that the shorter side of a JPEG keeps if it is decoded at a smaller scale
            (fundus.images.working_frame); None to decode the whole.

    Raises:
        Refused: no picture can be read.
    """
    if not data:
        raise Refused("decode_failed", "empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; real errors are raised
        image = _open(data)
        if image.format == "TIFF":
            found = list(_pages(data, max_pixels))
        elif image.format == "MPO" and (entries := image.mpinfo.get(_MP_ENTRIES)):  # type: ignore[attr-defined]
            found = list(_joined(pages.views(data, entries), max_pixels))
        elif len(parts := pages.joined(data, image.format)) > 1:
            found = list(_joined(parts, max_pixels))
        else:
            found = list(_frames(image, data, max_pixels, least_side))
    return _numbered(_without_copies(found))


def _pages(data: bytes, max_pixels: int) -> Iterator[Picture | Lost]:
    """Every page of a TIFF that is not marked as a copy, numbered from 1."""
    found = pages.tiff_pages(data)
    check_count(len(found))
    for page in found:
        if page.width and page.height:
            check_size(page.width, page.height, max_pixels, len(found))
    for number, page in enumerate(found, start=1):
        try:
            if not page.width:
                raise Refused("decode_failed", "broken TIFF: the file is cut off before this page")
            alone = pages.page_alone(data, page)
            pixels, flags, _ = _loaded(_open(alone), alone)
            yield Picture(pixels, number, flags=flags)
        except Refused as refused:
            yield Lost(number, refused.status, refused.reason)


def _joined(parts: list[bytes], max_pixels: int) -> Iterator[Picture | Lost]:
    """The pictures of concatenated files."""
    check_count(len(parts))
    for part in parts:
        try:
            image = _open(part)
            check_size(*image.size, max_pixels, len(parts))
            yield from _frames(image, part, max_pixels)
        except Refused as refused:
            yield Lost(1, refused.status, refused.reason)


def _frames(
    image: ImageFile.ImageFile, data: bytes, max_pixels: int, least_side: int | None = None
) -> Iterator[Picture | Lost]:
    """Every frame of a file other than TIFF, numbered from 1."""
    check_size(*image.size, max_pixels)
    count = _count(image)
    check_count(count)
    check_size(*image.size, max_pixels, count)
    for number in range(1, count + 1):
        try:
            if number > 1:
                _seek(image, number - 1)
                check_size(*image.size, max_pixels)
            size = image.height, image.width
            pixels, flags, shrink = _loaded(image, data, least_side)
            original = size if shrink > 1 else None
            yield Picture(pixels, number, flags=flags, shrink=shrink, original=original)
        except Refused as refused:
            yield Lost(number, refused.status, refused.reason)


def _count(image: ImageFile.ImageFile) -> int:
    """The number of frames stated by the file; if it breaks off, the readable frames plus one."""
    try:
        return max(1, getattr(image, "n_frames", 1))
    except (*BROKEN, Image.DecompressionBombError):
        # Pillow counts a GIF by walking through it. The frame after the last good one is broken.
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
    """Leave out pictures that are copies of another one at a smaller size."""
    whole = [one.pixels for one in found if isinstance(one, Picture)]
    return [
        one
        for one in found
        if isinstance(one, Lost) or not any(pages.is_copy(one.pixels, other) for other in whole)
    ]


def _numbered(found: list[Picture | Lost]) -> Contents:
    """Number the frames from 1. If all are lost, raise Refused with the reason of the first."""
    numbered = [replace(one, frame=number) for number, one in enumerate(found, start=1)]
    pictures = [one for one in numbered if isinstance(one, Picture)]
    lost = [one for one in numbered if isinstance(one, Lost)]
    if not pictures:
        raise Refused(lost[0].status, lost[0].reason)
    return Contents(pictures, lost)


def _open(data: bytes) -> ImageFile.ImageFile:
    """Open Pillow's image: its header is read, and no pixel is decoded."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _bomb(error) from error
    except UnidentifiedImageError as error:
        raise kinds.unknown(data) from error
    except BROKEN as error:
        raise Refused("decode_failed", f"broken picture header: {unquoted(error)}") from error


def _bomb(error: Exception) -> Refused:
    size, _, _ = str(error).partition(" exceeds")
    return Refused("too_large", f"too many pixels ({size})")


def _loaded(
    image: ImageFile.ImageFile, data: bytes, least_side: int | None = None
) -> tuple[np.ndarray, tuple[str, ...], int]:
    """Pixels, flags and `shrink` of the image's present frame; a JPEG may be a working frame."""
    size = "{} x {}".format(*image.size)
    stream = jpeg.parse(data) if image.format == "JPEG" else None
    if stream:
        jpeg.refuse_unread(stream)
    try:
        if stream and (sound := _sound(image, data, stream, least_side)) is not None:
            pixels, shrink = sound
            return pixels, (), shrink
        if image.format == "TIFF":
            pages.check_strips(data, image.tag_v2)  # type: ignore[attr-defined]
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
            raise Refused("decode_failed", f"broken {image.format}: {unquoted(error)}") from error
        pixels, flags = mended, ()
    if stream:
        flags += jpeg.check_data(data, stream) if jpeg.has_end(data, stream) else (NO_END,)
    return _upright(pixels, _orientation(image)), flags, 1


def _sound(
    image: ImageFile.ImageFile, data: bytes, stream: jpeg.Stream, least_side: int | None
) -> tuple[np.ndarray, int] | None:
    """The pixels of a JPEG without any fault, upright, and `shrink`; None for others.

    A picture that is turned is decoded whole: an incomplete last column would become the first, and
    coordinates would be off by part of a pixel.
    """
    orientation = _orientation(image)
    least_side = least_side if orientation == 1 else None
    shrink = working_frame.factor(image.height, image.width, least_side)
    found = jpeg.decode_sound(data, stream, shrink)
    return None if found is None else (_upright(found, orientation), shrink)


def _mended(data: bytes, stream: jpeg.Stream) -> np.ndarray | None:
    """The pixels of a JPEG file that lacks only its end marker; None if it lacks more."""
    if jpeg.has_end(data, stream):
        return None

    def decoded(whole: bytes) -> np.ndarray:
        return _rgb(Image.open(io.BytesIO(whole), formats=("JPEG",)))[0]

    try:
        return jpeg.mended(data, stream, decoded)
    except BROKEN:
        return None


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1, upright, without one. Pillow has applied that of a loaded TIFF."""
    try:
        return image.getexif().get(274, 1)
    except BROKEN as error:
        # The pixels are sound; only the orientation is unknown.
        log.info("the EXIF data cannot be read, the picture stays as it is: %s", unquoted(error))
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    # After the transposition, the flips of EXIF's eight orientations remain.
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _of_deep_colours(values: np.ndarray) -> Pixels:
    """HWC uint16 of 2 to 4 channels (grey or RGB, then alpha if their number is even)."""
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
        if image.mode in ("RGBa", "La"):  # premultiplied alpha
            plain = np.asarray(image)[..., :-1]
            return np.ascontiguousarray(np.broadcast_to(plain, (*plain.shape[:2], 3))), ()
        if image.has_transparency_data:
            rgba = np.asarray(image.convert("RGBA"))
            return levels.on_black(rgba[..., :3], rgba[..., 3])
        return np.array(image.convert("RGB")), ()
    except MemoryError as error:
        raise Refused("too_large", "not enough memory ({} x {})".format(*image.size)) from error
    except BROKEN as error:
        raise Refused("unsupported", f"{image.mode} pixels: {unquoted(error)}") from error


def _grey_to_rgb(grey: np.ndarray, image: Image.Image) -> Pixels:
    """HW integers of 16 bits (12 in some TIFFs) as HWC uint8."""
    tags = getattr(image, "tag_v2", {})
    declared = 12 if tags.get(258) == (12,) else 16  # BitsPerSample: Pillow does not scale 12 bits
    high, flags = levels.to_8_bits(grey, declared)
    if tags.get(262) == 0:  # PhotometricInterpretation WhiteIsZero: Pillow inverts only 8 bits
        high = 255 - high
    return np.repeat(high[..., None], 3, axis=2), flags
