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

import cv2
import numpy as np
from PIL import Image

from fundus.anatomy.labels import compose
from fundus.datasets import eye as eye_module
from fundus.datasets.eye import FOVEA_DISTANCE, Eye, Oval, Vessel, place_cup, vessels
from fundus.datasets.manifest import read_manifest
from fundus.datasets.samples import Sample

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Camera:
    """How a site's frames look, and whom it sees. Colours are RGB in [0, 1]."""

    name: str
    height: int
    """Of the frame, pixels."""
    width: int
    field: float
    """Diameter of the circular field of view over the frame's width."""
    cropped: float
    """Share of the field's diameter that is cut at the top, and again at the bottom."""
    centred_on_disc: float
    """0: the field is centred between disc and fovea; 1: on the disc."""
    disc_size: float
    """Mean vertical diameter of the disc over the diameter of the field."""
    retina: Colour
    rim: Colour
    cup: Colour
    haze: Colour
    """What veils the edge of the field on one side."""
    light: float
    """Mean exposure; 1 shows the colours as given."""
    vignetting: float
    """Share of the light that is lost at the edge of the field."""
    hazing: float
    """Strength of the haze at the edge, 0 to 1."""
    blur: float
    """Standard deviation of the defocus, pixels."""
    noise: float
    """Standard deviation of the sensor noise, grey levels of 255."""
    glaucoma: float
    """Share of eyes with glaucoma."""
    vcdr_healthy: tuple[float, float]
    """Mean and standard deviation of the vertical cup-to-disc ratio."""
    vcdr_glaucoma: tuple[float, float]
    jpeg_quality: int

    def __post_init__(self) -> None:
        for name in ("field", "disc_size", "glaucoma", "vignetting", "hazing", "centred_on_disc"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"camera {self.name}: {name}={getattr(self, name)} not in [0, 1]")


def clinic() -> Camera:
    """A macula-centred 45-degree camera among healthy eyes: orange, sharp, small cups."""
    return Camera(
        name="clinic", height=1000, width=1040, field=0.96, cropped=0.02, centred_on_disc=0.15,
        disc_size=0.145, retina=(0.66, 0.34, 0.13), rim=(0.91, 0.55, 0.28), cup=(1.0, 0.90, 0.62),
        haze=(0.40, 0.47, 0.33), light=1.0, vignetting=0.45, hazing=0.35, blur=0.7, noise=2.0,
        glaucoma=0.1, vcdr_healthy=(0.40, 0.08), vcdr_glaucoma=(0.66, 0.08), jpeg_quality=92,
    )  # fmt: skip


def hospital() -> Camera:
    """A disc-centred 30-degree camera in a glaucoma service: darker, bluish, softer, big cups."""
    return Camera(
        name="hospital", height=900, width=1050, field=0.97, cropped=0.09, centred_on_disc=0.8,
        disc_size=0.19, retina=(0.47, 0.27, 0.21), rim=(0.72, 0.47, 0.41), cup=(0.84, 0.76, 0.70),
        haze=(0.36, 0.42, 0.52), light=0.82, vignetting=0.55, hazing=0.5, blur=1.9, noise=5.0,
        glaucoma=0.7, vcdr_healthy=(0.48, 0.08), vcdr_glaucoma=(0.74, 0.08), jpeg_quality=80,
    )  # fmt: skip


def handheld() -> Camera:
    """A narrow, unevenly lit field from a hand-held device: magenta, blurred, strongly packed."""
    return Camera(
        name="handheld", height=960, width=1280, field=0.68, cropped=0.0, centred_on_disc=0.6,
        disc_size=0.17, retina=(0.66, 0.25, 0.22), rim=(0.90, 0.55, 0.47), cup=(0.97, 0.83, 0.74),
        haze=(0.60, 0.40, 0.52), light=0.9, vignetting=0.7, hazing=0.45, blur=2.6, noise=8.0,
        glaucoma=0.35, vcdr_healthy=(0.43, 0.09), vcdr_glaucoma=(0.70, 0.09), jpeg_quality=60,
    )  # fmt: skip


CAMERAS = {"clinic": clinic, "hospital": hospital, "handheld": handheld}


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
    image = _retina(rng, camera, eye)
    _paint_papilla(rng, camera, eye, image)
    _perfuse(image, vessels(rng, eye), eye)
    x, y = _grid((0, 0, camera.width, camera.height))
    return Frame(
        image=_expose(rng, camera, image, centre, radius),
        mask=compose(eye.disc.radius(x, y) <= 1, eye.cup.radius(x, y) <= 1),
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
    code, so that a change of either draws anew.
    """
    if camera not in CAMERAS:
        raise ValueError(f"camera={camera}: not one of {', '.join(CAMERAS)}")
    if not (count.isdecimal() and seed.isdecimal() and int(count) > 0):
        raise ValueError(f"count={count}, seed={seed}: not a positive and a whole number")
    if root == Path():
        root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fundus"
    style = CAMERAS[camera]()
    code = Path(__file__).read_bytes() + Path(eye_module.__file__).read_bytes()
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


Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


def _grid(box: Box, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The centres of the pixels in a box, or of blocks of step x step: x (1, W) and y (H, 1)."""
    left, top, right, bottom = box
    x = np.arange(left, right, step, dtype=np.float32) + step / 2
    y = np.arange(top, bottom, step, dtype=np.float32) + step / 2
    return x[None, :], y[:, None]


def _cloud(rng: np.random.Generator, height: int, width: int, grain: float) -> np.ndarray:
    """Smooth HW float32 noise of mean 0 and deviation near 1, `grain` pixels between its hills."""
    rows, columns = int(height / grain) + 3, int(width / grain) + 3
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 1.3


def _bell(squared: np.ndarray) -> np.ndarray:
    return np.exp(-squared)


def _retina(rng: np.random.Generator, camera: Camera, eye: Eye) -> np.ndarray:
    """The background, HWC float32: pigment, choroidal vessels, macula, glow around the disc."""
    size = eye.disc.half_height
    x, y = _grid((0, 0, camera.width, camera.height), step=2)
    height, width = y.size, x.size
    # The zero lines of smooth noise wind and join as the choroid's vessels do.
    net = _bell((_cloud(rng, height, width, size * 0.24) / 0.4) ** 2)
    net += 0.6 * _bell((_cloud(rng, height, width, size * 0.1) / 0.4) ** 2)
    amount = rng.uniform(0.02, 0.1)
    shade = 1 + amount * (net - 0.7) + 0.05 * _cloud(rng, height, width, size)
    near = ((x - eye.fovea[0]) ** 2 + (y - eye.fovea[1]) ** 2) / size**2
    pit, macula = _bell(near / 0.5), _bell(near / 4)
    shade *= 1 - 0.3 * pit - 0.2 * macula
    shade *= 1 + 0.16 * _bell(((x - eye.disc.x) ** 2 + (y - eye.disc.y) ** 2) / (6 * size**2))
    tint = 1 + rng.normal(0, 0.04, 3)
    # Red between the choroid's vessels, and a macula that takes green and blue first.
    channels = (
        shade * (1 + 0.5 * amount * net),
        shade * (1 - 0.18 * macula),
        shade * (1 - 0.25 * macula),
    )
    image = np.stack(channels, axis=-1) * (np.array(camera.retina) * tint).astype(np.float32)
    return cv2.resize(image, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)


def _paint_papilla(rng: np.random.Generator, camera: Camera, eye: Eye, image: np.ndarray) -> None:
    """Disc, cup, halo and temporal crescent, painted into the retina's picture."""
    disc, size = eye.disc, eye.disc.half_height
    box = (
        max(0, int(disc.x - 1.8 * size)),
        max(0, int(disc.y - 1.8 * size)),
        min(camera.width, int(disc.x + 1.8 * size)),
        min(camera.height, int(disc.y + 1.8 * size)),
    )
    x, y = _grid(box)
    around = image[box[1] : box[3], box[0] : box[2]]
    height, width = around.shape[:2]
    disc_radius, cup_radius = disc.radius(x, y), eye.cup.radius(x, y)
    side = float(eye.temporal) * (x - disc.x) / size + 0 * y
    ragged = _cloud(rng, height, width, size * 0.35)
    streaks = _cloud(rng, height, width, size * 0.12)

    reach = rng.uniform(-0.1, 0.3) * np.clip(side, 0, 1)
    halo = _bell(((disc_radius - 1.06) / 0.07) ** 2) * (0.3 + 0.12 * ragged)
    crescent = _edge(1.02 + reach + 0.04 * ragged - disc_radius, 0.03) * (reach > 0.02)
    pale = np.array(camera.rim) * 0.5 + np.array(camera.retina) * 0.5
    painted = _blend(around, pale, np.clip(halo + 0.6 * crescent, 0, 0.75))
    pigment = _bell(((disc_radius - 1.06 - reach) / 0.05) ** 2) * np.clip(0.2 + ragged, 0, 1)
    painted *= (1 - 0.3 * pigment * np.clip(0.5 + side, 0, 1))[..., None]

    # The nasal rim is redder: it holds more fibres and more of the small vessels that feed them.
    pallor = 0.14 * np.clip(side, -1, 1) + 0.025 * streaks
    rim = np.array(camera.rim) * (1 + rng.normal(0, 0.03, 3))
    surface = rim * (1 + pallor[..., None] * np.array([0.5, 1.2, 1.5]))
    painted = _blend(painted, surface, _edge(1.0 - disc_radius, 0.02))
    floor = np.array(camera.cup) * (1.02 + 0.035 * streaks - 0.06 * cup_radius)[..., None]
    # The cup's temporal wall slopes; its nasal one is steep. Depth in units of the disc.
    depth = (1.0 - cup_radius) * eye.cup.half_height / size
    slope = 0.025 + 0.03 * np.clip(0.5 + side, 0, 1)
    painted = _blend(painted, floor, _edge(depth, slope) * rng.uniform(0.82, 0.98))
    painted *= (1 - 0.08 * _bell((depth / 0.05) ** 2))[..., None]
    around[...] = painted


def _edge(depth: np.ndarray, softness: np.ndarray | float) -> np.ndarray:
    """0 outside, 1 inside, with its middle where the depth is 0."""
    return np.clip(0.5 + depth / (4 * softness), 0, 1)


def _blend(image: np.ndarray, colour: np.ndarray, share: np.ndarray) -> np.ndarray:
    return image + share.astype(np.float32)[..., None] * (colour.astype(np.float32) - image)


def _perfuse(image: np.ndarray, tree: Sequence[Vessel], eye: Eye) -> None:
    """Vessels absorb green and blue most, veins more than arteries; arteries shine along."""
    arteries = [vessel for vessel in tree if vessel.artery]
    veins = _cover(image.shape, [vessel for vessel in tree if not vessel.artery], 1.0)
    walls, shine = _cover(image.shape, arteries, 1.0), _cover(image.shape, arteries, 0.3)
    x, y = _grid((0, 0, image.shape[1], image.shape[0]))
    # In the cup they lie deep and out of focus.
    faint = 0.86 + 0.14 * np.clip(eye.cup.radius(x, y), 0, 1)
    veins *= faint
    walls *= faint
    colours = ((0.30, 0.16, 0.06), (0.58, 0.50, 0.036), (0.52, 0.48, 0.027))
    for channel, (vein, artery, gleam) in enumerate(colours):
        plane = image[..., channel]
        plane *= (1 - vein * veins) * (1 - artery * walls)
        plane += gleam * shine


def _cover(shape: tuple[int, ...], tree: Sequence[Vessel], part: float) -> np.ndarray:
    """How much of each pixel the vessels cover, HW float32 in [0, 1]; drawn at twice the size."""
    canvas = np.zeros((shape[0] * 2, shape[1] * 2), np.uint8)
    for vessel in tree:
        thickness = np.maximum(1, np.rint(vessel.widths * 2 * part)).astype(int)
        points = np.rint((vessel.points * 2 - 0.5) * 16).astype(np.int32)
        starts = np.flatnonzero(np.diff(thickness, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(points)], strict=True):
            run = points[start : stop + 1].reshape(-1, 1, 2)
            # Twigs are thin in depth too: they fade, they do not end.
            level = int(255 * min(1.0, 0.35 + 0.13 * float(vessel.widths[start])))
            width = int(thickness[start])
            cv2.polylines(canvas, [run], False, level, width, cv2.LINE_AA, shift=4)
    small = cv2.resize(canvas, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), 0.8).astype(np.float32) / 255


def _expose(
    rng: np.random.Generator, camera: Camera, image: np.ndarray, centre: np.ndarray, radius: float
) -> np.ndarray:
    """Light, haze, defocus, the field's edge and noise: HWC float32 scene -> HWC uint8 frame."""
    height, width = image.shape[:2]
    light = camera.light * float(np.clip(rng.normal(1, 0.07), 0.8, 1.2))
    lean, angle = rng.normal(0, 0.12, 2), rng.uniform(0, 2 * np.pi)

    x, y = _grid((0, 0, width, height), step=4)
    x, y = (x - float(centre[0])) / radius, (y - float(centre[1])) / radius
    distance = np.clip(np.hypot(x, y), 0, 1)
    lit = light * (1 - camera.vignetting * distance**2.4) * (1 + x * lean[0] + y * lean[1])
    facing = 0.5 + 0.5 * (x * np.cos(angle) + y * np.sin(angle))
    veil = camera.hazing * distance**5 * np.clip(facing, 0, 1)
    gain = np.repeat((lit * (1 - veil))[..., None], 3, axis=2)
    added = veil[..., None] * np.array(camera.haze) * light
    gain = cv2.resize(gain.astype(np.float32), (width, height))
    added = cv2.resize(added.astype(np.float32), (width, height))
    frame = cv2.GaussianBlur(image * gain + added, (0, 0), camera.blur)

    # Shot noise: less where it is dark.
    coarse = rng.standard_normal((height // 2, width // 2, 3), dtype=np.float32)
    fine = rng.standard_normal((height, width, 1), dtype=np.float32)
    sensor = cv2.resize(coarse, (width, height)) + 0.7 * fine
    frame = frame * 255 + sensor * camera.noise * (0.4 + frame)

    x, y = _grid((0, 0, width, height))
    x, y = x - float(centre[0]), y - float(centre[1])
    inside = np.clip(radius - np.sqrt(x**2 + y**2) + 0.5, 0, 1)
    inside *= np.clip((1 - 2 * camera.cropped) * radius - np.abs(y) + 0.5, 0, 1)
    return np.clip(frame * inside[..., None] + 1.5, 0, 255).astype(np.uint8)
