"""Synthetic cameras: deterministic, anatomically sound and measurably different."""

from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundus.anatomy.labels import cup_of, disc_of
from fundus.datasets.synthetic import (
    CAMERAS,
    Frame,
    clinic,
    draw,
    hospital,
    read_synthetic,
    write_archive,
)
from fundus.synthetic.eye import Oval, place_cup

EYES = 8


@cache
def frames(name: str) -> list[Frame]:
    return [draw(CAMERAS[name](), seed) for seed in range(EYES)]


def rows(structure: np.ndarray) -> int:
    """Inclusive vertical extent in pixels."""
    found = np.flatnonzero(structure.any(axis=1))
    return int(found[-1] - found[0] + 1)


def test_the_same_camera_and_seed_draw_the_same_bytes() -> None:
    first, again, other = draw(clinic(), 5), draw(clinic(), 5), draw(clinic(), 6)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("name", CAMERAS)
def test_masks_have_the_stated_vcdr(name: str) -> None:
    for frame in frames(name):
        disc, cup = disc_of(frame.mask), cup_of(frame.mask)
        assert frame.image.dtype == np.uint8 and frame.image.shape == (*frame.mask.shape, 3)
        # An outline sampled at pixel centres loses less than one row at each end.
        assert abs(rows(cup) - frame.vcdr * rows(disc)) <= 2
        shown = frame.image[disc].mean()
        around = cv2.dilate(disc.astype(np.uint8), np.ones((61, 61))).astype(bool) & ~disc
        assert shown > 1.15 * frame.image[around].mean(), "the disc is the brighter one"
        assert frame.image[cup].mean() > frame.image[disc & ~cup].mean(), "the cup is paler"


@settings(max_examples=60, deadline=None)
@given(
    vcdr=st.floats(0.2, 0.9),
    aspect=st.floats(0.8, 1.0),
    tilt=st.floats(-0.5, 0.5),
    seed=st.integers(0, 10_000),
    temporal=st.sampled_from([-1.0, 1.0]),
)
def test_a_cup_lies_in_its_disc_with_the_requested_ratio(
    vcdr: float, aspect: float, tilt: float, seed: int, temporal: float
) -> None:
    disc = Oval(300.0, 250.0, 80 * aspect, 80.0, tilt)
    cup = place_cup(np.random.default_rng(seed), disc, vcdr, temporal)
    outline = np.array([cup.outline(angle) for angle in np.linspace(0, 2 * np.pi, 90)])
    assert np.all(disc.radius(*outline.T) < 1)
    assert cup.rise / disc.rise == pytest.approx(vcdr)
    y, x = np.mgrid[:500, :600] + 0.5
    assert abs(rows(cup.radius(x, y) <= 1) - 2 * cup.rise) <= 1
    assert abs(rows(disc.radius(x, y) <= 1) - 2 * disc.rise) <= 1


def test_the_fovea_is_temporal() -> None:
    for frame in frames("clinic"):
        x = np.flatnonzero(disc_of(frame.mask).any(axis=0)).mean() / frame.mask.shape[1]
        assert (x > 0.5) == (frame.laterality == "OD"), "the disc lies nasal, right in a right eye"
        exposed = frame.image.max(axis=2) > 20
        blurred = cv2.GaussianBlur(frame.image[..., 1].astype(np.float32), (0, 0), 15)
        inner = cv2.erode(exposed.astype(np.uint8), np.ones((301, 301))).astype(bool)
        darkest = np.argmin(np.where(inner, blurred, np.inf)) % frame.mask.shape[1]
        assert (darkest / frame.mask.shape[1] < 0.5) == (frame.laterality == "OD")


def test_cameras_differ_measurably() -> None:
    def colour(frame: Frame) -> np.ndarray:
        return frame.image[frame.image.max(axis=2) > 20].mean(axis=0)

    def sharpness(frame: Frame) -> float:
        """Contrast of the disc's vessels and edges: gradients of a lightly smoothed crop."""
        y, x = (int(v.mean()) for v in np.nonzero(frame.mask))
        crop = frame.image[y - 60 : y + 60, x - 60 : x + 60, 1].astype(np.float32)
        smooth = cv2.GaussianBlur(crop, (0, 0), 1.5)
        return float(np.abs(cv2.Laplacian(smooth, cv2.CV_32F)).mean() / smooth.mean())

    means = {name: np.mean([colour(f) for f in frames(name)], axis=0) for name in CAMERAS}
    for one, other in [*pairwise(CAMERAS), ("clinic", "handheld")]:
        assert np.abs(means[one] - means[other]).max() > 15
    blueness = {name: mean[2] / mean[0] for name, mean in means.items()}
    assert blueness["hospital"] > blueness["clinic"] + 0.15
    assert np.mean([sharpness(f) for f in frames("clinic")]) > 1.2 * np.mean(
        [sharpness(f) for f in frames("hospital")]
    )
    small, large = ([f.vcdr for f in frames(name)] for name in ("clinic", "hospital"))
    assert np.mean(large) > np.mean(small) + 0.15


def test_an_archive_of_two_cameras_holds_only_pictures(tmp_path) -> None:
    drawn = write_archive(tmp_path, [clinic(), hospital()], count=3, seed=1)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(d.path for d in drawn)
    assert {d.path.parent.name for d in drawn} == {"clinic", "hospital"}
    assert {d.path.suffix for d in drawn} == {".jpg", ".png"}


def test_a_set_is_drawn_once_and_seeds_share_no_eye(tmp_path) -> None:
    first = read_synthetic(tmp_path, camera="hospital", count="2", seed="1")
    stamp = first[0].image.stat().st_mtime_ns
    again = read_synthetic(tmp_path, camera="hospital", count="2", seed="1")
    assert [sample.image for sample in again] == [sample.image for sample in first]
    assert first[0].image.stat().st_mtime_ns == stamp
    other = read_synthetic(tmp_path, camera="hospital", count="2", seed="2")
    pictures = {sample.image.read_bytes() for sample in (*first, *other)}
    assert len(pictures) == 4
    mask, image = first[0].read_mask(), first[0].read_image()
    assert mask is not None and mask.shape == image.shape[:2]
    assert np.array_equal(mask, draw(hospital(), 1_000_000).mask)
