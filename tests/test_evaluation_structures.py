"""A few labelled eyes change a site's thresholds if that helps, and nothing otherwise."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from test_models_bundle import tiny_bundle

from fundus.evaluation import structures
from fundus.evaluation.structures import Eyes, Table
from fundus.field import roi
from fundus.models import bundle as bundles
from fundus.models.predictor import Detection
from fundus.models.thresholds import Thresholds
from jobs import calibrate

SIDE = 64
GRID = np.mgrid[:SIDE, :SIDE] + 0.5 - SIDE / 2
DISTANCE = np.hypot(*GRID)


def soft(radius: float, width: float = 3.0) -> np.ndarray:
    """(S, S) probabilities that fall from 1 to 0 across a circle."""
    return 1 / (1 + np.exp((DISTANCE - radius) / width))


def eyes(count: int, cup_convention: Callable[[float], float], noise: float = 0.3) -> Eyes:
    """Eyes whose experts draw the disc as the network does, and the cup by their own convention."""
    rng = np.random.default_rng(0)
    maps, truth = [], []
    for _ in range(count):
        disc, cup = rng.uniform(22, 26), rng.uniform(10, 16)
        maps.append(np.stack([soft(disc, 1), soft(cup)]).astype(np.float16))
        drawn = cup_convention(cup) + rng.normal(0, noise)
        truth.append((disc + rng.normal(0, noise) > DISTANCE).astype(np.uint8) + (drawn > DISTANCE))
    return Eyes(tuple(maps), tuple(truth))


def test_smaller_cups_raise_the_cup_threshold_and_leave_the_disc_threshold() -> None:
    """Cups 3 pixels smaller lie at odds of e : 1 on these maps: at probability .73."""
    found, report = structures.calibrate(Table(eyes(20, lambda cup: cup - 3), Thresholds()))
    assert report.cup.helps and not report.disc.helps
    assert found.disc == 0.5 and 0.6 < found.cup < 0.82
    assert report.cup.dice_after.value > report.cup.dice_before.value + 0.1
    assert abs(report.bias_after.value) < 0.02 < report.bias_before.value


def test_agreeing_or_random_labels_change_nothing() -> None:
    agreeing = Table(eyes(20, lambda cup: cup, noise=0.6), Thresholds())
    anything = np.random.default_rng(1)
    garbage = Table(eyes(20, lambda cup: anything.uniform(3, 20)), Thresholds())
    for table in (agreeing, garbage):
        found, report = structures.calibrate(table)
        assert found == Thresholds() and not report.helps


class Reader:
    """Stands in for the predictor: red is the cup's soft map, green the disc's."""

    side = SIDE

    def __init__(self, bundle: bundles.Bundle) -> None:
        self.thresholds = bundle.thresholds

    def place(self, image: np.ndarray, *, precropped: bool) -> Detection:
        return Detection(np.nan, roi.whole(*image.shape[:2]))

    def segment_roi(self, image: np.ndarray, where: roi.Roi) -> np.ndarray:
        crop = roi.crop(image, where, self.side)
        maps = np.stack([crop[..., 1], crop[..., 0]]) / np.float32(255)
        return maps[None].repeat(8, axis=0)


@pytest.mark.parametrize(("smaller", "code"), [(3.0, 0), (0.0, 4)])
def test_the_job_sets_the_thresholds_or_leaves_the_bundle_as_it_is(
    tmp_path, monkeypatch, smaller, code
) -> None:
    monkeypatch.setattr(calibrate, "Predictor", Reader)
    drawn = eyes(20, lambda cup: cup - smaller)
    lines = ["image,mask,id,set,annotation"]
    for number, (maps, truth) in enumerate(zip(drawn.maps, drawn.truth, strict=True)):
        disc, cup = np.round(255 * maps.astype(float)).astype(np.uint8)
        picture = np.stack([cup, disc, np.zeros_like(cup)], axis=-1)
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        Image.fromarray(truth).save(tmp_path / f"{number}_mask.png")
        lines.append(f"{number}.png,{number}_mask.png,{number},ours,disc+cup")
    (tmp_path / "eyes.csv").write_text("\n".join(lines))
    folder = tmp_path / "bundle"
    bundles.save(tiny_bundle(), folder)
    before = bundles.load(folder)
    words = ["--bundle", str(folder), "--set", f"manifest:{tmp_path / 'eyes.csv'}", "--structures"]
    assert calibrate.main(words) == code
    after = bundles.load(folder)
    assert (after.digest == before.digest) == (code == 4)
    assert (after.thresholds.cup > before.thresholds.cup) == (code == 0)
