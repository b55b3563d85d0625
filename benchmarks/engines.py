#!/usr/bin/env python
"""Compare PyTorch and OpenVINO on the bundle's networks, and both with a matrix product.

    OMP_NUM_THREADS=1 python benchmarks/engines.py

Measures CPU time on one thread: each round times the matrix product, PyTorch and OpenVINO in turn,
and the figures are medians over the rounds. The weights are the bundle's. The pictures are noise,
since the cost of a network does not depend on its input. Prints, for the detector and for one
segmenter, the ratio of the two engines, the share of the matrix product's rate that each reaches,
and the largest difference between their probabilities. OpenVINO computes in float32, as with
`--profile exact`, and then in the precision of its own choice, as with `--profile fast`.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from fundus.models import bundle as bundles
from fundus.models import convert
from fundus.models.bundle import DETECTOR, SOURCE_ONLY, Network
from fundus.models.engine import TOGETHER
from fundus.models.networks import members, to_input

MATRIX = 768
"""Rows and columns of the matrices."""


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@torch.inference_mode()
def compare(network: Network, side: int, count: int, rounds: int) -> str:
    """Return one line on a network (or the first member of an ensemble) for batches of `count`."""
    pictures = torch.randint(0, 255, (count, 3, side, side), dtype=torch.uint8)
    batch = pictures.numpy()
    engine, *_ = convert.on_cpu(network).load()
    free, *_ = convert.on_cpu(network, exact=False).load()
    plain = members(network.build())[0].to(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        expected = plain(to_input(pictures)).sigmoid()
    difference, freely = (float(abs(run(batch) - expected.numpy()).max()) for run in (engine, free))
    left, right = torch.randn(2, MATRIX, MATRIX)
    candidates = {
        "product": lambda: left @ right,
        "PyTorch": lambda: plain(to_input(pictures)).sigmoid(),
        "OpenVINO": lambda: engine(batch),
        "free": lambda: free(batch),
    }
    for work in candidates.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, work in candidates.items():
            times[name].append(seconds(work))
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = 2 * MATRIX**3 / medians["product"]
    rate = {name: counter.get_total_flops() / medians[name] / best for name in candidates}
    return (
        f"side {side}, batches of {count}: OpenVINO is"
        f" {medians['PyTorch'] / medians['OpenVINO']:.1f} times as fast as PyTorch; they reach"
        f" {rate['OpenVINO']:.2f} and {rate['PyTorch']:.2f} of the matrix product's rate;"
        f" largest difference {difference:.1e}. In the precision of OpenVINO's choice:"
        f" {medians['OpenVINO'] / medians['free']:.1f} times as fast again, largest difference"
        f" {freely:.1e}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bundle", default=bundles.default_folder(), metavar="URI")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bundle = bundles.load(args.bundle)
    detector, segmenter = (bundle.networks[role] for role in (DETECTOR, SOURCE_ONLY))
    sides = bundle.preprocessing
    print("segmenter,", compare(segmenter, sides.roi_side, TOGETHER["cpu"], args.rounds))
    print("detector,", compare(detector, sides.detector_side, 1, args.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
