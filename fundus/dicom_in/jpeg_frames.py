"""JPEG and JPEG-LS frames of DICOM, decoded with imagecodecs.

For lossless JPEG, pydicom offers GDCM and the GPL-licensed libjpeg, and it uses neither for lossy
JPEG of 12 bits. imagecodecs contains libjpeg-turbo 3, which reads all of them. Its pixels of a
baseline frame are equal to those that Pillow reads from the same JPEG in a file. JPEG-LS is read
by the CharLS in imagecodecs.
"""

import numpy as np
from imagecodecs import jpeg8_decode, jpegls_decode
from pydicom import uid

from fundus.dicom_in import layout
from fundus.images import jpeg, jpeg2000
from fundus.images.content import COLOURS, NO_END
from fundus.images.refusal import Refused

SYNTAXES = (
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
)
LS_SYNTAXES = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)


def syntax_of(data: bytes) -> str | None:
    """Return the transfer syntax of a stream by its first bytes; None if they show none."""
    if jpeg2000.parse(data):
        return uid.JPEG2000
    if data[:2] == b"\xff\xd8":
        stream = jpeg.parse(data)
        if stream:
            return uid.JPEGLSLossless if stream.process == jpeg.LS else uid.JPEGBaseline8Bit
    # RLE: the number of segments and the offset of the first, which follows a header of 64 bytes.
    segments, first = data[:4], data[4:8]
    if 1 <= int.from_bytes(segments, "little") <= 15 and first == b"\x40\0\0\0":
        return uid.RLELossless
    return None


def decode(data: bytes, stream: jpeg.Stream, declared: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode one frame to HW or HWC integers. The colours of a lossy stream become RGB.

    Args:
        data: The bytes of the frame.
        stream: The parsed headers of the frame.
        declared: "RGB" or "YCBCR". It is used if neither the stream nor its pixels show which.

    Returns:
        The integers and the remarks.

    Raises:
        Refused: The frame is cut off.
    """
    raw = stream.process == jpeg.LOSSLESS
    named = None if raw else stream.colours()
    stored = named or ("RGB" if raw else declared)

    def decoded(whole: bytes) -> np.ndarray:
        if len(stream.components) == 1:
            return jpeg8_decode(whole)
        return jpeg8_decode(whole, colorspace=stored, outcolorspace="RGB")

    flags: tuple[str, ...] = ()
    if jpeg.has_end(data, stream):
        values, flags = decoded(data), jpeg.check_data(data, stream)
    else:
        mended = jpeg.mended(data.rstrip(b"\0"), stream, decoded)
        if mended is None:
            raise Refused("decode_failed", "broken DICOM: this frame is cut off")
        values, flags = mended, (NO_END,)
    if values.ndim == 2 or raw:
        return values, flags
    if named is None:
        values, stored = _by_pixels(data, values, declared)
    return values, flags + ((COLOURS,) if stored != declared else ())


def decode_ls(data: bytes, stream: jpeg.Stream) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode one JPEG-LS frame to HW or HWC integers, with the remarks.

    CharLS (2.4.3, and 2.1 too) never stops reading a stream that has no end marker. Such a stream
    therefore gets one, and CharLS then refuses it if more than the marker is missing.

    Raises:
        RuntimeError: The frame is broken.
    """
    if jpeg.has_end(data, stream):
        return jpegls_decode(data), ()
    return jpegls_decode(data + jpeg.EOI), (NO_END,)


def _by_pixels(data: bytes, values: np.ndarray, declared: str) -> tuple[np.ndarray, str]:
    """Find the colours of a stream that names none, by the black border of its picture."""
    plain = jpeg8_decode(data, colorspace="RGB", outcolorspace="RGB")
    shown = layout.colours_of(plain) if plain.dtype == np.uint8 else None
    if shown == "RGB" and declared != "RGB":
        return plain, "RGB"
    if shown == "YBR_FULL" and declared == "RGB":
        return jpeg8_decode(data, colorspace="YCBCR", outcolorspace="RGB"), "YCBCR"
    return values, declared
