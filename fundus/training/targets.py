"""The pictures of the target, as adaptation may see them: without labels, cropped to the disc.

They are listed and decoded as in screening, in a process of its own for decoding. So adaptation
reads all formats that screening reads. Pictures that cannot be used are left out and counted by
reason.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch

from fundus.archive.fetch import FetchFailed, fetch_many
from fundus.archive.listing import walk
from fundus.datasets import batches
from fundus.datasets.batches import Crops
from fundus.datasets.public import open_set
from fundus.decoding.sandbox import Decoder
from fundus.errors import ConfigurationError
from fundus.field import roi
from fundus.images.decode import Refused
from fundus.models.bundle import Bundle
from fundus.models.predictor import Detection, Predictor

log = logging.getLogger(__name__)

LEAST_USED = 0.5
"""Share of a target's pictures that must be usable. Fewer would not represent the camera."""
NO_DISC = "no optic disc was found"

Found = tuple[str, np.ndarray | str]
"""A picture's id, and its pixels (HWC uint8 RGB) or the reason why there are none."""


@dataclass(frozen=True)
class Target:
    """The unlabelled pictures of an adaptation."""

    crops: Crops
    """Segmenter inputs with blank masks."""
    described: tuple[dict[str, Any], ...]
    """Each set for the bundle: name, role, count of used pictures, digest."""
    left_out: dict[str, int]
    """Pictures that cannot be used, by reason."""

    def __str__(self) -> str:
        """One line for people."""
        used, out = len(self.crops), sum(self.left_out.values())
        reasons = "; ".join(f"{count} left out: {why}" for why, count in self.left_out.items())
        return f"target: {used} of {used + out} pictures used" + (f"; {reasons}" if out else "")


def read_target(specs: Sequence[str], bundle: Bundle, *, precropped: bool) -> Target:
    """Read the targets as inputs of the segmenter.

    Args:
        specs: `folder:PATH` for the pictures of an archive, or any set that `open_set` reads; its
            labels are not read.
        bundle: its detector finds the ROI, or its segmenter if the pictures are precropped.
        precropped: the pictures are disc crops already.

    Raises:
        ConfigurationError: there is no such target, or less than `LEAST_USED` of its pictures can
            be used.
    """
    decode = Decoder()
    look = partial(Predictor(bundle).place, precropped=precropped)
    parts = [_read_one(spec, bundle.preprocessing.roi_side, look, decode) for spec in specs]
    left_out = sum((out for *_, out in parts), Counter[str]())
    crops = batches.join([crops for crops, *_ in parts])
    return Target(crops, tuple(about for _, about, _ in parts), dict(left_out.most_common()))


def _read_one(
    spec: str, side: int, look: Callable[[np.ndarray], Detection], decode: Decoder
) -> tuple[Crops, dict[str, Any], Counter[str]]:
    name, digest, found = _pictures(spec, decode)
    ids, images = [], []
    left_out: Counter[str] = Counter()
    for picture, pixels in found:
        if isinstance(pixels, str):
            left_out[pixels.partition(" (")[0]] += 1
            continue
        square = look(pixels).roi
        if square is None:
            left_out[NO_DISC] += 1
            continue
        ids.append(picture)
        images.append(roi.crop(pixels, square, side, mirrored=True))
    used, count = len(ids), len(ids) + left_out.total()
    reasons = "; ".join(f"{n}: {why}" for why, n in left_out.most_common())
    log.info("%s: %d of %d pictures used%s", name, used, count, f"; {reasons}" if reasons else "")
    if not used or used < LEAST_USED * count:
        raise ConfigurationError(
            f"{spec}: only {used} of {count} pictures can be used, and at least {LEAST_USED:.0%}"
            f" must be usable ({reasons or 'it is empty'}): give a folder of the new camera's"
            " photographs"
        )
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    blank = torch.zeros(used, side, side, dtype=torch.uint8)
    about = {"name": name, "role": "target, no labels", "count": used, "digest": digest.hexdigest()}
    return Crops(tuple(ids), stacked, blank, np.full(used, np.nan)), about, left_out


def _pictures(spec: str, decode: Decoder) -> tuple[str, Any, Iterator[Found]]:
    """A set's name, its digest (complete once all pictures are read), and its pictures."""
    layout, _, path = spec.partition(":")
    digest = hashlib.sha256()
    if layout == "folder" and "?" not in path:
        return PurePosixPath(path).name, digest, _of_archive(path, decode, digest)
    labelled = open_set(spec)

    def read() -> Iterator[Found]:
        for sample in labelled.samples:
            try:
                content = sample.image.read_bytes()
            except OSError as error:
                yield sample.id, f"it cannot be read: {error.strerror}"
                continue
            digest.update(sample.id.encode() + hashlib.sha256(content).digest())
            for picture, pixels in _decoded(sample.id, content, decode):
                yield picture, pixels if isinstance(pixels, str) else sample.seen(pixels)

    return labelled.name, digest, read()


def _of_archive(path: str, decode: Decoder, digest: Any) -> Iterator[Found]:
    """The pictures of all objects below the path, in the order of their URIs."""
    system_files: Counter[str] = Counter()
    entries = sorted(walk(path, left_out=system_files), key=lambda entry: entry.uri)
    if system_files:
        log.info("%s: %d system files left out", path, system_files.total())
    for number, content in fetch_many(entries):
        uri = entries[number].uri
        digest.update(uri.rpartition("/")[2].encode())
        if isinstance(content, FetchFailed):
            yield uri, content.reason
            continue
        digest.update(hashlib.sha256(content).digest())
        yield from _decoded(uri, content, decode)


def _decoded(name: str, content: bytes, decode: Decoder) -> Iterator[Found]:
    """The pictures of one object. If it has several, their ids end with the frame's number."""
    try:
        found = decode(content)
    except Refused as refused:
        yield name, refused.reason
        return
    for one in found:
        yield name if len(found) == 1 else f"{name}#{one.frame}", one.pixels
