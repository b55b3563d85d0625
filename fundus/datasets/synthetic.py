"""A synthetic camera: drawn fundus frames with known disc, cup and vertical cup-to-disc ratio.

A drawing, not a photograph: it shows the pipeline at work and tests it; no accuracy measured on
it says anything about eyes.
"""

import contextlib
import csv
import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image

from fundus import synthetic as room
from fundus.anatomy.labels import compose
from fundus.datasets.manifest import read_manifest
from fundus.datasets.samples import Sample
from fundus.errors import ConfigurationError
from fundus.synthetic.camera import CAMERAS, Camera, clinic, handheld, hospital
from fundus.synthetic.eye import FOVEA_DISTANCE, Eye, Oval, place_cup, vessels
from fundus.synthetic.painting import (
    expose,
    grid,
    paint_papilla,
    paint_retina,
    paint_vessels,
    papilla_box,
)

__all__ = [
    "CAMERAS", "Camera", "Drawn", "Frame", "clinic", "draw", "handheld", "hospital",
    "read_synthetic", "write_archive",
]  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """A drawn frame and what is known of it."""

    image: np.ndarray
    """HWC uint8 RGB."""
    mask: np.ndarray
    """HW uint8, 0 background, 1 rim, 2 cup."""
    laterality: str
    """"OD" or "OS"."""
    vcdr: float
    """Of the outlines, before they are cut into pixels."""
    glaucoma: bool


def draw(camera: Camera, seed: int) -> Frame:
    """One frame, always the same for the same camera and seed."""
    rng = np.random.default_rng([seed, crc32(repr(camera).encode())])
    radius = camera.field * camera.width / 2
    centre = np.array([camera.width, camera.height]) / 2 + rng.normal(0, 0.006, 2) * camera.width
    eye = _eye(rng, camera, centre, radius)
    image = paint_retina(rng, camera, eye)
    paint_papilla(rng, camera, eye, image)
    paint_vessels(image, vessels(rng, eye), eye)
    left, top, right, bottom = box = papilla_box(camera.height, camera.width, eye)
    mask = np.zeros((camera.height, camera.width), np.uint8)
    x, y = grid(box)
    mask[top:bottom, left:right] = compose(eye.disc.radius(x, y) <= 1, eye.cup.radius(x, y) <= 1)
    return Frame(
        image=expose(rng, camera, image, centre, radius),
        mask=mask,
        laterality=eye.laterality,
        vcdr=eye.vcdr,
        glaucoma=eye.glaucoma,
    )


@dataclass(frozen=True)
class Drawn:
    """One file of a drawn archive and what is known of it."""

    path: Path
    camera: str
    laterality: str
    vcdr: float
    glaucoma: bool


DRAWING = (Path(__file__), *sorted(Path(room.__file__).parent.glob("*.py")))
"""The source files that a drawn set depends on."""

FORMATS = (".jpg", ".jpg", ".png", ".jpg", ".jpg", ".tif")
"""In turn, as a hospital's archive mixes them."""


def write_archive(folder: Path, cameras: Sequence[Camera], count: int, seed: int) -> list[Drawn]:
    """Draw `count` frames with each camera into `<folder>/<camera>/`, as JPEG, PNG and TIFF.

    The folder holds pictures alone; what is known of them is returned. Files that are there are
    drawn again, the same.
    """
    drawn = []
    for camera in cameras:
        (folder / camera.name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            frame = draw(camera, _seed_of(seed, number))
            ending = FORMATS[number % len(FORMATS)]
            path = folder / camera.name / f"eye-{number:04d}-{frame.laterality}{ending}"
            _save(frame.image, path, camera)
            drawn.append(Drawn(path, camera.name, frame.laterality, frame.vcdr, frame.glaucoma))
    return drawn


def read_synthetic(
    root: Path = Path(), *, camera: str = "clinic", count: str = "64", seed: str = "0"
) -> list[Sample]:
    """Drawn frames, as JPEG with masks: a set of `count` eyes, drawn once into `root`.

    camera: clinic, hospital or handheld. Sets of different seeds share no eye. An empty root is
    the user's cache folder. The folder's name holds a digest of the camera and of the drawing
    code, so that frames are drawn again after a change of either.
    """
    if camera not in CAMERAS:
        raise ConfigurationError(f"camera={camera}: not one of {', '.join(CAMERAS)}")
    if not (count.isdecimal() and seed.isdecimal() and int(count) > 0):
        raise ConfigurationError(f"count={count}, seed={seed}: not a positive and a whole number")
    if root == Path():
        root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fundus"
    style = CAMERAS[camera]()
    code = b"".join(source.read_bytes() for source in DRAWING)
    key = hashlib.sha256(code + repr((style, count, seed)).encode()).hexdigest()[:12]
    folder = root / f"synthetic-{camera}-{key}"
    if not folder.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            _write_set(Path(scratch) / "set", style, int(count), int(seed))
            # Someone else may have drawn the same set meanwhile; then theirs serves.
            with contextlib.suppress(OSError):
                (Path(scratch) / "set").rename(folder)
    return read_manifest(folder / "manifest.csv")


def _write_set(folder: Path, camera: Camera, count: int, seed: int) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    with (folder / "manifest.csv").open("w", newline="") as lines:
        table = csv.writer(lines)
        table.writerow(["set", "id", "image", "mask", "glaucoma", "annotation", "laterality"])
        for number in range(count):
            frame = draw(camera, _seed_of(seed, number))
            name = f"{number:05d}"
            _save(frame.image, folder / "images" / f"{name}.jpg", camera)
            Image.fromarray(frame.mask).save(folder / "masks" / f"{name}.png")
            table.writerow(
                [
                    f"synthetic-{camera.name}",
                    name,
                    f"images/{name}.jpg",
                    f"masks/{name}.png",
                    int(frame.glaucoma),
                    "disc+cup",
                    frame.laterality,
                ]
            )


def _seed_of(seed: int, number: int) -> int:
    """Apart for any two sets of up to a million eyes."""
    return seed * 1_000_000 + number


def _save(image: np.ndarray, path: Path, camera: Camera) -> None:
    if path.suffix == ".jpg":
        Image.fromarray(image).save(path, quality=camera.jpeg_quality)
    elif path.suffix == ".tif":
        Image.fromarray(image).save(path, compression="tiff_lzw")
    else:
        Image.fromarray(image).save(path)


def _eye(rng: np.random.Generator, camera: Camera, centre: np.ndarray, radius: float) -> Eye:
    laterality = "OD" if rng.random() < 0.5 else "OS"
    temporal = 1.0 if laterality == "OS" else -1.0
    half = camera.disc_size * radius * float(np.clip(rng.normal(1, 0.08), 0.8, 1.25))
    away = FOVEA_DISTANCE * 2 * half * (1 - camera.centred_on_disc) * rng.uniform(0.62, 0.78)
    disc = Oval(
        centre[0] - temporal * away + rng.normal(0, 0.03) * radius,
        centre[1] + rng.normal(0, 0.05) * radius,
        half * rng.uniform(0.86, 0.97),
        half,
        rng.normal(0, 0.12),
    )
    glaucoma = bool(rng.random() < camera.glaucoma)
    mean, spread = camera.vcdr_glaucoma if glaucoma else camera.vcdr_healthy
    vcdr = float(np.clip(rng.normal(mean, spread), 0.2, 0.9))
    fovea = (
        disc.x + temporal * FOVEA_DISTANCE * 2 * half,
        disc.y + rng.uniform(0.1, 0.5) * half,
    )
    return Eye(disc, place_cup(rng, disc, vcdr, temporal), fovea, laterality, glaucoma)
