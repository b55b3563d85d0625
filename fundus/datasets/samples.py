"""Labelled pictures and sets of them, read on demand in one label convention."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from fundus.anatomy.labels import from_plain
from fundus.errors import ConfigurationError, MissingFile, usable
from fundus.images.decode import Refused, decode

ORIENTATION = 0x0112
"""The EXIF tag, whose values 5 to 8 swap width and height."""

EYE_OF_A_PAIR = re.compile(r"(.*\d)[-_ ]?(?:OD|OS|L|R)")
"""An id that ends in the eye's side after a number; the group is common to both eyes."""

FOLDS = ("learn", "held")
"""Sides of the split of `fold=`, which every layout has."""

Convert = Callable[..., np.ndarray]
"""HW arrays from the files of a mask -> HW uint8 {0, 1, 2}.

ConfigurationError for values that the convention does not know.
"""


@dataclass(frozen=True)
class Sample:
    """One picture of a labelled set. It contains only paths, so it is cheap to send."""

    id: str
    """Unique in its set."""
    set: str
    """Name of the data set."""
    image: Path
    masks: tuple[Path, ...] = ()
    """The files of the mask, in the order of the arguments of `convert`."""
    structures: tuple[str, ...] = ()
    """The outlined structures: () if unlabelled, ("disc",) or ("disc", "cup")."""
    glaucoma: bool | None = None
    split: str = ""
    laterality: str | None = None
    """"OD" or "OS" if the set states it."""
    convert: Convert = from_plain
    subject: str = ""
    """The person, if the set names persons; else ""."""
    stereo_pair: bool = False
    """The file has two views side by side; the sample is the left, annotated one (RIM-ONE r3)."""

    def read_image(self) -> np.ndarray:
        """Read HWC uint8 RGB, upright; MissingFile or ConfigurationError with the file's name."""
        try:
            with usable(f"{self.image} cannot be read"):
                content = existing(self.image).read_bytes()
            image = decode(content)
        except Refused as error:
            raise ConfigurationError(f"{self.image}: {error.reason}") from error
        return self.seen(image)

    def seen(self, image: np.ndarray) -> np.ndarray:
        """The part of the file's picture (HWC) that is the sample: all, or the left view."""
        return _left_view(image) if self.stereo_pair else image

    def read_mask(self) -> np.ndarray | None:
        """Read HW uint8 {0 background, 1 rim, 2 cup} of the picture's size; None if unlabelled.

        Raises:
            MissingFile: the mask is not there.
            ConfigurationError: the mask is not a picture, of another size, coloured or a JPEG, or
                has a value that the set's convention does not know. The message names the file.
        """
        if not self.masks:
            return None
        size = _upright_size(self.image)
        layers = [read_labels(path) for path in self.masks]
        names = " and ".join(map(str, self.masks))
        if self.stereo_pair:
            layers = [_annotated_view(*pair, size) for pair in zip(layers, self.masks, strict=True)]
            size = (size[0], size[1] // 2)
        for path, layer in zip(self.masks, layers, strict=True):
            if layer.shape != size:
                raise ConfigurationError(
                    f"{path}: {layer.shape} mask of a {size} picture (rows, columns)"
                )
        try:
            return self.convert(*layers)
        except ConfigurationError as error:
            raise ConfigurationError(f"{names}: {error}") from error


@dataclass(frozen=True)
class LabelledSet:
    """Samples under one name, in a fixed order."""

    name: str
    samples: tuple[Sample, ...]

    def digest(self) -> str:
        """SHA-256 (hex) over each sample's id, labels, and the bytes of its picture and masks."""
        total = hashlib.sha256()
        for sample in self.samples:
            label = f"{sample.id}\0{sample.glaucoma}\0{sample.structures}\0{_name_of(sample)}\0"
            total.update(label.encode())
            for path in (sample.image, *sample.masks):
                total.update(hashlib.sha256(path.read_bytes()).digest())
        return total.hexdigest()


HELD_BACK = 8
"""Every eighth person is used for validation only."""


def person_of(sample: Sample) -> str:
    """A key that both eyes, and all pictures, of one person share.

    It is from the set's own `subject`, or else from an id that ends in a laterality after a number,
    such as `N-1-L` and `N-1-R` of RIM-ONE r3 or `RET002OD` of PAPILA. Any other picture counts as a
    person of its own.
    """
    pair = EYE_OF_A_PAIR.fullmatch(sample.id)
    return f"{sample.set}/{sample.subject or (pair[1] if pair else sample.id)}"


def folded(samples: Sequence[Sample], fold: str) -> list[Sample]:
    """One side of a fixed split: "learn", two thirds, or "held", the third never learned from.

    A SHA-256 decides, independent of order and other samples. It is that of the person, if the set
    names persons or pairs of eyes, so that no person is on both sides. Otherwise it is that of the
    picture file, so that copies of one file are on the same side.

    Raises:
        ConfigurationError: another word.
    """
    if fold not in FOLDS:
        raise ConfigurationError(f"fold={fold}: give one of {', '.join(FOLDS)}")
    return [s for s in samples if _is_held(s) == (fold == "held")]


def read_labels(path: Path) -> np.ndarray:
    """Read the values of a label picture as HW integers, unchanged; bilevel gives 0 and 255.

    Palette and RGB files are read by their colours, which must be grey. From a .mat file the
    variable `mask` is read (MATLAB 5; ORIGA's).

    Raises:
        MissingFile: the file is not there.
        ConfigurationError: not a picture, a JPEG, or coloured. The message names the file.
    """
    existing(path)
    if path.suffix == ".mat":
        return _matlab_mask(path)
    try:
        with Image.open(path) as picture:
            if picture.format == "JPEG":
                raise ConfigurationError(
                    f"{path}: a JPEG changes label values; give a lossless mask"
                )
            if picture.mode in ("P", "RGB", "RGBA", "LA", "PA"):
                colours = np.asarray(picture.convert("RGB"))
                if np.any(colours != colours[..., :1]):
                    raise ConfigurationError(f"{path}: a coloured mask; its values are not known")
                return colours[..., 0]
            return np.asarray(picture.convert("L") if picture.mode == "1" else picture)
    except OSError as error:
        raise ConfigurationError(f"{path}: not a readable mask ({error})") from error


def existing(path: Path) -> Path:
    """Return the path; MissingFile, with its name, if it does not exist."""
    if not path.exists():
        raise MissingFile(f"{path}: no such file or folder; check the path")
    return path


def only(samples: Sequence[Sample], **wanted: str) -> list[Sample]:
    """The samples whose attributes have the given values; "" allows any value."""
    return [
        sample
        for sample in samples
        if all(not value or getattr(sample, key) == value for key, value in wanted.items())
    ]


def _is_held(sample: Sample) -> bool:
    known = sample.subject or EYE_OF_A_PAIR.fullmatch(sample.id)
    key = person_of(sample).encode() if known else existing(sample.image).read_bytes()
    return int(hashlib.sha256(key).hexdigest(), 16) % 3 == 0


def _matlab_mask(path: Path) -> np.ndarray:
    from scipy.io import loadmat  # slow to import, and few sets are MATLAB files
    from scipy.io.matlab import MatReadError

    try:
        return np.asarray(loadmat(path, variable_names=["mask"])["mask"])
    except (MatReadError, ValueError, KeyError, NotImplementedError) as error:
        raise ConfigurationError(
            f"{path}: no MATLAB 5 file with a variable `mask` ({error})"
        ) from error


def _name_of(sample: Sample) -> str:
    """The name of the mask's conversion, without the address in a function's repr."""
    convert = sample.convert
    if isinstance(convert, partial):
        return f"{convert.func.__name__}{convert.args}{sorted(convert.keywords.items())}"
    return getattr(convert, "__name__", type(convert).__name__)


def _upright_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            turned = picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    except UnidentifiedImageError as error:
        raise ConfigurationError(f"{path}: not a readable picture") from error
    return (width, height) if turned else (height, width)


def _left_view(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels[:, : pixels.shape[1] // 2])


def _annotated_view(layer: np.ndarray, path: Path, size: tuple[int, int]) -> np.ndarray:
    """The labels of the left view, from labels as wide as the pair or as one view."""
    if layer.shape != size:
        return layer
    if np.any(layer[:, size[1] // 2 :]):
        raise ConfigurationError(
            f"{path}: marks in the right view; the left one is the annotated one"
        )
    return _left_view(layer)
