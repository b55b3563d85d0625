"""The pixels of one frame of a DICOM object as 8-bit RGB."""

from dataclasses import dataclass

import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, convert_color_space, iter_pixels

from fundus.images import dicom_frames, dicom_jpeg, dicom_layout, jpeg, levels
from fundus.images.content import COLOURS, CUT, HEADER, SCALED
from fundus.images.dicom_frames import Element, Frames
from fundus.images.refusal import Refused

READERS = {
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.HTJ2KLossless: "pylibjpeg",
    uid.HTJ2KLosslessRPCL: "pylibjpeg",
    uid.HTJ2K: "pylibjpeg",
    uid.RLELossless: "pydicom",
}
"""pydicom's plugin for each compressed syntax but JPEG's. Named, so that the pixels do not depend
on what else is installed."""
NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
SYNTAXES = (*NATIVE, *READERS, *dicom_jpeg.SYNTAXES)
JPEG = dicom_jpeg.SYNTAXES
JPEG_2000 = tuple(one for one, reader in READERS.items() if reader == "pylibjpeg")
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PALETTE = "PALETTE COLOR"
BLANK, BURNT = 16, 239
"""8-bit levels: a window that leaves all below the one or above the other shows nothing."""

Flags = tuple[str, ...]


@dataclass(frozen=True)
class Stored:
    """A frame's samples as they are stored, and what is known of them."""

    values: np.ndarray
    """HW or HWC integers."""
    bits: int
    """Of a sample, as header or stream say."""
    colours: str | None = None
    """Of three channels: RGB or YBR_FULL; None where the pixels may say better than the header."""
    flags: Flags = ()


class Pixels:
    """The frames of a data set, one by one; lengths are checked here, before any is decoded."""

    def __init__(self, dataset: pydicom.Dataset, element: Element, syntax: str) -> None:
        """Refused where the header contradicts itself and the length of the pixels."""
        self.dataset, self.syntax, self.element = dataset, uid.UID(syntax), element
        self.photometric = str(dataset.PhotometricInterpretation)
        self.flags: Flags = ()
        count = int(dataset.get("NumberOfFrames") or 1)
        if syntax in NATIVE:
            self.frames = self._native(count)
        else:
            self.frames = dicom_frames.encapsulated(element, dataset, count)
        if self.frames.cut:
            self.flags += (CUT,)
        if len(self.frames.data) > count:
            self.flags += (HEADER,)

    def __len__(self) -> int:
        return len(self.frames.data)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Flags]:
        """Frame `index` (from 0) as HWC uint8 RGB, and the remarks.

        Refused for one that is cut off; what pydicom and its decoders raise passes through. Colour
        of more than 8 bits gives the high byte of those that it uses. Grey goes through rescale
        slope and intercept and the first window, linear, from black at its lower edge to white at
        its upper; without a window, or with one that shows nothing, as colour does. MONOCHROME1 is
        inverted. VOI look-up tables are not applied.
        """
        data = self.frames.data[index]
        if data is None or (index == self.frames.partial and self.syntax not in JPEG):
            raise Refused("decode_failed", "broken DICOM: the file is cut off before this frame")
        stored = self._stored(data)
        if stored.values.ndim == 3:
            pixels, flags = self._of_colours(stored)
        elif self.photometric == PALETTE:
            pixels, flags = _of_palette(stored.values, self.dataset)
        else:
            grey, flags = _of_grey(stored, self.dataset)
            pixels = np.repeat(grey[..., None], 3, axis=2)
        flags = tuple(dict.fromkeys((*self.flags, *stored.flags, *flags)))
        return np.ascontiguousarray(pixels), flags

    def _native(self, count: int) -> Frames:
        dataset = self.dataset
        self.layout = dicom_layout.layout(
            pixels=int(dataset.Rows) * int(dataset.Columns),
            depth=int(dataset.BitsAllocated) // 8,
            samples=int(dataset.get("SamplesPerPixel") or 1),
            photometric=self.photometric,
            implied=3 if self.photometric in COLOUR else 1,
            count=count,
            length=len(self.element.data),
        )
        if self.layout is None:
            reason = "broken DICOM: its header contradicts itself and the length of its pixels"
            raise Refused("decode_failed", reason)
        if self.layout.contradicted:
            self.flags += (HEADER,)
        return dicom_frames.native(self.element, self.layout.size, count)

    def _stored(self, data: bytes) -> Stored:
        if self.syntax in JPEG:
            return self._of_jpeg(data)
        single, flags = self._single(data)
        (values,) = iter_pixels(
            single,
            raw=True,
            decoding_plugin=READERS.get(self.syntax, ""),
            correct_unused_bits=_has_overlay(self.dataset),
        )
        return Stored(values, int(single.BitsStored), None, flags)

    def _of_jpeg(self, data: bytes) -> Stored:
        stream = dicom_jpeg.parsed(data)
        if (stream.height, stream.width) != (self.dataset.Rows, self.dataset.Columns):
            raise ValueError("the frame is of another size than the data set says")
        said = "RGB" if self.photometric == "RGB" else "YCBCR"
        values, flags = dicom_jpeg.decode(data, stream, said)
        if (values.ndim == 2) != (self.photometric in (*GREY, PALETTE)):
            flags += (HEADER,)
        lossy = stream.process != jpeg.LOSSLESS
        return Stored(values, stream.precision, "RGB" if lossy else None, flags)

    def _single(self, data: bytes) -> tuple[pydicom.Dataset, Flags]:
        """A data set of this frame alone whose elements are true of its bytes."""
        single = pydicom.Dataset()
        flags: Flags = ()
        for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation"):
            setattr(single, keyword, int(self.dataset.get(keyword) or 0))
        samples = int(self.dataset.get("SamplesPerPixel") or 1)
        single.NumberOfFrames = 1
        halved = False
        if self.syntax in NATIVE:
            assert self.layout
            samples, halved = self.layout.samples, self.layout.halved
            planar = bool(self.dataset.get("PlanarConfiguration"))
            if samples == 3 and not halved and self.syntax != uid.ExplicitVRBigEndian:
                found = dicom_layout.is_planar(data, single.BitsAllocated // 8, planar)
                flags = (HEADER,) if found != planar else ()
                planar = found
            single.PlanarConfiguration = int(planar)
        else:
            self._conform(single, data, samples)
            flags = (HEADER,) if single.SamplesPerPixel != samples else ()
            samples = single.SamplesPerPixel
        single.SamplesPerPixel = samples
        single.HighBit = single.BitsStored - 1
        single.PhotometricInterpretation = (
            "MONOCHROME2" if samples == 1 else "YBR_FULL_422" if halved else "RGB"
        )
        single.file_meta = pydicom.dataset.FileMetaDataset()
        single.file_meta.TransferSyntaxUID = self.syntax
        if self.syntax in NATIVE:
            single.add_new("PixelData", self.element.vr, data + bytes(len(data) % 2))
        else:
            single.PixelData = encapsulate([data])
            single["PixelData"].is_undefined_length = True
        return single, flags

    def _conform(self, single: pydicom.Dataset, data: bytes, samples: int) -> None:
        """Depth and samples as the compressed stream has them, its size as the header says."""
        single.SamplesPerPixel, single.PlanarConfiguration = samples, 0
        if self.syntax == uid.RLELossless:
            segments = int.from_bytes(data[:4], "little")
            known = {1: (1, 8), 2: (1, 16), 3: (3, 8), 6: (3, 16)}
            single.SamplesPerPixel, single.BitsAllocated = known[segments]
            single.BitsStored = min(single.BitsStored, single.BitsAllocated)
            return
        at = data.find(b"\xff\x4f\xff\x51")
        if at >= 0:  # JPEG 2000: the SIZ marker
            across, down, left, top = (
                int.from_bytes(data[at + k : at + k + 4], "big") for k in (8, 12, 16, 20)
            )
            size = (down - top, across - left)
            count, depth = int.from_bytes(data[at + 40 : at + 42], "big"), data[at + 42]
            single.PixelRepresentation, bits = depth >> 7, (depth & 127) + 1
        elif stream := jpeg.parse(data):  # JPEG-LS
            size, count, bits = (
                (stream.height, stream.width),
                len(stream.components),
                stream.precision,
            )
        else:
            return
        if size != (single.Rows, single.Columns) or count not in (1, 3) or bits > 16:
            raise ValueError("the frame is of another size than the data set says")
        single.SamplesPerPixel, single.BitsStored = count, bits
        single.BitsAllocated = 8 if bits <= 8 else 16

    def _of_colours(self, stored: Stored) -> tuple[np.ndarray, Flags]:
        pixels, flags = levels.to_8_bits(stored.values.astype(np.uint16), stored.bits)
        said = "YBR_FULL" if self.photometric in ("YBR_FULL", "YBR_FULL_422") else "RGB"
        if self.syntax in JPEG_2000 and said == "YBR_FULL":
            said = "RGB" if self._transformed(0) else said
        colours = stored.colours or dicom_layout.colours_of(pixels) or said
        if stored.colours is None and colours != said:
            flags += (COLOURS,)
        if colours == "YBR_FULL":
            pixels = convert_color_space(pixels, "YBR_FULL", "RGB")
        return pixels, flags

    def _transformed(self, index: int) -> bool:
        """Whether a JPEG 2000 stream has its own colour transform, which decoding undoes."""
        data = self.frames.data[index] or b""
        at = data.find(b"\xff\x52")
        return at >= 0 and data[at + 8 : at + 9] == b"\x01"


def _has_overlay(dataset: pydicom.Dataset) -> bool:
    """Whether an overlay lies in the bits above those of the pixels, as old objects have it."""
    tags = dataset.keys()
    return any(tag >> 24 == 0x60 and tag & 0xFFFF == 0x0102 for tag in tags)


def _of_grey(stored: Stored, dataset: pydicom.Dataset) -> tuple[np.ndarray, Flags]:
    """HW stored values as HW uint8, black to white."""
    plain, flags = _without_window(stored, dataset)
    grey = _windowed(stored.values.astype(np.int32), dataset)
    if grey is None or (_blank(grey) and not _blank(plain)):
        flags = flags if grey is None else (SCALED,)
        grey = plain
    else:
        flags = ()
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey, flags


def _without_window(stored: Stored, dataset: pydicom.Dataset) -> tuple[np.ndarray, Flags]:
    if dataset.get("PixelRepresentation"):
        values = stored.values.astype(np.int32) + 2 ** (stored.bits - 1)
        return levels.high_byte(values.clip(0, 2**stored.bits - 1), stored.bits), ()
    return levels.to_8_bits(stored.values.astype(np.uint16), stored.bits)


def _windowed(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray | None:
    """By the first window; None without one."""
    centre, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    if centre is None or width is None or width < 1:
        return None
    slope, intercept = _first(dataset, "RescaleSlope"), _first(dataset, "RescaleIntercept")
    real = values * (1.0 if slope is None else slope) + (intercept or 0.0)
    # The formula of DICOM PS3.3 C.11.2.1.2.1. A window of width 1 is a threshold.
    share = (real - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5
    return (255 * share).round().clip(0, 255).astype(np.uint8)


def _blank(grey: np.ndarray) -> bool:
    return bool(np.percentile(grey, 99) < BLANK or np.percentile(grey, 1) > BURNT)


def _first(dataset: pydicom.Dataset, keyword: str) -> float | None:
    """The first of an element's numbers; None where there is none."""
    value = dataset.get(keyword)
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if value else None
    return None if value in (None, "") else float(value)


def _of_palette(indices: np.ndarray, dataset: pydicom.Dataset) -> tuple[np.ndarray, Flags]:
    """HW indices as HWC uint8, by the data set's own palette."""
    colours = apply_color_lut(indices, dataset)[..., :3]
    if colours.dtype == np.uint8 or colours.max(initial=0) < 256:
        return colours.astype(np.uint8), ()
    return levels.to_8_bits(colours.astype(np.uint16))
