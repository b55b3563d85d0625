#!/usr/bin/env python
"""Estimate, without a GPU, how many eyes per second one could segment. Nothing here is measured.

    python benchmarks/gpu_estimate.py --rates rates.json [--bundle URI]

Counts the operations of one eye (all networks, eight turns) and the bytes that its layers read and
write in bfloat16, without fusion. A card is given half of the peak rates in its data sheet. The
slower of the two bounds is the estimate. Prints for each card: eyes per second, the cores that the
card replaces on the segmenter (`jobs/plan.py --gpu-speed`), the cores that must read for it, those
that must measure beside it, and its link's share of 10 gigabits per second. The rates are those of
`benchmarks/stages.py`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fundus.cluster.sizing import ROW_MEGABYTES, read_rates
from fundus.models import bundle as bundles
from fundus.models.bundle import SOURCE_ONLY
from fundus.models.networks import members
from fundus.models.turns import TTA

OF_PEAK = 0.5
BYTES = 2
"""Of one number in bfloat16."""


@dataclass(frozen=True)
class Card:
    """Peak rates of a data sheet, for dense matrices in bfloat16."""

    name: str
    operations: float
    """Per second."""
    bandwidth: float
    """Bytes per second."""


CARDS = (Card("L4", 121e12, 300e9), Card("H100 SXM", 989e12, 3350e9))


def work_of(network: nn.Module, side: int) -> tuple[float, float]:
    """Return the operations of one picture, and the bytes that its layers read and write."""
    numbers = 0

    def count(layer: nn.Module, entering: tuple[torch.Tensor, ...], leaving: torch.Tensor) -> None:
        nonlocal numbers
        numbers += sum(one.numel() for one in entering) + leaving.numel()

    for layer in network.modules():
        if not list(layer.children()):
            layer.register_forward_hook(count)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, side, side))
    return counter.get_total_flops(), BYTES * numbers


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rates", type=Path, required=True, help="output of benchmarks/stages.py")
    parser.add_argument("--bundle", default=bundles.default_folder(), metavar="URI")
    args = parser.parse_args(arguments)
    rates = read_rates(args.rates.read_text())
    bundle = bundles.load(args.bundle)
    networks = members(bundle.networks[SOURCE_ONLY].build())
    operations, moved = work_of(networks[0], bundle.preprocessing.roi_side)
    operations, moved = (one * len(networks) * TTA for one in (operations, moved))
    print(f"one eye: {operations / 1e9:.1f} GFLOP, {moved / 1e6:.0f} MB read and written")
    for card in CARDS:
        seconds = operations / card.operations, moved / card.bandwidth
        eyes = OF_PEAK / max(seconds)
        bound = "operations" if seconds[0] > seconds[1] else "bandwidth"
        link = eyes * (3e-6 * rates.crop_side**2 + ROW_MEGABYTES) * 8 / 10_000
        print(
            f"{card.name}: {eyes:.0f} eyes per second by {bound}, {eyes * rates.segment:.0f} cores"
            f" replaced, {eyes * rates.reading:.0f} cores to read,"
            f" {eyes * rates.measure:.0f} to measure, {link:.0%} of its link"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
