#!/usr/bin/env python
"""PyTorch against OpenVINO on the bundle's networks, and both against a matrix product.

    OMP_NUM_THREADS=1 python benchmarks/engines.py

One thread, processor time, interleaved: each round times the matrix product, PyTorch and OpenVINO
one after the other; medians over the rounds. Weights are the bundle's, pictures are noise: what a
network costs does not depend on what it sees. Prints, for the detector and for one segmenter, the
ratio of the two engines, the share of the matrix product's rate that each reaches, and the largest
difference between their probabilities.
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
"""Rows and columns of the product."""


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@torch.inference_mode()
def compare(network: Network, side: int, count: int, rounds: int) -> str:
    """One line on a network, or an ensemble's first member, at this input side and batch."""
    pictures = torch.randint(0, 255, (count, 3, side, side), dtype=torch.uint8)
    given = pictures.numpy()
    engine, *_ = convert.on_cpu(network).load()
    plain = members(network.build())[0].to(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        expected = plain(to_input(pictures)).sigmoid()
    difference = float(abs(engine(given) - expected.numpy()).max())
    left, right = torch.randn(2, MATRIX, MATRIX)
    works = {
        "product": lambda: left @ right,
        "PyTorch": lambda: plain(to_input(pictures)).sigmoid(),
        "OpenVINO": lambda: engine(given),
    }
    for work in works.values():
        work()
    taken = {name: [] for name in works}  # type: dict[str, list[float]]
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(seconds(work))
    middle = {name: statistics.median(values) for name, values in taken.items()}
    best = 2 * MATRIX**3 / middle["product"]
    rate = {name: counter.get_total_flops() / middle[name] / best for name in works}
    return (
        f"side {side}, {count} together: OpenVINO is {middle['PyTorch'] / middle['OpenVINO']:.1f}"
        f" times as fast as PyTorch; of the matrix product's rate {rate['OpenVINO']:.2f} and"
        f" {rate['PyTorch']:.2f}; largest difference {difference:.1e}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bundle", default=bundles.default_folder(), metavar="URI")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bundle = bundles.load(given.bundle)
    detector, segmenter = (bundle.networks[role] for role in (DETECTOR, SOURCE_ONLY))
    sides = bundle.preprocessing
    print("segmenter,", compare(segmenter, sides.roi_side, TOGETHER["cpu"], given.rounds))
    print("detector,", compare(detector, sides.detector_side, 1, given.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
