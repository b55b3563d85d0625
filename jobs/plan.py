#!/usr/bin/env python
"""Plan a night: nodes, hours and cost of screening, from measured seconds a picture.

    python benchmarks/stages.py --archive photographs > rates.json
    python jobs/plan.py --rates rates.json --pictures 100000 --hours 6
    python jobs/plan.py --rates rates.json --pictures 100000 --cpu-nodes 4
    python jobs/plan.py --rates rates.json --pictures 100000 --hours 6 --gpu-speed 30

With --hours: the fewest nodes that are done in time; with --cpu-nodes: the hours. --gpu-speed says
how many cores a GPU replaces on the two models, from benchmarks/stages.py on such a node; without
it the models run on the CPU nodes. The formula stands in fundus/cluster/sizing.py. Prices are
yours: the defaults are on-demand prices of Frankfurt in dollars, to be looked up anew.

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
    """What is asked."""

    pictures: int
    rates: Rates
    cpu: Pool
    """Its nodes count when `hours` is None."""
    gpu: Pool | None
    gpu_speed: float
    hours: float | None
    """The night's length; None to be told it."""
    start_hours: float

    def __post_init__(self) -> None:
        if self.hours is None and self.cpu.nodes < 1:
            raise ConfigurationError("say --hours, or how many --cpu-nodes there are")

    def night(self) -> Night:
        """The answer; ConfigurationError where there is none."""
        cpu, gpu = self.cpu, self.gpu
        known = {"gpu_speed": self.gpu_speed, "start_hours": self.start_hours}
        if self.hours is not None:
            cpu, gpu = nodes_for(self.pictures, self.rates, cpu, gpu, hours=self.hours, **known)
        return predict(self.pictures, self.rates, cpu, gpu, **known)


def parse(arguments: Sequence[str] | None = None) -> Plan:
    """Command line to a checked configuration."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog=(__doc__ or "").split("\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rates", required=True, type=Path, metavar="FILE", help="of benchmarks/stages.py")
    add("--pictures", required=True, type=int, metavar="N", help="a night")
    add("--megapixels", type=float, help="of a picture; default: as in the rates")
    add("--hours", type=float, help="the night's length; nodes are told")
    add(
        "--cpu-nodes",
        type=int,
        default=0,
        metavar="N",
        help="with --hours left out: hours are told",
    )
    add("--cpu-cores", type=int, default=16, metavar="N", help="of a CPU node (c7i.4xlarge)")
    add("--cpu-price", type=float, default=0.82, help="of a CPU node for an hour")
    add("--gpu-speed", type=float, metavar="CORES", help="cores that a GPU replaces on the models")
    add("--gpu-nodes", type=int, default=1, metavar="N")
    add("--gpus", type=int, default=1, metavar="N", help="of a GPU node (g6.2xlarge)")
    add("--gpu-price", type=float, default=1.22, help="of a GPU node for an hour")
    add("--gigabits", type=float, default=5, help="of network a CPU node has, a second")
    add("--start-minutes", type=float, default=START_HOURS * 60, help="until a node is at work")
    given = parser.parse_args(arguments)
    try:
        rates = read_rates(given.rates.read_text())
    except OSError as error:
        raise ConfigurationError(f"{given.rates} cannot be read: {error.strerror}") from error
    gpu = Pool(given.gpu_nodes, given.gpus, given.gpu_price) if given.gpu_speed else None
    return Plan(
        pictures=given.pictures,
        rates=rates if given.megapixels is None else rates.at(given.megapixels),
        cpu=Pool(given.cpu_nodes, given.cpu_cores, given.cpu_price, given.gigabits),
        gpu=gpu,
        gpu_speed=given.gpu_speed or 1.0,
        hours=given.hours,
        start_hours=given.start_minutes / 60,
    )


def readable(plan: Plan, night: Night) -> str:
    """The answer for a terminal."""
    rates = plan.rates
    pools = f"{night.cpu_nodes} CPU nodes of {plan.cpu.slots} cores"
    if plan.gpu:
        pools += f" and {night.gpu_nodes} GPU nodes of {plan.gpu.slots} GPUs"
    gigabytes = plan.pictures * rates.megabytes / 1000
    return "\n".join(
        [
            f"{plan.pictures} pictures of {rates.megapixels:.1f} megapixels, {gigabytes:.0f} GB",
            f"a picture: {rates.cpu:.3f} s of a core, and {rates.models:.3f} s in the models",
            f"on {pools}: {night.hours:.2f} hours, of which {plan.start_hours:.2f} to start",
            f"{night.pictures_a_second:.1f} pictures a second, bound by the {night.bound_by}",
            f"cost: {night.cost:.2f}, the head and the storage not counted",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, calculate, say it."""
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
