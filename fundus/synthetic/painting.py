"""Paints a drawn eye as a camera sees it: retina, papilla, vessels, then light, haze and noise.

Scenes are HWC float32 RGB with white at 1.0. Only the last step, the exposure, returns uint8.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from fundus.synthetic.camera import Camera
from fundus.synthetic.eye import Eye, Vessel

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


def grid(box: Box, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the pixels in a box, or of blocks of step x step: x (1, W) and y (H, 1)."""
    left, top, right, bottom = box
    x = np.arange(left, right, step, dtype=np.float32) + step / 2
    y = np.arange(top, bottom, step, dtype=np.float32) + step / 2
    return x[None, :], y[:, None]


def _cloud(rng: np.random.Generator, height: int, width: int, grain: float) -> np.ndarray:
    """Smooth HW float32 noise of mean 0 and deviation near 1, with a grain of `grain` pixels."""
    rows, columns = int(height / grain) + 3, int(width / grain) + 3
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 1.3


def _bell(squared: np.ndarray) -> np.ndarray:
    return np.exp(-squared)


def paint_retina(rng: np.random.Generator, camera: Camera, eye: Eye) -> np.ndarray:
    """The background, HWC float32: pigment, choroidal vessels, macula, glow around the disc."""
    size = eye.disc.half_height
    x, y = grid((0, 0, camera.width, camera.height), step=2)
    height, width = y.size, x.size
    # The zero lines of smooth noise wind and join like the vessels of the choroid.
    # Patches of more and less pigment hide and show them.
    net = _bell((_cloud(rng, height, width, size * 0.24) / 0.4) ** 2)
    net *= np.clip(0.7 + 0.6 * _cloud(rng, height, width, size * 0.9), 0, 1.6)
    net += 0.6 * _bell((_cloud(rng, height, width, size * 0.1) / 0.4) ** 2)
    amount = rng.uniform(0.02, 0.1)
    shade = 1 + amount * (net - 0.7) + 0.05 * _cloud(rng, height, width, size)
    near = ((x - eye.fovea[0]) ** 2 + (y - eye.fovea[1]) ** 2) / size**2
    pit, macula = _bell(near / 0.5), _bell(near / 4)
    shade *= 1 - 0.3 * pit - 0.2 * macula
    shade *= 1 + 0.16 * _bell(((x - eye.disc.x) ** 2 + (y - eye.disc.y) ** 2) / (6 * size**2))
    tint = 1 + rng.normal(0, 0.04, 3)
    # The choroid is red between its vessels; the macula absorbs mainly green and blue.
    channels = (
        shade * (1 + 0.5 * amount * net),
        shade * (1 - 0.18 * macula),
        shade * (1 - 0.25 * macula),
    )
    image = np.stack(channels, axis=-1) * (np.array(camera.retina) * tint).astype(np.float32)
    full = cv2.resize(image, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)
    mottle = _cloud(rng, camera.height, camera.width, size * 0.045)
    return full * (1 + 0.025 * mottle)[..., None]


def papilla_box(height: int, width: int, eye: Eye) -> Box:
    """The part of the frame around the disc, including its crescent."""
    reach = 1.8 * eye.disc.half_height
    return (
        max(0, int(eye.disc.x - reach)),
        max(0, int(eye.disc.y - reach)),
        min(width, int(eye.disc.x + reach)),
        min(height, int(eye.disc.y + reach)),
    )


def paint_papilla(rng: np.random.Generator, camera: Camera, eye: Eye, image: np.ndarray) -> None:
    """Paint disc, cup, halo and temporal crescent into the picture of the retina, in place."""
    disc, size = eye.disc, eye.disc.half_height
    box = papilla_box(camera.height, camera.width, eye)
    x, y = grid(box)
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
    pigment = _bell(((disc_radius - 1.1 - reach) / 0.1) ** 2) * np.clip(0.4 + 0.6 * ragged, 0, 1)
    painted *= (1 - 0.25 * pigment * np.clip(side, 0, 1))[..., None]

    # The nasal rim is redder: it has more fibres and more small vessels.
    pallor = 0.14 * np.clip(side, -1, 1) + 0.025 * streaks
    rim = np.array(camera.rim) * (1 + rng.normal(0, 0.03, 3))
    surface = rim * (1 + pallor[..., None] * np.array([0.5, 1.2, 1.5]))
    painted = _blend(painted, surface, _edge(1.0 - disc_radius, 0.02))
    floor = np.array(camera.cup) * (1.02 + 0.035 * streaks - 0.06 * cup_radius)[..., None]
    # The cup's temporal wall slopes gently, its nasal wall is steep. Depth is relative to the disc.
    depth = (1.0 - cup_radius) * eye.cup.half_height / size
    slope = 0.025 + 0.03 * np.clip(0.5 + side, 0, 1)
    painted = _blend(painted, floor, _edge(depth, slope) * rng.uniform(0.82, 0.98))
    painted *= (1 - 0.08 * _bell((depth / 0.05) ** 2))[..., None]
    around[...] = painted


def _edge(depth: np.ndarray, softness: np.ndarray | float) -> np.ndarray:
    """A soft edge: 0 outside, 1 inside, 0.5 where the depth is 0."""
    return np.clip(0.5 + depth / (4 * softness), 0, 1)


def _blend(image: np.ndarray, colour: np.ndarray, share: np.ndarray) -> np.ndarray:
    return image + share.astype(np.float32)[..., None] * (colour.astype(np.float32) - image)


def paint_vessels(image: np.ndarray, tree: Sequence[Vessel], eye: Eye) -> None:
    """Paint vessels, in place: they absorb mainly green and blue, and arteries have a reflex."""
    arteries = [vessel for vessel in tree if vessel.artery]
    veins = _cover(image.shape, [vessel for vessel in tree if not vessel.artery], 1.0)
    walls, shine = _cover(image.shape, arteries, 1.0), _cover(image.shape, arteries, 0.3)
    left, top, right, bottom = box = papilla_box(image.shape[0], image.shape[1], eye)
    # Vessels in the cup are deep and out of focus.
    faint = 0.86 + 0.14 * np.clip(eye.cup.radius(*grid(box)), 0, 1)
    for cover in (veins, walls):
        cover[top:bottom, left:right] *= faint
    colours = ((0.30, 0.16, 0.06), (0.58, 0.50, 0.036), (0.52, 0.48, 0.027))
    for channel, (vein, artery, gleam) in enumerate(colours):
        plane = image[..., channel]
        plane *= (1 - vein * veins) * (1 - artery * walls)
        plane += gleam * shine


def _cover(shape: tuple[int, ...], tree: Sequence[Vessel], part: float) -> np.ndarray:
    """The share of each pixel that vessels cover, HW float32 in [0, 1]; drawn at twice the size."""
    canvas = np.zeros((shape[0] * 2, shape[1] * 2), np.uint8)
    for vessel in tree:
        thickness = np.maximum(1, np.rint(vessel.widths * 2 * part)).astype(int)
        points = np.rint((vessel.points * 2 - 0.5) * 16).astype(np.int32)
        starts = np.flatnonzero(np.diff(thickness, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(points)], strict=True):
            run = points[start : stop + 1].reshape(-1, 1, 2)
            # Thin branches are also thin in depth, so they fade out.
            level = int(255 * min(1.0, 0.35 + 0.13 * float(vessel.widths[start])))
            width = int(thickness[start])
            cv2.polylines(canvas, [run], False, level, width, cv2.LINE_AA, shift=4)
    small = cv2.resize(canvas, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), 0.8).astype(np.float32) / 255


def expose(
    rng: np.random.Generator, camera: Camera, image: np.ndarray, centre: np.ndarray, radius: float
) -> np.ndarray:
    """Apply light, haze, defocus, noise and the field's edge: HWC float32 -> HWC uint8 frame."""
    height, width = image.shape[:2]
    light = camera.light * float(np.clip(rng.normal(1, 0.07), 0.8, 1.2))
    lean, angle = rng.normal(0, 0.12, 2), rng.uniform(0, 2 * np.pi)

    x, y = grid((0, 0, width, height), step=4)
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

    # Shot noise is weaker in dark areas.
    coarse = rng.standard_normal((height // 2, width // 2, 3), dtype=np.float32)
    fine = rng.standard_normal((height, width, 1), dtype=np.float32)
    sensor = cv2.resize(coarse, (width, height)) + 0.7 * fine
    frame = frame * 255 + sensor * camera.noise * (0.4 + frame)

    x, y = grid((0, 0, width, height))
    x, y = x - float(centre[0]), y - float(centre[1])
    inside = np.clip(radius - np.sqrt(x**2 + y**2) + 0.5, 0, 1)
    inside *= np.clip((1 - 2 * camera.cropped) * radius - np.abs(y) + 0.5, 0, 1)
    return np.clip(frame * inside[..., None] + 1.5, 0, 255).astype(np.uint8)
