"""The geometry of a drawn eye: disc, cup and fovea in the frame, and the vessels between them.

Frame coordinates are continuous pixels, x right and y down; pixel j covers [j, j + 1).
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

FOVEA_DISTANCE = 2.5
"""Disc centre to fovea, in disc diameters: about 4.5 mm against a disc of 1.8 mm."""


@dataclass(frozen=True)
class Oval:
    """An ellipse: centre, half axes and tilt (radians, from x towards y)."""

    x: float
    y: float
    half_width: float
    half_height: float
    tilt: float

    @property
    def rise(self) -> float:
        """Half the vertical extent in the frame, tilt included."""
        return float(
            np.hypot(self.half_height * np.cos(self.tilt), self.half_width * np.sin(self.tilt))
        )

    def radius(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Relative radius of points in frame coordinates: 0 at the centre, 1 on the outline."""
        cos, sin = float(np.cos(self.tilt)), float(np.sin(self.tilt))  # float32 stays float32
        u = ((x - self.x) * cos + (y - self.y) * sin) / self.half_width
        v = ((y - self.y) * cos - (x - self.x) * sin) / self.half_height
        return np.hypot(u, v)

    def outline(self, angle: float) -> np.ndarray:
        """The point (x, y) of the outline in a direction (radians, from x towards y)."""
        direction = np.array([np.cos(angle), np.sin(angle)])
        centre = np.array([self.x, self.y])
        reach = self.radius(*(centre + direction))
        return centre + direction / float(reach)


@dataclass(frozen=True)
class Eye:
    """One eye in frame coordinates."""

    disc: Oval
    cup: Oval
    fovea: tuple[float, float]
    laterality: str
    glaucoma: bool

    @property
    def vcdr(self) -> float:
        """The vertical cup-to-disc ratio."""
        return self.cup.rise / self.disc.rise

    @property
    def temporal(self) -> float:
        """+1 if the fovea is to the right of the disc (OS), -1 if to the left (OD)."""
        return 1.0 if self.laterality == "OS" else -1.0


@dataclass(frozen=True)
class Vessel:
    """A vessel: its centre line (N, 2) and its widths (N,), in pixels of the frame."""

    points: np.ndarray
    widths: np.ndarray
    artery: bool


def place_cup(rng: np.random.Generator, disc: Oval, vcdr: float, temporal: float) -> Oval:
    """A cup of exactly this vCDR inside the disc, slightly temporal of the disc's centre."""
    aspect = disc.half_width / disc.half_height * rng.uniform(0.88, 1.0)
    # The rise is proportional to the axes, so one division gives the size. The aspect ratio is at
    # most the disc's, so the cup fits in the disc scaled by half_height / disc.half_height.
    half_height = vcdr * disc.rise / Oval(0, 0, aspect, 1, disc.tilt).rise
    room = max(0.0, 1 - half_height / disc.half_height)
    shift = 0.75 * room * disc.half_width
    return Oval(
        disc.x + temporal * shift * rng.uniform(0, 0.8),
        disc.y + shift * rng.uniform(-0.5, 0.5),
        aspect * half_height,
        half_height,
        disc.tilt,
    )


def vessels(rng: np.random.Generator, eye: Eye) -> list[Vessel]:
    """Draw arteries and veins: four pairs of trunks, finer ones to the sides, and their branches.

    Trunks begin in the nasal half of the cup, bend at its edge and cross the rim. The temporal ones
    arch around the fovea. Arteries are thinner than veins. Thin branches avoid the fovea.
    """
    scale = 2 * eye.disc.rise
    found: list[Vessel] = []
    for artery in (True, False):
        width = scale * (0.05 if artery else 0.068)
        for up in (1, -1):
            bulge = rng.uniform(-0.22, -0.1) if artery else rng.uniform(0.1, 0.25)
            arch = [
                (1.0, 1.5 + bulge),
                (2.3, 1.75 + bulge),
                (3.6, 1.45 + bulge),
                (5.0, 1.1 + bulge),
            ]
            temporal = [(0.25 - bulge / 2, 0.95), *arch]
            nasal = [(-0.45 + bulge, 0.95), (-1.1 + bulge, 1.6), (-2.1 + bulge, 2.4), (-3.2, 3.4)]
            macular = [(0.75, 0.3), (1.2, 0.5 + bulge), (1.8, 0.45)]
            inward = [(-0.8, 0.3 + bulge), (-1.6, 0.5), (-2.8, 0.7 + bulge)]
            for way, size in ((temporal, 1.0), (nasal, 0.8), (macular, 0.3), (inward, 0.42)):
                stops = np.array(way) + rng.normal(0, 0.09, (len(way), 2))
                trunk = _trunk(rng, eye, stops * (1, up) * scale, width * size, artery)
                found.append(trunk)
                found += _branches(rng, eye, trunk, scale, depth=2 if size > 0.5 else 1)
    return found


def _trunk(
    rng: np.random.Generator, eye: Eye, stops: np.ndarray, width: float, artery: bool
) -> Vessel:
    """A trunk from the cup over the rim along `stops`: (N, 2) temporal and up, from the disc."""
    disc = np.array([eye.disc.x, eye.disc.y])
    stops = disc + stops * (eye.temporal, -1)
    first = np.arctan2(*(stops[0] - disc)[::-1])
    # The vessels begin nasally: they run along the cup's nasal wall and turn at its edge.
    nasal = np.arctan2(0.0, -eye.temporal)
    turn = np.angle(np.exp(1j * (nasal - first)))
    bend = eye.cup.outline(first + turn * rng.uniform(0.12, 0.38))
    centre = np.array([eye.cup.x, eye.cup.y])
    hilus = centre + (eye.cup.outline(nasal) - centre) * rng.uniform(0.2, 0.65)
    hilus[1] += rng.normal(0, 0.1) * eye.cup.rise
    leave = eye.disc.outline(first + turn * rng.uniform(0.0, 0.12))
    inside = np.concatenate([np.linspace(hilus, bend, 12)[:-1], np.linspace(bend, leave, 12)])
    inside = gaussian_filter1d(inside, 1.6, axis=0, mode="nearest")
    outside = np.vstack([leave, stops])
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(outside, axis=0), axis=1))])
    count = int(max(8, along[-1] / (0.06 * eye.disc.rise)))
    spline = CubicSpline(along, outside)(np.linspace(0, along[-1], count)[1:])
    points = np.concatenate([inside, spline + _meander(rng, spline, 0.035 * eye.disc.rise)])
    taper = np.concatenate([np.linspace(0.75, 1, len(inside)), np.linspace(1, 0.4, len(spline))])
    return Vessel(points, width * taper, artery)


def _branches(
    rng: np.random.Generator, eye: Eye, parent: Vessel, scale: float, depth: int
) -> list[Vessel]:
    found: list[Vessel] = []
    steps = np.linalg.norm(np.diff(parent.points, axis=0), axis=1)
    step = float(np.median(steps))
    fork = len(parent.points) // 4 if depth < 2 else 34
    side = rng.choice([-1, 1])
    while fork < len(parent.points) - 4:
        tangent = parent.points[fork + 1] - parent.points[fork - 1]
        heading = np.arctan2(tangent[1], tangent[0]) + side * rng.uniform(0.35, 0.8)
        count = int(rng.uniform(0.8, 2.4) * (1 if depth == 2 else 0.55) * scale / step)
        turns = gaussian_filter1d(rng.normal(0, 1, count), 6, mode="nearest") * 0.11
        headings = heading + np.cumsum(turns) - side * np.linspace(0, 0.45, count)
        moves = np.stack([np.cos(headings), np.sin(headings)], axis=1) * step
        points = parent.points[fork] + np.cumsum(moves, axis=0)
        points = points[: _before(np.linalg.norm(points - eye.fovea, axis=1) < 0.35 * scale)]
        points = points[: _before(eye.disc.radius(*points.T) < 1.05)]
        if len(points) > 4:
            widths = (
                parent.widths[fork] * rng.uniform(0.35, 0.6) * np.linspace(1, 0.35, len(points))
            )
            child = Vessel(points, widths, parent.artery)
            found.append(child)
            if depth > 1:
                found += _branches(rng, eye, child, scale, depth - 1)
        side = -side
        fork += int(rng.uniform(0.35, 1.0) * scale / step)
    return found


def _before(stop: np.ndarray) -> int:
    """The number of elements before the first True."""
    return int(np.argmax(stop)) if stop.any() else len(stop)


def _meander(rng: np.random.Generator, points: np.ndarray, size: float) -> np.ndarray:
    """A smooth sideways displacement (N, 2), zero at the start."""
    wander = gaussian_filter1d(rng.normal(0, 1, points.shape), 7, axis=0, mode="nearest") * 4
    return wander * size * np.minimum(1, np.linspace(0, 4, len(points)))[:, None]
