"""JPEG frames of DICOM through libjpeg-turbo: 8 and 12 bits, lossy and lossless. A pydicom plugin.

pydicom's own choices for lossless JPEG are GDCM and the GPL-licensed libjpeg, neither of which it
trusts with 12 bits of lossy JPEG; imagecodecs carries libjpeg-turbo 3, which reads all of them. Its
pixels of a baseline frame are those that Pillow reads from the same JPEG as a file.
"""

import numpy as np
from imagecodecs import jpeg8_decode
from pydicom.pixels.decoders import (
    JPEGBaseline8BitDecoder,
    JPEGExtended12BitDecoder,
    JPEGLosslessDecoder,
    JPEGLosslessSV1Decoder,
)
from pydicom.pixels.decoders.base import DecodeRunner

NAME = "fundus"
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = {}
_DECODERS = (
    JPEGBaseline8BitDecoder,
    JPEGExtended12BitDecoder,
    JPEGLosslessDecoder,
    JPEGLosslessSV1Decoder,
)
SYNTAXES = tuple(str(decoder.UID) for decoder in _DECODERS)


def install() -> None:
    """Make the plugin known to pydicom; again is harmless."""
    for decoder in _DECODERS:
        if NAME not in decoder.available_plugins:
            decoder.add_plugin(NAME, (__name__, "decode_frame"))


def is_available(uid: str) -> bool:
    return uid in SYNTAXES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """One frame's pixels as bytes, colour as RGB wherever the codestream is lossy."""
    lossless = runner.transfer_syntax in SYNTAXES[2:]
    colour = runner.samples_per_pixel > 1
    if not colour:
        array = jpeg8_decode(src)
    elif lossless or runner.photometric_interpretation == "RGB":
        array = jpeg8_decode(src, colorspace="RGB", outcolorspace="RGB")  # as it is stored
    else:
        array = jpeg8_decode(src, colorspace="YCBCR", outcolorspace="RGB")
        runner.set_option("photometric_interpretation", "RGB")
    if array.shape[:2] != (runner.rows, runner.columns):
        raise ValueError("the frame is of another size than the data set says")
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", 8 * array.itemsize)
    return np.ascontiguousarray(array).tobytes()
