"""From pictures to probabilities: detection, and segmentation of all flips and rotations.

It needs no torch, unless the networks run on a GPU.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np

from fundus.anatomy.labels import disc_of
from fundus.field import fov, margins, roi
from fundus.field.fov import FieldOfView
from fundus.field.halving import halved
from fundus.field.roi import Roi
from fundus.models import convert
from fundus.models.bundle import (
    ADAPTED,
    DETECTOR,
    SOURCE_ONLY,
    STUDENT,
    Bundle,
    BundleError,
    Network,
    Preprocessing,
)
from fundus.models.confidence import Calibration, calibrated
from fundus.models.engine import Answer, Engine, Weights
from fundus.models.reframing import settle
from fundus.models.thresholds import Thresholds
from fundus.models.turns import Profile, seen_by, turned, turned_back

TWO_DISCS = "two_discs"
"""The flag of a picture whose `Detection.two` is set."""
SECOND_PEAK = 0.8
"""Disc probability from which a second region of a detector map is also a disc."""
LIKE_SIZE = 0.5
"""Least ratio of the areas of two discs, the smaller to the larger."""
FAR = 1.5
"""Least distance between the centres of two discs, in diameters of the first. 60 of 61 pasted
pairs are found so, and 1 of 1,066 unchanged frames is flagged (`benchmarks/quality.py --discs`)."""
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
"""One of them exists if PyTorch can use a GPU: NVIDIA's driver, or that of Windows for Linux."""


@dataclass(frozen=True)
class Detection:
    """The location of the disc in a picture."""

    confidence: float
    """Probability in [0, 1] that the disc is here: the highest disc probability in the frame after
    a light blur, calibrated if the bundle is. NaN without a detector, and, without a ROI, if the
    detector's map was not finite."""
    roi: Roi | None
    """The square around the disc, pixels of the original frame; None if no disc was found."""
    two: bool = False
    """Whether a second region, of similar size and far away, is also a disc."""


@dataclass(frozen=True)
class Ready:
    """A bundle prepared for inference: made by the driver, sent to every process."""

    engines: Mapping[str, Engine]
    """The engines by role."""
    preprocessing: Preprocessing
    thresholds: Thresholds
    profile: Profile = "exact"


def ready(bundle: Bundle, *, gpu: bool, profile: Profile = "exact") -> Ready:
    """Prepare a bundle for processes with a GPU, or without one.

    With `fast` a student takes the place of the segmenters that it imitates, and on a CPU the
    networks may compute in bfloat16.
    """
    fast = profile == "fast" and STUDENT in bundle.networks
    left_out = (SOURCE_ONLY, ADAPTED) if fast else (STUDENT,)

    def engine(network: Network) -> Engine:
        if gpu:
            return Weights(network)
        return convert.on_cpu(network, exact=profile == "exact")

    used = {role: one for role, one in bundle.networks.items() if role not in left_out}
    engines = {role: engine(network) for role, network in used.items()}
    return Ready(engines, bundle.preprocessing, bundle.thresholds, profile)


class Predictor:
    """Runs a bundle's networks in this process; returns float32 probabilities as numpy arrays.

    The networks of a role are loaded with its first picture, so that only those used cost memory.

    Args:
        networks: a bundle, or one that `ready` has prepared.
    """

    def __init__(self, networks: Bundle | Ready) -> None:
        if isinstance(networks, Bundle):
            networks = ready(networks, gpu=any(Path(driver).exists() for driver in GPU_DRIVERS))
        self.engines = dict(networks.engines)
        self.preprocessing = networks.preprocessing
        self.thresholds = networks.thresholds
        self.profile = networks.profile
        self.side = networks.preprocessing.roi_side
        segmenters = (SOURCE_ONLY, ADAPTED, STUDENT)
        self.segmenters = tuple(role for role in segmenters if role in self.engines)
        self._loaded: dict[str, list[Answer]] = {}

    def detect(self, image: np.ndarray, field: FieldOfView | None = None) -> Detection:
        """Find the disc in a frame.

        Args:
            image: HWC uint8 RGB, any size.
            field: the field of view, if it is known already.

        Raises:
            BundleError: the bundle has no detector.
        """
        if DETECTOR not in self.engines:
            raise BundleError("the bundle has no detector: give disc crops (--precropped)")
        side = self.preprocessing.detector_side
        field = field or fov.field_of_view(image)
        if field is None:
            return Detection(0.0, None)
        square = roi.of_field(field)
        near, factor = halved(image, square.size, side)
        crop = roi.crop(near, square.times(1 / factor), side)
        disc = self._members(DETECTOR)[0](_planes(crop[None]))[0, 0]
        return locate(
            disc,
            square,
            self.thresholds.disc_found,
            self.preprocessing.roi_scale,
            self.thresholds.confidence,
        )

    def place(
        self, image: np.ndarray, *, precropped: bool, field: FieldOfView | None = None
    ) -> Detection:
        """Find the ROI of a picture, for `segment_roi`.

        In a frame the detector finds it. In a precropped picture the segmenter does, by single
        passes (fundus.models.reframing).

        Args:
            image: HWC uint8 RGB, any size.
            precropped: the picture is a disc crop already, of any tightness.
            field: the field of view, if it is known already.

        Raises:
            BundleError: the bundle lacks the network for this.
        """
        if not precropped:
            return self.detect(image, field)
        if not self.segmenters:
            raise BundleError("the bundle has no segmenter")

        def ask(crop: np.ndarray) -> np.ndarray:
            maps = self.glance(crop)
            # Maps that are not finite show no disc here; `segment` will return such maps too.
            return maps if np.isfinite(maps).all() else np.zeros_like(maps)

        scale = self.preprocessing.roi_scale
        return Detection(np.nan, settle(image, ask, self.thresholds, side=self.side, scale=scale))

    def segment_roi(
        self, image: np.ndarray, where: Roi, networks: Sequence[str] | None = None
    ) -> np.ndarray:
        """Segment one ROI of a picture.

        Args:
            image: HWC uint8 RGB, any size.
            where: the ROI in pixels of the picture; it may reach outside.
            networks: as in `segment`.

        Returns:
            (passes, 2, side, side), as `segment`.
        """
        crop = roi.crop(image, where, self.side, mirrored=True)
        height, width = image.shape[:2]
        outside = margins.outside(where, height, width, self.side)
        return self.segment(crop[None], networks, outside=outside[None])[0]

    def segment(
        self,
        crops: np.ndarray,
        networks: Sequence[str] | None = None,
        *,
        outside: np.ndarray | None = None,
    ) -> np.ndarray:
        """Segment ROIs in several passes.

        Args:
            crops: (N, side, side, 3) uint8 RGB, mirrored outside their pictures.
            networks: roles; None for every segmenter of the bundle, source-only first.
            outside: (N, side, side) bool, which pixels are outside the picture
                (fundus.field.margins); None if none are. Crops with such pixels take twice the
                passes.

        Returns:
            (N, passes, 2, side, side) float32 in [0, 1]: disc (cup included), then cup, turned back
            upright. Each member of an ensemble has passes of its own, so that the spread over the
            maps shows where they differ; all turns of the first member come first. The profile
            determines the number of turns (fundus.models.turns.seen_by). The maps of a broken
            network may not be finite.

        Raises:
            BundleError: the bundle lacks a segmenter.
        """
        roles = tuple(networks or self.segmenters)
        missing = [role for role in roles if role not in self.engines]
        if missing or not roles:
            raise BundleError(f"the bundle has no {missing[0] if missing else 'segmenter'}")
        maps = self._passes(crops, roles)
        if outside is not None and outside.any():
            tight = np.flatnonzero(outside.any(axis=(1, 2)))
            faded = [margins.faded(crops[i], outside[i]) for i in tight]
            maps[tight, :, 0] = self._passes(np.stack(faded), roles)[:, :, 0]
        return maps

    def _passes(self, crops: np.ndarray, roles: Sequence[str]) -> np.ndarray:
        """The maps of all passes, (N, passes, 2, side, side)."""
        pictures, maps = _planes(crops), []
        turned_once = cache(partial(turned, pictures))
        for role in roles:
            for member, answer in enumerate(self._members(role)):
                which = seen_by(self.profile, member)
                maps.append(turned_back(answer(turned_once(which)), which))
        return np.concatenate(maps, axis=1)

    def glance(self, crop: np.ndarray) -> np.ndarray:
        """(S, S, 3) uint8 RGB -> (2, S, S) float32 in [0, 1], in one pass of the first segmenter's
        first member."""
        if not self.segmenters:
            raise BundleError("the bundle has no segmenter")
        (first, *_) = self._members(self.segmenters[0])
        return first(_planes(crop[None]))[0]

    def _members(self, role: str) -> list[Answer]:
        """The networks of a role, loaded when they are first needed."""
        if role not in self._loaded:
            self._loaded[role] = self.engines[role].load()
        return self._loaded[role]


def _planes(crops: np.ndarray) -> np.ndarray:
    """(N, S, S, 3) -> (N, 3, S, S)."""
    return crops.transpose(0, 3, 1, 2)


def locate(
    disc: np.ndarray,
    seen: Roi,
    least_confidence: float,
    scale: float,
    calibration: Calibration | None = None,
) -> Detection:
    """Find the disc in one map of the detector.

    The confidence is the calibrated peak of the lightly blurred map, or NaN if the map is not
    finite. The disc is the region around the peak above half of it. The ROI is centred on the
    centroid of the disc. `two` is set if another region above half of the peak is also a disc by
    SECOND_PEAK, LIKE_SIZE and FAR.

    Args:
        disc: (S, S) float in [0, 1].
        seen: the square of the frame that the map covers.
        least_confidence: confidence from which a disc counts as found.
        scale: side of the ROI, in equal-area diameters of the disc.
        calibration: of the confidence; None for the peak itself.
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
    """Whether the centre of a ROI is inside the disc of an HW mask of its frame."""
    if region is None:
        return False
    row, column = int(region.y + region.size / 2), int(region.x + region.size / 2)
    inside = 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]
    return inside and bool(disc_of(mask[row : row + 1, column : column + 1]).any())
