"""From pictures to probabilities: detection, and segmentation averaged over flips and rotations."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from fundus.anatomy.labels import disc_of
from fundus.images import fov, roi
from fundus.images.roi import Roi
from fundus.models.bundle import ADAPTED, DETECTOR, SOURCE_ONLY, Bundle, BundleError
from fundus.models.confidence import Calibration, calibrated
from fundus.models.engine import Engine
from fundus.models.networks import members
from fundus.models.reframing import settle

TWO_DISCS = "two_discs"
"""The flag of a picture whose `Detection.two` is set."""
SECOND_PEAK = 0.8
"""Disc probability from which a second region of a detector map is a disc too."""
LIKE_SIZE = 0.5
"""Least ratio of the areas of two discs, the lesser over the larger."""
FAR = 2.0
"""Least distance of the centres of two discs, in diameters of the first."""
TTA = 8
"""Flips and rotations by quarter turns that each picture is seen in (paper, section 4.2)."""


@dataclass(frozen=True)
class Detection:
    """Where the disc is, if anywhere."""

    confidence: float
    """How likely it is that the disc lies here, in [0, 1]: the highest disc probability in the
    frame after a light blur, calibrated where the bundle is. NaN where no detector was asked, and,
    without a ROI, where the detector's answer was not finite."""
    roi: Roi | None
    """The square around the disc, pixels of the original frame; None where no disc was found."""
    two: bool = False
    """Whether a second region of the frame is as surely a disc, of like size and far away."""


class Predictor:
    """A bundle's networks on one device, with float32 probabilities coming back as numpy.

    An engine is built with the first picture of its role: who detects alone pays for nothing else.
    """

    def __init__(self, bundle: Bundle, device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.networks = {role: network.build() for role, network in bundle.networks.items()}
        self.engines: dict[str, list[Engine]] = {}
        self.side = bundle.preprocessing.roi_side
        self.preprocessing = bundle.preprocessing
        self.thresholds = bundle.thresholds
        self.segmenters = tuple(r for r in (SOURCE_ONLY, ADAPTED) if r in self.networks)

    def detect(self, images: Sequence[np.ndarray]) -> list[Detection]:
        """Find the disc in frames (HWC uint8 RGB, any size)."""
        if DETECTOR not in self.networks:
            raise BundleError("the bundle has no detector: give disc crops (--precropped)")
        side = self.preprocessing.detector_side
        squares = [square_of_interest(image) for image in images]
        found = [Detection(0.0, None)] * len(images)
        for i, square in enumerate(squares):
            if square is None:
                continue
            crop = roi.crop(images[i], square, side)
            disc = self._members(DETECTOR)[0](self._pictures(crop[None]))[0, 0].cpu().numpy()
            found[i] = locate(
                disc,
                square,
                self.thresholds.disc_found,
                self.preprocessing.roi_scale,
                self.thresholds.confidence,
            )
        return found

    def place(self, image: np.ndarray, *, precropped: bool) -> Detection:
        """Where the segmenter shall look in a picture (HWC uint8 RGB, any size).

        In a frame the detector says it; in a disc crop of any tightness the segmenter does, by
        single passes (fundus.models.reframing). `roi.crop(..., mirrored=True)` takes the ROI.
        """
        if not precropped:
            return self.detect([image])[0]
        if not self.segmenters:
            raise BundleError("the bundle has no segmenter")

        def ask(crop: np.ndarray) -> np.ndarray:
            maps = self.glance(crop)
            # Not finite: no disc here, and `segment` will say the same of its maps.
            return maps if np.isfinite(maps).all() else np.zeros_like(maps)

        scale = self.preprocessing.roi_scale
        return Detection(np.nan, settle(image, ask, self.thresholds, side=self.side, scale=scale))

    def segment(self, crops: np.ndarray, networks: Sequence[str] | None = None) -> np.ndarray:
        """(N, side, side, 3) uint8 RGB -> (N, 8 x networks, 2, side, side) float32 in [0, 1].

        Each map is disc (cup included), then cup, turned back into the ROI frame. `networks` are
        roles; by default every segmenter of the bundle, source-only first. An ensemble's members
        answer one by one, so that the spread over the maps says where they differ: all turns of the
        first member come first. A faulty network's maps may not be finite.
        """
        roles = tuple(networks or self.segmenters)
        missing = [role for role in roles if role not in self.networks]
        if missing or not roles:
            raise BundleError(f"the bundle has no {missing[0] if missing else 'segmenter'}")
        pictures = self._pictures(crops)
        seen = torch.stack([do(pictures) for do, _ in turns()], dim=1).flatten(0, 1)
        maps = [
            self._turned_back(engine(seen), len(crops))
            for role in roles
            for engine in self._members(role)
        ]
        return torch.cat(maps, dim=1).cpu().numpy()

    def glance(self, crop: np.ndarray) -> np.ndarray:
        """(S, S, 3) uint8 RGB -> (2, S, S) float32 in [0, 1]: the first segmenter's first member
        alone, in one pass."""
        if not self.segmenters:
            raise BundleError("the bundle has no segmenter")
        (first, *_) = self._members(self.segmenters[0])
        return first(self._pictures(crop[None]))[0].cpu().numpy()

    def _turned_back(self, answers: Tensor, count: int) -> Tensor:
        """(N x turns, 2, S, S) -> (N, turns, 2, S, S) in the ROI frame."""
        apart = answers.unflatten(0, (count, TTA))
        return torch.stack([undo(apart[:, i]) for i, (_, undo) in enumerate(turns())], dim=1)

    def _members(self, role: str) -> list[Engine]:
        """The engines of a role's networks, built when they are first asked for."""
        if role not in self.engines:
            networks = members(self.networks[role])
            self.engines[role] = [Engine(network, self.device) for network in networks]
        return self.engines[role]

    def _pictures(self, crops: np.ndarray) -> Tensor:
        return torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2)


def square_of_interest(image: np.ndarray) -> Roi | None:
    """What the detector sees: the square around the field of view; None if all is black."""
    field = fov.field_of_view(image)
    return None if field is None else roi.of_field(field)


Turn = Callable[[Tensor], Tensor]


def turns() -> list[tuple[Turn, Turn]]:
    """The 8 symmetries of the square on (..., H, W), each with its inverse."""

    def turn(quarters: int, flip: bool) -> tuple[Turn, Turn]:
        def do(x: Tensor) -> Tensor:
            return torch.rot90(x.flip(-1) if flip else x, quarters, (-2, -1))

        def undo(x: Tensor) -> Tensor:
            back = torch.rot90(x, -quarters, (-2, -1))
            return back.flip(-1) if flip else back

        return do, undo

    return [turn(quarters, flip) for flip in (False, True) for quarters in range(4)]


def locate(
    disc: np.ndarray,
    seen: Roi,
    least_confidence: float,
    scale: float,
    calibration: Calibration | None = None,
) -> Detection:
    """The disc in one detector map.

    `disc` is (S, S) float in [0, 1] over the square `seen` of the frame. The confidence is the peak
    of the lightly blurred map, calibrated; the disc is the region around that peak above half of
    it, and the ROI is centred on its centroid with a side of `scale` times its equal-area diameter.
    A map that is not finite gives a confidence of NaN. `two` is set by another region above half of
    the peak that SECOND_PEAK, LIKE_SIZE and FAR take for a second disc.
    """
    if not np.isfinite(disc).all():
        return Detection(math.nan, None)
    side = disc.shape[0]
    blurred = cv2.GaussianBlur(disc, (0, 0), sigmaX=side / 100)
    _, peak, _, (column, row) = cv2.minMaxLoc(blurred)
    raw = min(float(peak), 1.0)
    confidence = calibrated(raw, calibration) if calibration else raw
    if confidence < least_confidence:
        return Detection(confidence, None)
    _, regions, stats, centroids = cv2.connectedComponentsWithStats(
        (blurred >= peak / 2).astype(np.uint8)
    )
    region = regions[row, column]
    areas = stats[:, cv2.CC_STAT_AREA]
    diameter = 2 * np.sqrt(areas[region] / np.pi)
    distances = np.hypot(*(centroids - centroids[region]).T)
    others = [
        other
        for other in range(1, len(areas))
        if LIKE_SIZE <= areas[other] / areas[region] <= 1 / LIKE_SIZE
        and distances[other] >= FAR * diameter
        and blurred[regions == other].max() >= SECOND_PEAK
    ]
    x, y = seen.to_frame(centroids[region] + 0.5, side)
    size = float(scale * diameter * seen.size / side)
    return Detection(confidence, roi.around(float(x), float(y), size), bool(others))


def centre_inside(mask: np.ndarray, region: Roi | None) -> bool:
    """Whether the centre of a ROI lies inside the disc of an HW mask of its frame."""
    if region is None:
        return False
    row, column = int(region.y + region.size / 2), int(region.x + region.size / 2)
    inside = 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]
    return inside and bool(disc_of(mask[row : row + 1, column : column + 1]).any())
