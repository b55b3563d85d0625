"""A precropped picture of any tightness is framed at the scale of the segmenter's training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundus.anatomy.postprocess import clean
from fundus.datasets.public import open_set
from fundus.field import roi
from fundus.models import bundle as bundles
from fundus.models.measuring import measure_maps
from fundus.models.predictor import Predictor
from fundus.models.reframing import LOOKS, STARTS, settle
from fundus.models.thresholds import Thresholds

SIDE, SCALE, DIAMETER = 64, 1.5, 200.0


def disc_crop(height: int, width: int, x: float, y: float) -> np.ndarray:
    """A dark picture, HWC uint8, with one bright disc."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    inside = np.hypot(columns - x, rows - y) <= DIAMETER / 2
    return np.repeat(np.where(inside, 220, 40).astype(np.uint8)[..., None], 3, axis=2)


@dataclass
class Segmenter:
    """Draws the largest bright piece: too large if it looks small, too small if it looks large."""

    error: float = 0.0
    looks: int = 0

    def __call__(self, crop: np.ndarray) -> np.ndarray:
        self.looks += 1
        bright = np.repeat((crop[..., 0] > 130)[None], 2, axis=0).astype(float)
        rows, columns = np.nonzero(clean(bright).mask)
        if not len(rows):
            return bright
        radius = np.sqrt(len(rows) / np.pi)
        strange = 1 / SCALE - 2 * radius / SIDE
        radius *= 1 + self.error * strange
        y, x = np.mgrid[:SIDE, :SIDE]
        inside = np.hypot(y - rows.mean(), x - columns.mean()) <= radius
        sure = 0.5 - 0.3 * abs(strange)
        return np.repeat(np.where(inside, 0.5 + sure, 0.5 - sure)[None], 2, axis=0)


@settings(max_examples=25, deadline=None)
@given(
    tightness=st.floats(1.15, 3.0),
    aspect=st.floats(1, 1.33),
    shift=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
    error=st.sampled_from([0.0, 0.9]),
)
def test_the_disc_is_framed_at_its_scale_however_the_crop_was_cut(
    tightness: float, aspect: float, shift: tuple[float, float], error: float
) -> None:
    height, width = round(tightness * DIAMETER), round(tightness * aspect * DIAMETER)
    x, y = (
        side / 2 + way * (side - DIAMETER) for side, way in zip((width, height), shift, strict=True)
    )
    segmenter = Segmenter(error)
    where = settle(disc_crop(height, width, x, y), segmenter, Thresholds(), side=SIDE, scale=SCALE)
    assert where.size == pytest.approx(SCALE * DIAMETER, rel=0.05)
    assert where.x + where.size / 2 == pytest.approx(x, abs=0.04 * DIAMETER)
    assert where.y + where.size / 2 == pytest.approx(y, abs=0.04 * DIAMETER)
    assert 1 < segmenter.looks <= LOOKS * len(STARTS)


def test_a_search_that_settles_on_a_false_disc_gives_way_to_a_surer_one() -> None:
    """In a whole loose crop the surroundings look like a disc; in a closer view they do not."""
    picture = disc_crop(600, 600, 300, 300)
    segmenter = Segmenter()

    def ask(crop: np.ndarray) -> np.ndarray:
        if (crop[..., 0] > 130).mean() < 0.15:
            y, x = np.mgrid[:SIDE, :SIDE] + 0.5 - SIDE / 2
            return np.repeat(np.where(np.hypot(y, x) < SIDE / 3, 0.8, 0.2)[None], 2, axis=0)
        return segmenter(crop)

    where = settle(picture, ask, Thresholds(), side=SIDE, scale=SCALE)
    assert where.size == pytest.approx(SCALE * DIAMETER, rel=0.05)


def test_a_picture_without_a_disc_is_taken_whole() -> None:
    blank = np.full((90, 120, 3), 40, np.uint8)
    assert settle(blank, Segmenter(), Thresholds(), side=SIDE, scale=SCALE) == roi.whole(90, 120)


@pytest.mark.parametrize("share", [0.05, 1.0])
def test_a_disc_of_implausible_size_does_not_mislead_the_search(share: float) -> None:
    """If discs fill the same share of every crop, the search finds no stable scale."""
    looks = []

    def ask(crop: np.ndarray) -> np.ndarray:
        looks.append(crop)
        y, x = np.mgrid[:SIDE, :SIDE] + 0.5 - SIDE / 2
        inside = np.hypot(y, x) <= share * SIDE / 2
        return np.repeat(inside[None], 2, axis=0).astype(float)

    picture = np.full((100, 100, 3), 90, np.uint8)
    assert settle(picture, ask, Thresholds(), side=SIDE, scale=SCALE) == roi.whole(100, 100)
    assert len(looks) <= LOOKS * len(STARTS)


def test_an_eye_has_the_same_vcdr_at_every_tightness(fundus_data: Path) -> None:
    """Eyes of two cameras, cut at 1.1 to 3 disc diameters, against those cut at 1.5."""
    predictor = Predictor(bundles.load(bundles.default_folder()))
    apart = []
    for name in ("origa_full", "messidor_riga_full"):
        samples = open_set(f"manifest:{fundus_data}/manifest.csv?set={name}").samples
        for sample in samples[:: len(samples) // 4][:4]:
            image, mask = sample.read_image(), sample.read_mask()
            assert mask is not None
            rows, columns = np.nonzero(mask)
            diameter = 2 * np.sqrt(len(rows) / np.pi)
            found = [
                vcdr_of_crop(image, rows.mean(), columns.mean(), times * diameter, predictor)
                for times in (1.1, 1.25, 1.5, 2.0, 3.0)
            ]
            apart.append(np.abs(np.array(found) - found[2]))
    within = np.array(apart) <= 0.03
    assert within[:, 1:].all()
    assert within[:, 0].sum() >= 7  # of 8; at 1.1 diameters the edge of the disc is cut off


def vcdr_of_crop(image: np.ndarray, y: float, x: float, size: float, predictor: Predictor) -> float:
    top, left = max(0, round(y - size / 2)), max(0, round(x - size / 2))
    crop = image[top : round(y + size / 2), left : round(x + size / 2)]
    where = predictor.place(crop, precropped=True).roi
    assert where
    maps = predictor.segment_roi(crop, where)
    found = measure_maps(maps, where, predictor.thresholds).biomarkers.vcdr
    assert found
    return found
