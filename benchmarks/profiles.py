#!/usr/bin/env python
"""Compare the profiles of `jobs/screen.py`: accuracy and speed of `exact` and `fast`.

    OMP_NUM_THREADS=1 python benchmarks/profiles.py --data DATA --eyes 60

Takes up to `--eyes` eyes, spread evenly, from each of four sets with disc and cup in DATA's
`manifest.csv`. Each profile finds their ROIs and segments them, in turn. Prints for each set the
mean Dice with the experts' disc and cup and the mean absolute error of the vCDR, for `exact` and
for `fast`; the mean difference of the two vCDRs of an eye; and the median ratio of the CPU times of
segmentation. Eyes in which a profile finds no cup, or the segmenter no disc, count with Dice 0 and
are left out of the vCDR figures. Eyes in which a detector finds no disc are left out.
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
from fundus.field import margins, roi
from fundus.models import bundle as bundles
from fundus.models.predictor import Predictor, ready
from fundus.models.turns import PROFILES

SETS = ("drishti_gs1_full", "origa_full", "messidor_riga_full", "refuge_train_crop512")


def of_set(name: str, data: Path, eyes: int, predictors: dict[str, Predictor]) -> str:
    """Return one line of figures for a set."""
    labelled = open_set(f"manifest:{data / 'manifest.csv'}?set={name}")
    found: dict[str, list[Score]] = {profile: [] for profile in PROFILES}
    faster = []
    for sample in spread(labelled.samples, eyes):
        image, mask = sample.read_image(), sample.read_mask()
        rois = {p: one.place(image, precropped="crop" in name).roi for p, one in predictors.items()}
        if None in rois.values():
            continue
        seconds = {}
        for profile, predictor in predictors.items():
            where, side = rois[profile], predictor.side
            crop = roi.crop(image, where, side, mirrored=True)[None]
            outside = margins.outside(where, *mask.shape, side)[None]
            start = time.process_time()
            maps = predictor.segment(crop, outside=outside)[0]
            seconds[profile] = time.process_time() - start
            found[profile].append(score(maps, where, mask, predictor.thresholds))
        faster.append(seconds["exact"] / seconds["fast"])
    figures = "; ".join(f"{profile} {summary(some)}" for profile, some in found.items())
    difference = np.nanmean(np.abs(ratios(found["exact"]) - ratios(found["fast"])))
    return (
        f"{name}, {len(faster)} eyes: disc / cup Dice, vCDR MAE: {figures};"
        f" vCDRs {difference:.4f} apart; {statistics.median(faster):.1f} times as fast"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--eyes", type=int, default=60, help="most eyes per set")
    parser.add_argument("--bundle", default=bundles.default_folder(), metavar="URI")
    args = parser.parse_args(arguments)
    bundle = bundles.load(args.bundle)
    predictors = {p: Predictor(ready(bundle, gpu=False, profile=p)) for p in PROFILES}
    for name in SETS:
        print(of_set(name, args.data, args.eyes, predictors), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
