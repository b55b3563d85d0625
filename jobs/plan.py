#!/usr/bin/env python
"""Plan a night: nodes, hours and cost of screening, from measured seconds per picture.

    python benchmarks/stages.py --archive photographs > rates.json
    python jobs/plan.py --rates rates.json --pictures 100000 --hours 6
    python jobs/plan.py --rates rates.json --pictures 100000 --cpu-nodes 4
    python jobs/plan.py --rates rates.json --pictures 100000 --hours 6 --gpu-speed 30

--hours calculates the smallest number of nodes, --cpu-nodes calculates the hours. --gpu-speed is
the number of cores that a GPU replaces on the segmenter, as benchmarks/stages.py measures it on
such a node; without it the segmenter runs on the CPU nodes. The formula is in
fundus/cluster/sizing.py. The default prices are on-demand prices in Frankfurt, in dollars: give
your own.

Exit codes: 0 planned; 2 bad configuration.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fundus.cluster.sizing import START_HOURS, Night, Pool, Rates, nodes_for, predict, read_rates
from fundus.errors import ConfigurationError


@dataclass(frozen=True)
class Plan:
    """The checked command line."""

    pictures: int
    rates: Rates
    cpu: Pool
    """The CPU nodes; their number is used if `hours` is None."""
    gpu: Pool | None
    gpu_speed: float
    hours: float | None
    """The length of the night; None to calculate it."""
    start_hours: float

    def __post_init__(self) -> None:
        if self.hours is None and self.cpu.nodes < 1:
            raise ConfigurationError("give --hours, or the number of --cpu-nodes")

    def night(self) -> Night:
        """Calculate the night; ConfigurationError if it is impossible."""
        cpu, gpu = self.cpu, self.gpu
        known = {"gpu_speed": self.gpu_speed, "start_hours": self.start_hours}
        if self.hours is not None:
            cpu, gpu = nodes_for(self.pictures, self.rates, cpu, gpu, hours=self.hours, **known)
        return predict(self.pictures, self.rates, cpu, gpu, **known)


def parse(arguments: Sequence[str] | None = None) -> Plan:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog=(__doc__ or "").split("\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rates", required=True, type=Path, metavar="FILE", help="output of benchmarks/stages.py")
    add("--pictures", required=True, type=int, metavar="N", help="pictures per night")
    add("--megapixels", type=float, help="per picture; default: as in the rates")
    add("--hours", type=float, help="length of the night; calculates the nodes")
    add(
        "--cpu-nodes",
        type=int,
        default=0,
        metavar="N",
        help="without --hours: calculates the hours",
    )
    add("--cpu-cores", type=int, default=16, metavar="N", help="per CPU node (c7i.4xlarge)")
    add("--cpu-price", type=float, default=0.82, help="per CPU node and hour")
    add(
        "--gpu-speed", type=float, metavar="CORES", help="cores that a GPU replaces in segmentation"
    )
    add("--gpu-nodes", type=int, default=1, metavar="N")
    add("--gpus", type=int, default=1, metavar="N", help="per GPU node (g6.2xlarge)")
    add("--gpu-cores", type=int, default=8, metavar="N", help="CPU cores per GPU node")
    add(
        "--gpu-gigabits", type=float, default=10, help="bandwidth per GPU node, gigabits per second"
    )
    add("--gpu-price", type=float, default=1.22, help="per GPU node and hour")
    add("--gigabits", type=float, default=5, help="bandwidth per CPU node, gigabits per second")
    add("--start-minutes", type=float, default=START_HOURS * 60, help="until a node works")
    args = parser.parse_args(arguments)
    try:
        rates = read_rates(args.rates.read_text())
    except OSError as error:
        raise ConfigurationError(f"{args.rates} cannot be read: {error.strerror}") from error
    gpu = None
    if args.gpu_speed:
        gpu = Pool(args.gpu_nodes, args.gpus, args.gpu_price, args.gpu_gigabits, args.gpu_cores)
    return Plan(
        pictures=args.pictures,
        rates=rates if args.megapixels is None else rates.at(args.megapixels),
        cpu=Pool(args.cpu_nodes, args.cpu_cores, args.cpu_price, args.gigabits),
        gpu=gpu,
        gpu_speed=args.gpu_speed or 1.0,
        hours=args.hours,
        start_hours=args.start_minutes / 60,
    )


def readable(plan: Plan, night: Night) -> str:
    """The night for a terminal."""
    rates = plan.rates
    pools = f"{night.cpu_nodes} CPU nodes of {plan.cpu.slots} cores"
    if plan.gpu:
        pools += f" and {night.gpu_nodes} GPU nodes of {plan.gpu.slots} GPUs"
    gigabytes = plan.pictures * rates.megabytes / 1000
    return "\n".join(
        [
            f"{plan.pictures} pictures of {rates.megapixels:.1f} megapixels, {gigabytes:.0f} GB",
            f"per picture: {rates.reading:.3f} s of a core to read, locate and crop,"
            f" {rates.segment:.3f} s to segment, {rates.measure:.3f} s to measure",
            f"on {pools}: {night.hours:.2f} hours, of which {plan.start_hours:.2f} to start",
            f"{night.pictures_per_second:.1f} pictures per second, limited by the {night.bound_by}",
            f"cost: {night.cost:.2f}, without head and storage",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, calculate, print the night; the exit code."""
    try:
        plan = parse(arguments)
        night = plan.night()
    except ConfigurationError as error:
        print(f"plan: {error}", file=sys.stderr)
        return 2
    print(readable(plan, night))
    return 0


if __name__ == "__main__":
    sys.exit(main())
