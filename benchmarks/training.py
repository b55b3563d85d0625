#!/usr/bin/env python
"""Measure training: pictures per second of whole epochs, against forward and backward alone.

    python benchmarks/training.py --data DATA [--recipe quick] [--steps 16] [--rounds 5]

Trains the segmenter of a recipe on REFUGE's crops in this process on one thread, for `--steps`
batches per round. In each round three things take turns: whole training (augmentation, forward,
backward, optimiser, running average), the same with augmentation in one process beside it, and
forward and backward alone on batches in memory. Prints medians over the rounds as ratios. The
second row can gain only where a core is free. On a GPU, augmentation takes the CPUs that the worker
has beside the training (fundus/training/loading.py); that has not been run on one.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from fundus.datasets import batches
from fundus.datasets.public import open_set
from fundus.models import networks
from fundus.training.loading import loaded
from fundus.training.recipes import BOOKS
from fundus.training.source import SourceLearner


def timed(steps: Iterable[Any], each: Any) -> float:
    start = time.perf_counter()
    for one in steps:
        each(one)
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--recipe", choices=BOOKS, default="quick")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    book = BOOKS[args.recipe]()
    labelled = open_set(f"manifest:{args.data}/manifest.csv?set=refuge_train_crop512")
    crops = batches.disc_crops(
        labelled, book.segmenter.side, roi_scale=book.preprocessing.roi_scale
    )
    network = networks.build(book.segmenter.network).to(memory_format=torch.channels_last)
    learner = SourceLearner(network, book.segmenter, crops, crops)
    plans = [
        range(n * book.segmenter.batch, (n + 1) * book.segmenter.batch) for n in range(args.steps)
    ]
    plans = [[i % len(crops) for i in plan] for plan in plans]
    ready = list(loaded(plans, learner.augmented, 0, processes=0))

    def alone(batch: Any) -> None:
        network.train()
        network.zero_grad(set_to_none=True)
        learner.loss(*batch).backward()

    alone(ready[0])  # the first step pays for memory
    rounds: dict[str, list[float]] = {}
    for number in range(args.rounds):
        found = {
            "forward and backward": timed(ready, alone),
            "whole": timed(loaded(plans, learner.augmented, number, processes=0), learner.step),
            "whole, augmented beside": timed(
                loaded(plans, learner.augmented, number, processes=1), learner.step
            ),
        }
        for name, seconds in found.items():
            rounds.setdefault(name, []).append(seconds)
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
    pictures = args.steps * book.segmenter.batch
    bare = statistics.median(rounds["forward and backward"])
    for name, seconds in rounds.items():
        middle = statistics.median(seconds)
        print(f"{name:24} {pictures / middle:6.1f} pictures per second, {bare / middle:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
