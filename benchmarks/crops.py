#!/usr/bin/env python
"""Measure the benefit of the re-framing of `--precropped` for disc crops of several sizes.

    python benchmarks/crops.py --data DATA --set origa_full --set messidor_riga_full --eyes 20

Each eye of a labelled set in the `manifest.csv` of DATA is cut out of its frame at sides of 1.1 to
3 disc diameters. Half of the crops are not square, and the disc is off the centre. In every third
crop of 1.5 diameters or more, a black corner is drawn, as at the edge of the field of view. Each
crop is measured twice by the same networks: whole (`before`) and re-framed (`after`). The row
`frame` is the segmenter's result for the ROI that the detector finds in the whole frame. `least` is
the lowest disc Dice. `moved` is the mean difference of an eye's vCDR from that at 1.5 diameters.
`within` is the share of eyes in which this difference is at most .03.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scored import spread

from fundus.anatomy import biomarkers, scores
from fundus.anatomy.labels import cup_of, disc_of
from fundus.datasets.public import open_set
from fundus.field import roi
from fundus.field.roi import Roi
from fundus.models import bundle as bundles
from fundus.models.predictor import Predictor

TIGHTNESS = (1.1, 1.25, 1.5, 2.0, 3.0)
"""Sides of the crops, in equal-area diameters of the experts' disc."""
REFERENCE = 1.5
TOLERANCE = 0.03


@dataclass(frozen=True)
class Result:
    """The result of one eye, for one crop and one way to frame it."""

    eye: str
    cut: str
    way: str
    disc: float
    cup: float
    vcdr: float
    truth: float
    area: float
    """Area of the disc, as a multiple of the experts'."""


def cut(
    image: np.ndarray, mask: np.ndarray, tightness: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Crop a frame and its mask, both HW...: the crop holds the whole disc, off its centre."""
    rows, columns = np.nonzero(disc_of(mask))
    centre = np.array([np.ptp(rows) / 2 + rows.min(), np.ptp(columns) / 2 + columns.min()])
    extent = np.array([np.ptp(rows), np.ptp(columns)]) + 1.0
    size = np.full(2, tightness * 2 * np.sqrt(len(rows) / np.pi))
    if rng.random() < 0.5:
        size[rng.integers(2)] *= rng.uniform(1.05, 1.3)
    size = np.maximum(size, extent)
    corner = centre + rng.uniform(-0.3, 0.3, 2) * (size - extent) - size / 2
    low = np.maximum(np.round(corner), 0).astype(int)
    high = np.minimum(np.round(corner + size), mask.shape).astype(int)
    window = np.s_[low[0] : high[0], low[1] : high[1]]
    crop, labels = image[window].copy(), mask[window]
    if tightness >= REFERENCE and rng.random() < 1 / 3:
        blacken_corner(crop, labels, rng)
    return crop, labels


def blacken_corner(crop: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> None:
    """Blacken one corner beyond the edge of a field of view, in place; the disc stays."""
    rows, columns = np.nonzero(disc_of(labels))
    diameter = 2 * np.sqrt(len(rows) / np.pi)
    angle = np.deg2rad(45 + 90 * rng.integers(4))
    radius = 3.5 * diameter
    # The border passes 0.65 diameters from the disc's centre.
    y = rows.mean() - np.sin(angle) * (radius - 0.65 * diameter)
    x = columns.mean() - np.cos(angle) * (radius - 0.65 * diameter)
    grid = np.ogrid[: crop.shape[0], : crop.shape[1]]
    crop[(np.hypot(grid[0] - y, grid[1] - x) > radius) & ~disc_of(labels)] = 0


def results(
    eye: str, image: np.ndarray, mask: np.ndarray, predictor: Predictor, seed: int
) -> Iterator[Result]:
    """Yield the results of one eye: of its frame, and of each crop before and after."""
    found = predictor.detect(image).roi
    if found:
        yield scored(eye, "frame", "frame", image, mask, predictor, found)
    for tightness in TIGHTNESS:
        crop, labels = cut(
            image, mask, tightness, np.random.default_rng([seed, int(100 * tightness)])
        )
        whole = roi.whole(*labels.shape)
        settled = predictor.place(crop, precropped=True).roi
        assert settled
        for way, where in (("before", whole), ("after", settled)):
            yield scored(eye, str(tightness), way, crop, labels, predictor, where)


def scored(
    eye: str,
    size: str,
    way: str,
    image: np.ndarray,
    mask: np.ndarray,
    predictor: Predictor,
    where: Roi,
) -> Result:
    """Score the segmentation of one ROI in pixels of the picture."""
    if way == "before":
        # A crop that is not square is filled up with black, not mirrored.
        maps = predictor.segment(roi.crop(image, where, predictor.side)[None])[0]
    else:
        maps = predictor.segment_roi(image, where)
    drawn = roi.restore(predictor.thresholds.draw(maps.mean(axis=0)).mask, where, *mask.shape)
    disc, cup = scores.dice(disc_of(drawn), disc_of(mask)), scores.dice(cup_of(drawn), cup_of(mask))
    return Result(
        eye,
        size,
        way,
        disc or 0.0,
        cup or 0.0,
        _or_nan(biomarkers.vcdr(drawn)),
        _or_nan(biomarkers.vcdr(mask)),
        float(disc_of(drawn).sum() / disc_of(mask).sum()),
    )


def _or_nan(ratio: float | None) -> float:
    return np.nan if ratio is None else ratio


def table(found: Sequence[Result]) -> Iterator[str]:
    """Yield one line per crop and way to frame it."""
    yield "cut    way     eyes   disc   least    cup    MAE   bias   area  moved within"
    for size, way in dict.fromkeys((one.cut, one.way) for one in found):
        some = [one for one in found if (one.cut, one.way) == (size, way)]
        disc, cup, ratio, truth, area = (
            np.array([getattr(one, name) for one in some])
            for name in ("disc", "cup", "vcdr", "truth", "area")
        )
        at_reference = {
            one.eye: one.vcdr for one in found if (one.cut, one.way) == (str(REFERENCE), way)
        }
        moved = np.abs(ratio - [at_reference.get(one.eye, np.nan) for one in some])
        known = np.isfinite(moved)
        stays = (
            f"{moved[known].mean():6.3f} {(moved[known] <= TOLERANCE).mean():6.2f}"
            if known.any()
            else "     -      -"
        )
        yield (
            f"{size:6} {way:7} {len(some):4} {disc.mean():6.3f}  {disc.min():6.3f}"
            f" {cup.mean():6.3f} {np.nanmean(np.abs(ratio - truth)):6.3f}"
            f" {np.nanmean(ratio - truth):+6.3f} {area.mean():6.3f} {stays}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, type=Path, help="folder with manifest.csv")
    parser.add_argument("--set", required=True, action="append", help="a set of frames with masks")
    parser.add_argument("--eyes", type=int, default=20, help="eyes per set, spread over the set")
    parser.add_argument("--bundle", default=bundles.default_folder(), help="default: the package's")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    predictor = Predictor(bundles.load(args.bundle))
    for name in args.set:
        samples = open_set(f"manifest:{args.data}/manifest.csv?set={name}").samples
        found: list[Result] = []
        for number in spread(range(len(samples)), args.eyes):
            sample = samples[number]
            mask = sample.read_mask()
            if mask is not None and disc_of(mask).any():
                found += results(sample.id, sample.read_image(), mask, predictor, number)
        print(f"\n{name}", *table(found), sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
