"""The pixels of one frame of a DICOM object as 8-bit RGB."""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space, iter_pixels

from fundus.dicom_in import frames, grey, jpeg_frames, layout
from fundus.dicom_in.frames import Element, Frames
from fundus.images import jpeg, jpeg2000, levels
from fundus.images.content import COLOURS, CUT, HEADER
from fundus.images.refusal import Refused

READERS = {
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.HTJ2KLossless: "pylibjpeg",
    uid.HTJ2KLosslessRPCL: "pylibjpeg",
    uid.HTJ2K: "pylibjpeg",
    uid.RLELossless: "pydicom",
}
"""pydicom's plugin for each compressed syntax except those of `jpeg_frames`. It is named so that
the pixels do not depend on the other packages that are installed."""
NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
JPEG, JPEG_LS = jpeg_frames.SYNTAXES, jpeg_frames.LS_SYNTAXES
SYNTAXES = (*NATIVE, *READERS, *JPEG, *JPEG_LS)
JPEG_2000 = tuple(one for one, reader in READERS.items() if reader == "pylibjpeg")
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PALETTE = "PALETTE COLOR"
Flags = tuple[str, ...]
S = TypeVar("S", jpeg.Stream, jpeg2000.Stream)


@dataclass(frozen=True)
class Stored:
    """The stored samples of a frame, and the facts known about them."""

    values: np.ndarray
    """HW or HWC integers."""
    bits: int
    """Bits per sample, by the header or the stream."""
    colours: str | None = None
    """For three channels RGB or YBR_FULL; None if the pixels may be more reliable than the header.
    """
    flags: Flags = ()


class Pixels:
    """The frames of a data set, decoded one by one. Lengths are checked before any is decoded."""

    def __init__(
        self, dataset: pydicom.Dataset, element: Element, syntax: str, flags: Flags = ()
    ) -> None:
        """Find the bytes of each frame.

        Args:
            dataset: The data set without its pixels, after `header.complete`.
            element: The element of the pixels.
            syntax: The declared transfer syntax. The one that the bytes show takes precedence.
            flags: Remarks on the data set.

        Raises:
            Refused: The header contradicts both itself and the length of the pixels.
        """
        declared, self.dataset, self.element = syntax, dataset, element
        found = None
        if element.encapsulated:
            found = jpeg_frames.syntax_of(frames.first_stream(element))
        elif syntax not in NATIVE:
            found = uid.ExplicitVRLittleEndian
        if found and found not in _kin(syntax):
            syntax = found
        self.syntax = uid.UID(syntax)
        self.photometric = str(dataset.PhotometricInterpretation)
        self.samples = int(dataset.get("SamplesPerPixel") or 1)
        self.implied = 3 if self.photometric in COLOUR else 1
        self.flags = flags
        count = int(dataset.get("NumberOfFrames") or 1)
        if syntax in NATIVE:
            self.frames = self._native(count)
        else:
            self.frames = frames.encapsulated(element, dataset, count)
        if self.frames.cut:
            self.flags += (CUT,)
        if len(self.frames.data) > count or syntax != declared:
            self.flags += (HEADER,)

    def __len__(self) -> int:
        return len(self.frames.data)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Flags]:
        """Return frame `index` (from 0) as HWC uint8 RGB, and the remarks.

        Colour of more than 8 bits is reduced to the high byte of the bits that it uses. Grey is
        scaled by the rescale slope and intercept and the first window, linearly from black at its
        lower edge to white at its upper edge. Without a window, or with one that shows nothing,
        grey is reduced as colour is. MONOCHROME1 is inverted. VOI look-up tables are not applied.

        Raises:
            Refused: The frame is cut off. Exceptions of pydicom and its decoders pass through.
        """
        data = self.frames.data[index]
        if data is None or (index == self.frames.partial and self.syntax not in JPEG):
            raise Refused("decode_failed", "broken DICOM: the file is cut off before this frame")
        stored = self._stored(data)
        channels = 3 if stored.values.ndim == 3 else 1
        wrong = (HEADER,) if {self.samples, self.implied} != {channels} else ()
        if channels == 3:
            pixels, flags = self._of_colours(stored)
        elif self.photometric == PALETTE:
            pixels, flags = grey.of_palette(stored.values, self.dataset)
        else:
            shown, flags = grey.of_values(stored.values, stored.bits, self.dataset)
            pixels = np.repeat(shown[..., None], 3, axis=2)
        flags = tuple(dict.fromkeys((*self.flags, *wrong, *stored.flags, *flags)))
        return np.ascontiguousarray(pixels), flags

    def _native(self, count: int) -> Frames:
        dataset = self.dataset
        pixels = int(dataset.Rows) * int(dataset.Columns)
        bytes_alone = self.element.length - pixels * count * self.samples in (0, 1)
        if dataset.BitsAllocated == 16 and bytes_alone and not self.element.cut:
            dataset.BitsAllocated = dataset.BitsStored = 8
            self.flags += (HEADER,)
        self.layout = layout.layout(
            pixels=pixels,
            depth=int(dataset.BitsAllocated) // 8,
            samples=self.samples,
            photometric=self.photometric,
            implied=self.implied,
            count=count,
            length=self.element.length,
        )
        if self.layout is None:
            reason = "broken DICOM: its header contradicts itself and the length of its pixels"
            raise Refused("decode_failed", reason)
        if self.layout.samples == 3 and self.samples == self.implied == 1:
            # Three planes of one frame, or three frames in an object that declares no number.
            first = self.element.data[: self.layout.size]
            depth, width = int(dataset.BitsAllocated) // 8, int(dataset.Columns)
            if layout.is_planar(first, depth, width, False):
                self.layout = replace(self.layout, samples=1, size=self.layout.size // 3)
        if self.layout.contradicted:
            self.flags += (HEADER,)
        return frames.native(self.element, self.layout.size, count)

    def _stored(self, data: bytes) -> Stored:
        if self.syntax in JPEG:
            return self._of_jpeg(data)
        if self.syntax in JPEG_LS:
            stream = self._of_same_size(jpeg.parse(data))
            values, flags = jpeg_frames.decode_ls(data, stream)
            return Stored(values, stream.precision, None, flags)
        single, flags = self._single(data)
        (values,) = iter_pixels(
            single,
            raw=True,
            decoding_plugin=READERS.get(self.syntax, ""),
            correct_unused_bits=_has_overlay(self.dataset),
        )
        return Stored(values, int(single.BitsStored), None, flags)

    def _of_jpeg(self, data: bytes) -> Stored:
        stream = self._of_same_size(jpeg.parse(data))
        declared = "RGB" if self.photometric == "RGB" else "YCBCR"
        values, flags = jpeg_frames.decode(data, stream, declared)
        lossy = stream.process != jpeg.LOSSLESS
        return Stored(values, stream.precision, "RGB" if lossy else None, flags)

    def _single(self, data: bytes) -> tuple[pydicom.Dataset, Flags]:
        """Return a data set of this frame alone whose elements agree with its bytes."""
        single = pydicom.Dataset()
        flags: Flags = ()
        for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation"):
            setattr(single, keyword, int(self.dataset.get(keyword) or 0))
        if single.PixelRepresentation and (self.implied == 3 or single.BitsStored <= 8):
            single.PixelRepresentation = 0  # the standard allows colours and 8 bits no sign
            flags = (HEADER,)
        single.NumberOfFrames = 1
        halved = False
        if self.syntax in NATIVE:
            assert self.layout
            samples, halved = self.layout.samples, self.layout.halved
            planar = bool(self.dataset.get("PlanarConfiguration"))
            if samples == 3 and not halved and self.syntax != uid.ExplicitVRBigEndian:
                found = layout.is_planar(data, single.BitsAllocated // 8, single.Columns, planar)
                flags += (HEADER,) if found != planar else ()
                planar = found
            single.PlanarConfiguration = int(planar)
        else:
            self._conform(single, data)
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

    def _conform(self, single: pydicom.Dataset, data: bytes) -> None:
        """Set the depth and samples of RLE or JPEG 2000 to those of the compressed stream."""
        single.PlanarConfiguration = 0
        if self.syntax == uid.RLELossless:
            segments = int.from_bytes(data[:4], "little")
            known = {1: (1, 8), 2: (1, 16), 3: (3, 8), 6: (3, 16)}
            single.SamplesPerPixel, single.BitsAllocated = known[segments]
            single.BitsStored = min(single.BitsStored, single.BitsAllocated)
            return
        stream = self._of_same_size(jpeg2000.parse(data))
        single.PixelRepresentation = int(stream.signed)
        single.SamplesPerPixel, single.BitsStored = stream.channels, stream.precision
        single.BitsAllocated = 8 if stream.precision <= 8 else 16

    def _of_same_size(self, stream: S | None) -> S:
        """Return the stream. ValueError if it is not grey or colour, or not of the header's size.

        Decoding a stream of another size might take all memory and time.
        """
        if stream is None or stream.channels not in (1, 3) or stream.precision > 16:
            raise ValueError("the frame is no stream of its transfer syntax in grey or colour")
        if (stream.height, stream.width) != (self.dataset.Rows, self.dataset.Columns):
            raise ValueError("the frame is of another size than the data set says")
        return stream

    def _of_colours(self, stored: Stored) -> tuple[np.ndarray, Flags]:
        values = stored.values.astype(np.int32)
        if values.min(initial=0) < 0:
            values += 2 ** (stored.bits - 1)
        pixels, flags = levels.to_8_bits(values.astype(np.uint16), stored.bits)
        declared = "YBR_FULL" if self.photometric in ("YBR_FULL", "YBR_FULL_422") else "RGB"
        if self.syntax in JPEG_2000 and declared == "YBR_FULL":
            stream = jpeg2000.parse(self.frames.data[0] or b"")
            declared = "RGB" if stream and stream.transformed else declared
        colours = stored.colours or layout.colours_of(pixels) or declared
        if stored.colours is None and colours != declared:
            flags += (COLOURS,)
        if colours == "YBR_FULL":
            pixels = convert_color_space(pixels, "YBR_FULL", "RGB")
        return pixels, flags


def _kin(syntax: str) -> tuple[str, ...]:
    """Return the transfer syntaxes that are read in the same way as this one."""
    return next(kin for kin in (NATIVE, JPEG, JPEG_LS, JPEG_2000, (syntax,)) if syntax in kin)


def _has_overlay(dataset: pydicom.Dataset) -> bool:
    """Return whether an overlay uses the bits above those of the pixels, as in old objects."""
    tags = dataset.keys()
    return any(tag >> 24 == 0x60 and tag & 0xFFFF == 0x0102 for tag in tags)
