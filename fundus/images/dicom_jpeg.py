"""JPEG frames of DICOM through libjpeg-turbo: 8 and 12 bits, lossy and lossless.

pydicom's own choices for lossless JPEG are GDCM and the GPL-licensed libjpeg, neither of which it
trusts with 12 bits of lossy JPEG; imagecodecs carries libjpeg-turbo 3, which reads all of them. Its
pixels of a baseline frame are those that Pillow reads from the same JPEG as a file.
"""

import numpy as np
from imagecodecs import jpeg8_decode
from pydicom import uid

from fundus.images import dicom_layout, jpeg
from fundus.images.content import COLOURS, NO_END
from fundus.images.refusal import Refused

SYNTAXES = (
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
)


def parsed(data: bytes) -> jpeg.Stream:
    """The headers of a frame. ValueError where they are none of a picture in grey or colour."""
    stream = jpeg.parse(data)
    if stream is None or len(stream.components) not in (1, 3):
        raise ValueError("the frame is no JPEG of one or three components")
    return stream


def decode(data: bytes, stream: jpeg.Stream, said: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """One frame as HW or HWC integers, colour as RGB where the stream is lossy, and the remarks.

    said: "RGB" or "YCBCR", which holds where the stream says nothing of its colours, and the pixels
    neither. Refused for a frame that is cut off.
    """
    raw = stream.process == jpeg.LOSSLESS
    told = None if raw else stream.colours()
    stored = told or ("RGB" if raw else said)

    def decoded(whole: bytes) -> np.ndarray:
        if len(stream.components) == 1:
            return jpeg8_decode(whole)
        return jpeg8_decode(whole, colorspace=stored, outcolorspace="RGB")

    flags: tuple[str, ...] = ()
    if jpeg.has_end(data, stream):
        values = decoded(data)
    else:
        mended = jpeg.mended(data.rstrip(b"\0"), stream, decoded)
        if mended is None:
            raise Refused("decode_failed", "broken DICOM: this frame is cut off")
        values, flags = mended, (NO_END,)
    if values.ndim == 2 or raw:
        return values, flags
    if told is None:
        values, stored = _by_pixels(data, values, said)
    return values, flags + ((COLOURS,) if stored != said else ())


def _by_pixels(data: bytes, values: np.ndarray, said: str) -> tuple[np.ndarray, str]:
    """The colours of a stream that says nothing of them: those of its own black border, if any."""
    plain = jpeg8_decode(data, colorspace="RGB", outcolorspace="RGB")
    shown = dicom_layout.colours_of(plain) if plain.dtype == np.uint8 else None
    if shown == "RGB" and said != "RGB":
        return plain, "RGB"
    if shown == "YBR_FULL" and said == "RGB":
        return jpeg8_decode(data, colorspace="YCBCR", outcolorspace="RGB"), "YCBCR"
    return values, said
