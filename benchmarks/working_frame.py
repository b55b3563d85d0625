#!/usr/bin/env python
"""Compare working frames with whole pictures in accuracy and speed.

    OMP_NUM_THREADS=1 python benchmarks/working_frame.py --data DATA --eyes 60

Takes up to `--eyes` frames, spread evenly, from each of three sets of large frames in DATA's
`manifest.csv`. Each is decoded, graded, cropped and segmented whole and as a working frame
(fundus/images/working_frame.py). Prints for each set the format, size and factor of the first
frame; the mean Dice with the experts' disc and cup and the mean absolute error of the vCDR, whole
and working (nan where no expert outlined the structure); the mean absolute and signed difference of
the two vCDRs of an eye; the number of frames of which only one form was refused; and the median
ratio of the CPU times from the bytes to the crop. Eyes in which no disc or no cup is found count
with Dice 0 and are left out of the vCDR figures.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scored import Score, ratios, score, spread, summary

from fundus.datasets.public import open_set
from fundus.decoding.picture import contents
from fundus.field import fields, margins, quality, roi
from fundus.field.fov import exposure
from fundus.field.roi import Roi
from fundus.images.content import Picture
from fundus.models import bundle as bundles
from fundus.models.predictor import Predictor

SETS = ("drishti_gs1_full", "refuge_full", "idrid20_disc")
WAYS = ("whole", "working")


def cropped(
    data: bytes, least: int | None, predictor: Predictor
) -> tuple[Picture, bool, Roi | None, np.ndarray | None]:
    """Return the picture in the bytes, whether it is refused, its ROI in the original, its crop."""
    [found] = contents(data, least_side=least).pictures
    seen = exposure(found.pixels)
    refused = fields.are_two(found.pixels, seen)
    graded = quality.assess(found.pixels, seen=seen, shrink=found.shrink)
    refused = refused or graded.reason is not None
    place = predictor.place(found.pixels, precropped=False, field=seen.field).roi
    if place is None:
        return found, refused, None, None
    crop = roi.crop(found.pixels, place, predictor.side, mirrored=True)
    return found, refused, place.times(found.shrink), crop


def of_set(name: str, data: Path, eyes: int, predictor: Predictor) -> str:
    """Return one line of figures for a set."""
    labelled = open_set(f"manifest:{data / 'manifest.csv'}?set={name}")
    samples = [sample for sample in labelled.samples if sample.masks]
    least = predictor.preprocessing.least_side(precropped=False)
    rows: dict[str, list[Score]] = {way: [] for way in WAYS}
    faster, unlike, first = [], 0, ""
    for sample in spread(samples, eyes):
        content, mask = sample.image.read_bytes(), sample.read_mask()
        assert mask is not None
        cup = "cup" in sample.structures
        seconds, refusals = {}, []
        for way in WAYS:
            start = time.process_time()
            found, refused, where, crop = cropped(
                content, least if way == "working" else None, predictor
            )
            seconds[way] = time.process_time() - start
            refusals.append(refused)
            if where is None or crop is None:
                rows[way].append((0, 0, np.nan, np.nan))
                continue
            outside = margins.outside(where, *mask.shape, predictor.side)
            maps = predictor.segment(crop[None], outside=outside[None])[0]
            disc, cups, vcdr, error = score(maps, where, mask, predictor.thresholds)
            rows[way].append((disc, cups, vcdr, error) if cup else (disc, np.nan, vcdr, np.nan))
        height, width = found.size
        first = first or f"{sample.image.suffix}, {width} x {height}, 1/{found.shrink}"
        faster.append(seconds["whole"] / seconds["working"])
        unlike += len(set(refusals)) > 1
    figures = "; ".join(f"{way} {summary(some)}" for way, some in rows.items())
    difference = ratios(rows["working"]) - ratios(rows["whole"])
    return (
        f"{name} ({first}), {len(faster)} eyes: disc / cup Dice, vCDR MAE: {figures};"
        f" vCDRs {np.nanmean(np.abs(difference)):.4f} apart ({np.nanmean(difference):+.4f});"
        f" {unlike} refused in one form only; {statistics.median(faster):.1f} times as fast"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--eyes", type=int, default=60, help="most eyes per set")
    parser.add_argument("--bundle", default=bundles.default_folder(), metavar="URI")
    args = parser.parse_args(arguments)
    predictor = Predictor(bundles.load(args.bundle))
    for name in SETS:
        print(of_set(name, args.data, args.eyes, predictor), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
