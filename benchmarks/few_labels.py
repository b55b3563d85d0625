#!/usr/bin/env python
"""What 10, 20 and 50 labelled eyes of a site bring to a bundle's disc and cup thresholds.

    python benchmarks/few_labels.py --data DATA --set origa_full --bundle loo/ORIGA
    python benchmarks/few_labels.py --data DATA --set messidor_riga_full --eyes 100

The bundle should not have learned from the set: a bundle that left its camera out. So many eyes are
drawn at random again and again; each time `jobs/calibrate.py --structures` is done on them, its
refusals included, and the eyes that were not drawn are scored. Means over the draws; `set` is the
share of draws in which a threshold was changed, `worse` the share in which the other eyes' vCDR MAE
then rose by more than .005.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from fundus.datasets.public import open_set
from fundus.datasets.samples import LabelledSet
from fundus.evaluation import structures
from fundus.evaluation.structures import Table
from fundus.models import bundle as bundles
from fundus.models.predictor import Predictor
from fundus.models.thresholds import Thresholds

COUNTS = (10, 20, 50)


def figures(table: Table, thresholds: Thresholds, eyes: np.ndarray) -> np.ndarray:
    """(4,): disc Dice, cup Dice, vCDR MAE and bias of some eyes."""
    found = table.at(thresholds.disc, thresholds.cup)[eyes]
    error = found[:, 2]
    return np.array([*found[:, :2].mean(axis=0), np.nanmean(np.abs(error)), np.nanmean(error)])


def lines(table: Table, draws: int) -> Iterator[str]:
    """One line for each count of labelled eyes; 0 is the bundle as it is."""
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
        middle = np.median(at, axis=0)
        yield (
            f"{count:8} {draws:5} {np.mean(changed):6.2f} {np.mean(worse):6.2f} {disc:6.3f}"
            f" {cup:6.3f} {mae:6.3f} {bias:+6.3f}  {middle[0]:.3f}, {middle[1]:.3f}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, type=Path, help="with a manifest.csv")
    parser.add_argument("--set", required=True, action="append", help="with disc and cup masks")
    parser.add_argument("--bundle", default=bundles.default_folder(), help="default: the package's")
    parser.add_argument("--eyes", type=int, default=100, help="of the set, spread over it")
    parser.add_argument("--draws", type=int, default=30)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bundle = bundles.load(given.bundle)
    for name in given.set:
        labelled = open_set(f"manifest:{given.data}/manifest.csv?set={name}")
        samples = labelled.samples
        chosen = np.unique(np.linspace(0, len(samples) - 1, given.eyes).astype(int))
        some = LabelledSet(name, tuple(samples[i] for i in chosen))
        crops = "crop" in name
        eyes = structures.look(some, Predictor(bundle), precropped=crops)
        print(
            f"\n{name}", *lines(Table(eyes, bundle.thresholds), given.draws), sep="\n", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
