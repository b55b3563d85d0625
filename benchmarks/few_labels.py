#!/usr/bin/env python
"""Measure the benefit of 10, 20 and 50 labelled eyes of a site for the disc and cup thresholds.

    python benchmarks/few_labels.py --data DATA --left-out loo
    python benchmarks/few_labels.py --data DATA --set our_frames --bundle runs/mine

With --left-out, each of the four cameras is measured by the segmenter that was trained without it,
from the maps that `benchmarks/leave_one_out.py` stored in the folder. With --set, a bundle measures
the set; the bundle should not have been trained on it. The eyes are drawn at random many times.
Each time, they are calibrated as by `jobs/calibrate.py --structures`, including its refusals, and
the other eyes are scored. The figures are means over the draws. `set` is the share of draws in
which a threshold was changed. `worse` is the share in which the vCDR MAE of the other eyes then
rose by more than .005.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from left_out import CAMERAS, Data

from fundus.datasets.samples import LabelledSet
from fundus.evaluation import structures
from fundus.evaluation.structures import Eyes, Table
from fundus.models import bundle as bundles
from fundus.models.bundle import Bundle
from fundus.models.predictor import Predictor
from fundus.models.thresholds import Thresholds
from fundus.training.recipes import laptop

COUNTS = (10, 20, 50)


def figures(table: Table, thresholds: Thresholds, eyes: np.ndarray) -> np.ndarray:
    """Return (4,): disc Dice, cup Dice, vCDR MAE and bias of the eyes with these indices."""
    found = table.at(thresholds.disc, thresholds.cup)[eyes]
    error = found[:, 2]
    return np.array([*found[:, :2].mean(axis=0), np.nanmean(np.abs(error)), np.nanmean(error)])


def lines(table: Table, draws: int) -> Iterator[str]:
    """Yield one line per count of labelled eyes; 0 is the unchanged bundle."""
    yield "labelled draws    set  worse   disc    cup    MAE   bias  disc at, cup at"
    everyone = np.arange(len(table))
    now = table.thresholds
    disc, cup, mae, bias = figures(table, now, everyone)
    yield (
        f"{0:8} {'-':>5} {'-':>6} {'-':>6} {disc:6.3f} {cup:6.3f} {mae:6.3f} {bias:+6.3f}"
        f"  {now.disc:.3f}, {now.cup:.3f}"
    )
    for count in COUNTS:
        if count + structures.FEWEST > len(table):
            continue
        rows, changed, worse, at = [], [], [], []
        for draw in range(draws):
            order = np.random.default_rng([count, draw]).permutation(len(table))
            chosen, others = order[:count], order[count:]
            found, _ = structures.calibrate(table, chosen)
            before, after = (figures(table, each, others) for each in (now, found))
            rows.append(after)
            at.append((found.disc, found.cup))
            changed.append(found != now)
            worse.append(after[2] > before[2] + 0.005)
        disc, cup, mae, bias = np.mean(rows, axis=0)
        median = np.median(at, axis=0)
        yield (
            f"{count:8} {draws:5} {np.mean(changed):6.2f} {np.mean(worse):6.2f} {disc:6.3f}"
            f" {cup:6.3f} {mae:6.3f} {bias:+6.3f}  {median[0]:.3f}, {median[1]:.3f}"
        )


def spread(count: int, wanted: int) -> np.ndarray:
    """Return at most `wanted` indices, spread evenly over `count`."""
    return np.unique(np.linspace(0, count - 1, wanted).astype(int))


def left_out(data: Data, folder: Path, camera: str, wanted: int) -> Table:
    """Return eyes of a camera, in the maps of the segmenter that was trained without it."""
    book = laptop()
    crops = data.scored(CAMERAS[camera][0], book)
    chosen = spread(len(crops), wanted)
    maps = np.load(folder / f"{camera}.npz")["maps"][chosen]
    return Table(Eyes(tuple(maps), tuple(crops.masks.numpy()[chosen])), book.thresholds)


def measured(data: Data, name: str, bundle: Bundle, wanted: int) -> Table:
    """Return eyes of a set, in the maps of a bundle."""
    labelled = data.opened(name)
    chosen = spread(len(labelled.samples), wanted)
    some = LabelledSet(name, tuple(labelled.samples[i] for i in chosen))
    eyes = structures.look(some, Predictor(bundle), precropped="crop" in name)
    return Table(eyes, bundle.thresholds)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, type=Path, help="folder with manifest.csv")
    eyes = parser.add_mutually_exclusive_group(required=True)
    eyes.add_argument("--set", action="append", help="a set with disc and cup masks")
    eyes.add_argument("--left-out", type=Path, metavar="FOLDER", help="--out of leave_one_out.py")
    parser.add_argument("--bundle", default=bundles.default_folder(), help="bundle for --set")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/crops"), help="--cache of leave_one_out.py"
    )
    parser.add_argument("--eyes", type=int, default=100, help="eyes per set, spread over the set")
    parser.add_argument("--draws", type=int, default=30)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bundle = bundles.load(args.bundle)
    data = Data(args.data, args.cache, bundle)
    for name in args.set or CAMERAS:
        if args.left_out:
            table = left_out(data, args.left_out, name, args.eyes)
        else:
            table = measured(data, name, bundle, args.eyes)
        print(f"\n{name}", *lines(table, args.draws), sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
