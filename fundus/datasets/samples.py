"""A labelled picture and a set of them: read on demand, in one label convention, or refused."""

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
"""The EXIF tag; its values 5 to 8 swap width and height."""

EYE_OF_A_PAIR = re.compile(r"(.*\d)[-_ ]?(?:OD|OS|L|R)")
"""An id that ends in the eye's side after a number; the group is what both eyes share."""

FOLDS = ("learn", "held")
"""Sides of the split that every layout knows by `fold=`."""

Convert = Callable[..., np.ndarray]
"""HW arrays as the files of a mask hold them -> HW uint8 {0, 1, 2}.

ConfigurationError for values that the convention does not know.
"""


@dataclass(frozen=True)
class Sample:
    """One picture of a labelled set. Holds paths alone: pickles, and reads when asked."""

    id: str
    """Unique in its set."""
    set: str
    """The data set's name."""
    image: Path
    masks: tuple[Path, ...] = ()
    """The files that make up the mask, in the order in which `convert` takes them."""
    structures: tuple[str, ...] = ()
    """What the mask outlines: () unlabelled, ("disc",) or ("disc", "cup")."""
    glaucoma: bool | None = None
    split: str = ""
    laterality: str | None = None
    """"OD" or "OS" where the set says so."""
    convert: Convert = from_plain
    subject: str = ""
    """Who the eye belongs to, where the set says so; "" where it does not."""
    stereo_pair: bool = False
    """The file holds two views side by side; the sample is the left one, as RIM-ONE r3 marks it."""

    def read_image(self) -> np.ndarray:
        """HWC uint8 RGB, upright. MissingFile or ConfigurationError naming the file."""
        try:
            with usable(f"{self.image} cannot be read"):
                content = existing(self.image).read_bytes()
            image = decode(content)
        except Refused as error:
            raise ConfigurationError(f"{self.image}: {error.reason}") from error
        return self.seen(image)

    def seen(self, image: np.ndarray) -> np.ndarray:
        """The part of the file's picture (HWC) that the sample is: all, or a pair's left view."""
        return _left_view(image) if self.stereo_pair else image

    def read_mask(self) -> np.ndarray | None:
        """HW uint8 {0 background, 1 rim, 2 cup} of the picture's size; None when unlabelled.

        MissingFile, or ConfigurationError naming the file: not a picture, another size, coloured,
        JPEG (its values are smeared), or a value that the set's convention does not know.
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
"""One person in so many validates and is not learned from."""


def person_of(sample: Sample) -> str:
    """A key that both eyes, and all pictures, of one person share.

    The set's own `subject` decides, else an id that ends in a laterality after a number, as
    `N-1-L` and `N-1-R` of RIM-ONE r3 or `RET002OD` of PAPILA. Any other picture is a person.
    """
    pair = EYE_OF_A_PAIR.fullmatch(sample.id)
    return f"{sample.set}/{sample.subject or (pair[1] if pair else sample.id)}"


def folded(samples: Sequence[Sample], fold: str) -> list[Sample]:
    """The side of an honest split: "learn", two thirds, or "held", the third never learned from.

    A SHA-256 decides, whatever the order or company: that of the person, where the set names
    persons or pairs of eyes, so that nobody lies on both sides; else that of the picture file, so
    that copies of one file lie on one side. ConfigurationError for another word.
    """
    if fold not in FOLDS:
        raise ConfigurationError(f"fold={fold}: not one of {', '.join(FOLDS)}")
    return [s for s in samples if _is_held(s) == (fold == "held")]


def read_labels(path: Path) -> np.ndarray:
    """A label picture's values as HW integers, untouched; bilevel gives 0 and 255.

    MissingFile, or ConfigurationError naming the file: no picture, JPEG, or coloured. Palette and
    RGB files are read through their colours, which have to be grey. Of a .mat file the variable
    `mask` is read (MATLAB 5; ORIGA's).
    """
    existing(path)
    if path.suffix == ".mat":
        return _matlab_mask(path)
    try:
        with Image.open(path) as picture:
            if picture.format == "JPEG":
                raise ConfigurationError(
                    f"{path}: a JPEG smears label values; give a lossless mask"
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
    """The path, or MissingFile naming it."""
    if not path.exists():
        raise MissingFile(f"{path}: not there")
    return path


def only(samples: Sequence[Sample], **wanted: str) -> list[Sample]:
    """The samples whose attributes equal what is wanted; "" wants nothing."""
    return [
        sample
        for sample in samples
        if all(not value or getattr(sample, key) == value for key, value in wanted.items())
    ]


def _is_held(sample: Sample) -> bool:
    known = sample.subject or EYE_OF_A_PAIR.fullmatch(sample.id)
    told = person_of(sample).encode() if known else existing(sample.image).read_bytes()
    return int(hashlib.sha256(told).hexdigest(), 16) % 3 == 0


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
    """How the masks are read, without the address that a function's repr holds."""
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
    """The left view's labels; those of the pair may come as wide as the pair or as one view."""
    if layer.shape != size:
        return layer
    if np.any(layer[:, size[1] // 2 :]):
        raise ConfigurationError(
            f"{path}: marks in the right view; the left one is the annotated one"
        )
    return _left_view(layer)
