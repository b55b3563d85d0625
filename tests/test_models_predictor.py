"""Detection in pixels of the original frame, and maps turned back from all eight turns."""

import hashlib
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_models_bundle import tiny_bundle

from fundus.field import margins, roi
from fundus.field.roi import Roi, around
from fundus.models import architectures, convert, networks
from fundus.models import bundle as bundles
from fundus.models.architectures import DeepLabConfig
from fundus.models.bundle import DETECTOR, SOURCE_ONLY, BundleError, Network
from fundus.models.engine import Graphs, Weights
from fundus.models.predictor import Predictor, centre_inside, locate, ready
from fundus.models.turns import PROFILES, seen_by, turned, turned_back, turns


def test_each_turn_is_undone_and_no_two_are_alike() -> None:
    picture = np.arange(16.0).reshape(1, 1, 4, 4)
    seen = turned(picture)
    assert all(np.array_equal(undo(do(picture)), picture) for do, undo in turns())
    assert len({tuple(one.ravel()) for one in seen}) == 8
    np.testing.assert_array_equal(turned_back(seen), picture[None].repeat(8, axis=1))


def pixelwise() -> Mock:
    """A network whose disc map is the red channel, and whose cup map is the green one."""
    single = np.eye(3, dtype=np.float32)[:2] / 255
    return Mock(load=lambda: [lambda seen: np.einsum("mc,nchw->nmhw", single, seen)])


def test_maps_come_back_upright_from_every_turn() -> None:
    """A network that looks at single pixels gives the same map in all eight turns."""
    predictor = Predictor(tiny_bundle())
    predictor.engines[SOURCE_ONLY] = pixelwise()
    crops = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)
    maps = predictor.segment(crops)
    assert maps.shape == (2, 8, 2, 32, 32)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, maps[:, :1].repeat(8, axis=1), atol=1e-6)


def test_the_disc_is_drawn_in_faded_margins_and_the_cup_in_mirrored_ones() -> None:
    predictor = Predictor(tiny_bundle())
    predictor.engines[SOURCE_ONLY] = pixelwise()
    pictures = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3), np.uint8)
    tight, loose = Roi(-10, -10, 60), Roi(4, 4, 32)
    crops = np.stack(
        [
            roi.crop(picture, where, 32, mirrored=True)
            for picture, where in zip(pictures, (tight, loose), strict=True)
        ]
    )
    outside = np.stack([margins.outside(where, 40, 40, 32) for where in (tight, loose)])
    mirrored = predictor.segment(crops)
    maps = predictor.segment(crops, outside=outside)
    np.testing.assert_array_equal(maps[1], mirrored[1])
    np.testing.assert_array_equal(maps[0, :, 1], mirrored[0, :, 1])
    red = margins.faded(crops[0], outside[0])[..., 0] / 255
    assert np.abs(red - crops[0, ..., 0] / 255).max() > 0.1
    np.testing.assert_allclose(maps[0, :, 0], red[None].repeat(8, axis=0), atol=1e-6)
    np.testing.assert_array_equal(predictor.segment_roi(pictures[0], tight), maps[0])


@pytest.mark.parametrize("side", [60, 131, 517, 1030])
def test_the_disc_is_found_in_pixels_of_a_frame_of_any_size(side: int) -> None:
    """Large frames are halved before they reach the detector, whose input has 64 pixels."""
    frame = np.zeros((side, side, 3), np.uint8)
    cv2.circle(frame, (side // 2, side // 2), side // 2, (90, 40, 20), -1)
    x, y, radius = 0.7 * side, 0.4 * side, 0.08 * side
    cv2.circle(frame, (round(x), round(y)), round(radius), (250, 200, 120), -1)
    predictor = Predictor(tiny_bundle())
    predictor.preprocessing = replace(predictor.preprocessing, detector_side=64, roi_scale=2.0)
    bright = Mock(load=lambda: [lambda seen: (seen[:, :1] > 200).astype(np.float32)])
    predictor.engines[DETECTOR] = bright
    found = predictor.detect(frame).roi
    assert found is not None
    assert found.x + found.size / 2 == pytest.approx(x, abs=side / 64)
    assert found.y + found.size / 2 == pytest.approx(y, abs=side / 64)
    assert found.size == pytest.approx(4 * radius, rel=0.35)


def test_the_fast_profile_makes_two_passes_per_network_and_four_networks_see_every_turn() -> None:
    fast = Predictor(ready(tiny_bundle(), gpu=False, profile="fast"))
    crops = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)
    some, every = fast.segment(crops), Predictor(tiny_bundle()).segment(crops)
    assert some.shape == (2, 2, 2, 32, 32)
    # On a CPU that has bfloat16, `fast` computes in it.
    np.testing.assert_allclose(some, every[:, seen_by("fast", 0)], atol=2e-3)
    assert sorted(turn for member in range(4) for turn in seen_by("fast", member)) == [*range(8)]


def test_all_networks_of_exact_and_none_of_fast_are_kept_to_float32() -> None:
    for profile in PROFILES:
        engines = ready(tiny_bundle(), gpu=False, profile=profile).engines
        assert DETECTOR in engines
        assert {one.exact for one in engines.values()} == {profile == "exact"}  # type: ignore[attr-defined]


def test_the_members_of_an_ensemble_give_separate_maps() -> None:
    """The spread of the maps shows where the members differ; their mean is the ensemble's map."""
    predictor = Predictor(tiny_bundle())
    torch.manual_seed(0)
    pair = architectures.EnsembleConfig(DeepLabConfig(aspp_channels=8), 2)
    both = networks.build(pair).eval()
    predictor.engines[SOURCE_ONLY] = convert.on_cpu(Network(pair, both.state_dict()))
    crops = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), np.uint8)
    maps = predictor.segment(crops)[0]
    assert maps.shape == (16, 2, 32, 32)
    upright = networks.to_input(torch.from_numpy(crops).permute(0, 3, 1, 2))
    with torch.no_grad():
        expected = both(upright).sigmoid()[0].numpy()
    np.testing.assert_allclose((maps[0] + maps[8]) / 2, expected, atol=1e-4)
    assert np.abs(maps[0] - maps[8]).max() > 1e-3


@given(
    x=st.floats(40, 88),
    y=st.floats(40, 88),
    radius=st.floats(8, 20),
    corner=st.floats(-500, 500),
    size=st.floats(200, 3000),
)
def test_a_drawn_disc_is_located_in_the_frame(
    x: float, y: float, radius: float, corner: float, size: float
) -> None:
    disc = np.zeros((128, 128), np.float32)
    centre = (round(x * 16 - 8), round(y * 16 - 8))  # OpenCV's pixel centres lie at whole numbers
    cv2.circle(disc, centre, round(radius * 16), 1.0, cv2.FILLED, shift=4)
    seen = Roi(corner, -corner, size)
    found = locate(disc, seen, least_confidence=0.5, scale=2)
    assert found.roi is not None and found.confidence == pytest.approx(1, abs=0.01)
    pixel = size / 128
    assert found.roi.x + found.roi.size / 2 == pytest.approx(corner + x * pixel, abs=pixel)
    assert found.roi.y + found.roi.size / 2 == pytest.approx(-corner + y * pixel, abs=pixel)
    assert found.roi.size == pytest.approx(4 * radius * pixel, abs=4 * pixel)


def test_graphs_give_the_maps_of_the_network_with_or_without_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO's graph, in several passes, and PyTorch differ only by floating-point rounding."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch.manual_seed(0)
    config = DeepLabConfig(aspp_channels=8)
    network = networks.build(config).eval()
    last = network.decoder[-1]
    assert isinstance(last, torch.nn.Conv2d)
    last.weight.data *= 100  # maps with edges, which show how they are scaled up
    stored = Network(config, network.state_dict())
    pictures = torch.randint(0, 255, (11, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        expected = network(networks.to_input(pictures)).sigmoid().numpy()
    made, cached = convert.on_cpu(stored), convert.on_cpu(stored)
    assert made == cached
    _, weights = sorted(file for file in tmp_path.rglob("*") if file.is_file())
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    again = convert.on_cpu(stored)
    assert isinstance(made, Graphs) and isinstance(again, Graphs)
    assert again.graphs[0][1] == made.graphs[0][1], "a damaged graph answered"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in weights.name, "it was not replaced"
    for file in weights.parent.iterdir():
        file.unlink()
    assert len(convert.on_cpu(stored).graphs) == 1, "a cache that lost its files answered"
    for engine in (made, Weights(stored, "cpu")):
        (answer,) = engine.load()
        np.testing.assert_allclose(answer(pictures.numpy()), expected, atol=1e-4, rtol=0)


def test_a_process_that_only_predicts_imports_no_torch(tmp_path: Path) -> None:
    """The import would cost each process of a screening run seconds."""
    tiny, sent = tmp_path / "tiny", tmp_path / "ready"
    bundles.save(tiny_bundle(), tiny)
    loaded = bundles.load(tiny)
    sent.write_bytes(pickle.dumps((loaded, ready(loaded, gpu=False))))
    answers = f"""
import pickle, sys, numpy
bundle, networks = pickle.loads(open({str(sent)!r}, "rb").read())
import fundus.screening.models, jobs.screen
from fundus.models.predictor import Predictor
crops = numpy.zeros((1, 32, 32, 3), numpy.uint8)
assert Predictor(networks).segment(crops).shape == (1, 8, 2, 32, 32)
assert "torch" not in sys.modules, "torch was imported"
"""
    subprocess.run([sys.executable, "-c", answers], check=True, cwd=Path(__file__).parent.parent)


def test_maps_that_are_not_finite_are_passed_on() -> None:
    """They must not look like a frame without a disc, although NaN exceeds no threshold."""
    bundle = tiny_bundle()
    for role in (DETECTOR, SOURCE_ONLY):
        next(iter(bundle.networks[role].weights.values())).fill_(torch.nan)
    predictor = Predictor(bundle)
    found = predictor.detect(np.full((80, 100, 3), 120, np.uint8))
    assert np.isnan(found.confidence) and found.roi is None
    assert not np.isfinite(predictor.segment(np.zeros((1, 32, 32, 3), np.uint8))).any()


@pytest.mark.parametrize(
    ("x", "radius", "level", "two"),
    [
        *[(96, 10, 1.0, True), (68, 10, 1.0, True)],
        *[(96, 10, 0.6, False), (96, 4, 1.0, False), (60, 10, 1.0, False)],
    ],
)
def test_a_second_disc_counts_if_it_is_sure_large_and_far(
    x: int, radius: int, level: float, two: bool
) -> None:
    disc = np.zeros((128, 128), np.float32)
    cv2.circle(disc, (32, 64), 10, 1.0, cv2.FILLED)
    assert not locate(disc, Roi(0, 0, 128), least_confidence=0.5, scale=2).two
    cv2.circle(disc, (x, 64), radius, level, cv2.FILLED)
    assert locate(disc, Roi(0, 0, 128), least_confidence=0.5, scale=2).two is two


def test_a_missing_disc_is_reported_and_not_guessed() -> None:
    faint = np.full((64, 64), 0.2, np.float32)
    found = locate(faint, Roi(0, 0, 64), least_confidence=0.5, scale=2)
    assert found.roi is None
    assert found.confidence == pytest.approx(0.2, abs=0.01)
    black = np.zeros((80, 100, 3), np.uint8)
    assert Predictor(tiny_bundle()).detect(black).roi is None


def test_the_calibration_of_the_bundle_decides_whether_a_disc_is_found() -> None:
    frame = np.full((80, 100, 3), 120, np.uint8)
    found = {}
    for name, curve in {"sure": (0.0, 3.0), "never": (0.0, -3.0)}.items():
        bundle = tiny_bundle()
        bundle = replace(bundle, thresholds=replace(bundle.thresholds, confidence=curve))
        found[name] = Predictor(bundle).detect(frame)
    assert found["sure"].confidence == pytest.approx(1 / (1 + np.exp(-3)))
    assert found["never"].confidence == pytest.approx(1 / (1 + np.exp(3)))
    assert found["sure"].roi is not None and found["never"].roi is None


def test_a_network_that_the_bundle_lacks_is_named() -> None:
    predictor = Predictor(tiny_bundle().without(DETECTOR))
    with pytest.raises(BundleError, match="no detector"):
        predictor.detect(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(BundleError, match="no adapted"):
        predictor.segment(np.zeros((1, 32, 32, 3), np.uint8), networks=["adapted"])


def test_whether_the_centre_lies_inside_the_disc() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[20:30, 50:60], mask[24:26, 54:56] = 1, 2
    assert centre_inside(mask, around(55, 25, 30))
    assert centre_inside(mask, Roi(50.2 - 20, 20.1 - 20, 40))
    assert not centre_inside(mask, around(25, 55, 30)), "x and y are not to be swapped"
    assert not centre_inside(mask, around(60.5, 25, 4))
    assert not centre_inside(mask, around(300, -3, 4))
    assert not centre_inside(mask, None)
