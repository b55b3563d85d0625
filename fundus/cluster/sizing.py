"""Nodes, hours and cost of a night of screening, calculated from measured seconds per picture.

There are P pictures. A core takes r seconds to read, locate and crop one picture, s seconds to
segment it and m seconds to measure it (fundus.screening.stages):

    CPU pool   rate_cpu  = nodes_cpu * cores * EFFICIENCY / r
    its links  rate_net  = nodes_cpu * gigabits / (8 * (megabytes + crop) / 1000)
    GPU pool   rate_gpu  = nodes_gpu * gpus * EFFICIENCY * speed / s
    its cores  rate_side = nodes_gpu * cores_beside * EFFICIENCY / m
    its links  rate_link = nodes_gpu * gigabits / (8 * (crop + ROW) / 1000)
    driver     rate_driver = DRIVER_RATE
    hours    = start + P / min(rates) / 3600
    cost     = sum of nodes * price * (hours + idle)

Rates are pictures per second. `speed` is the speed of one GPU relative to one core on the
segmenter, `crop` is the size of a crop in megabytes, and `start` is the time from the request for a
node to its first picture. Without GPUs everything runs on the CPU pool: r then includes s and m,
and no crop crosses a link. All stages work at once, so the slowest one sets the pace.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from fundus.errors import ConfigurationError

EFFICIENCY = 0.9
"""Share of a pool's time that is spent on pictures; 0.92 in `benchmarks/simulate_cluster.py`."""
DRIVER_RATE = 780.0
"""Pictures per second that one driver hands out, for any number of nodes. Measured by
`benchmarks/simulate_cluster.py --idle 64` on two cores that also ran the pools."""
START_HOURS = 8 / 60
"""Boot and installation of a node. An estimate: no node has been started on AWS yet."""
ROW_MEGABYTES = 0.005
"""A row with its mask, compressed."""
OF_CPU_NODES = ("cores of the CPU nodes", "links of the CPU nodes")
OF_GPU_NODES = ("GPUs", "cores of the GPU nodes", "links of the GPU nodes")


@dataclass(frozen=True)
class Rates:
    """Seconds of one core per picture in each stage, and the size of the measured pictures."""

    read: float
    """Fetch, decode and assess gradability; grows with the megapixels."""
    locate: float
    """The detector."""
    crop: float
    segment: float
    """All networks, 8 turns each."""
    measure: float
    megapixels: float
    """Median of the measured pictures."""
    megabytes: float
    """Median of their files."""
    crop_side: int = 128
    """Side of a crop, pixels."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isinstance(value, (int, float)) and 0 <= value < math.inf):
                raise ConfigurationError(
                    f"the rate {field.name} is {value!r}: it must be a number of 0 or more"
                )
        if min(self.segment, self.megapixels) <= 0:
            raise ConfigurationError("segment and megapixels must be above 0")

    @property
    def reading(self) -> float:
        """Core seconds per picture of the stages that run where pictures are read."""
        return self.read + self.locate + self.crop

    @property
    def measuring(self) -> float:
        """Core seconds per picture of the stages that run where crops are measured."""
        return self.segment + self.measure

    def at(self, megapixels: float) -> "Rates":
        """The rates for pictures of another size: bytes and reading time grow in proportion."""
        if not 0 < megapixels < math.inf:
            raise ConfigurationError(f"{megapixels} megapixels: give a number above 0")
        scale = megapixels / self.megapixels
        return replace(
            self,
            read=self.read * scale,
            megabytes=self.megabytes * scale,
            megapixels=megapixels,
        )


def read_rates(text: str) -> Rates:
    """Read the JSON that `benchmarks/stages.py` prints; other keys are ignored.

    Raises:
        ConfigurationError: the text is not JSON, or it lacks a rate.
    """
    try:
        found: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"the rates are not JSON ({error}): write the file with benchmarks/stages.py"
        ) from error
    names = [field.name for field in fields(Rates)]
    known = found if isinstance(found, dict) else {}
    missing = [name for name in names if name not in known and name != "crop_side"]
    if missing:
        raise ConfigurationError(
            f"the rates lack {', '.join(missing)}: measure them anew with benchmarks/stages.py"
        )
    return Rates(**{name: known[name] for name in names if name in known})


@dataclass(frozen=True)
class Pool:
    """Nodes of one kind."""

    nodes: int
    slots: int
    """Cores or GPUs per node."""
    price: float = 0.0
    """Per node and hour, in any currency."""
    gigabits: float = 10.0
    """Network bandwidth of a node, gigabits per second."""
    cores: int = 8
    """CPU cores of a GPU node."""

    def __post_init__(self) -> None:
        counts = self.nodes >= 0 and min(self.slots, self.cores) >= 1
        if not counts or self.price < 0 or self.gigabits <= 0:
            raise ConfigurationError(
                f"{self} cannot be: give 0 or more nodes, 1 or more slots and cores, a price of 0"
                " or more and a bandwidth above 0"
            )


@dataclass(frozen=True)
class Night:
    """The predicted time and cost of one night on given nodes."""

    cpu_nodes: int
    gpu_nodes: int
    hours: float
    cost: float
    pictures_per_second: float
    bound_by: str
    """The slowest part: the driver, or the cores, GPUs or links of a pool."""


def predict(
    pictures: int,
    rates: Rates,
    cpu: Pool,
    gpu: Pool | None = None,
    *,
    gpu_speed: float = 1.0,
    start_hours: float = START_HOURS,
    idle_hours: float = 5 / 60,
) -> Night:
    """Predict hours and cost of a night on given nodes.

    Args:
        pictures: how many the archive holds.
        rates: measured seconds per picture.
        cpu: the nodes that read pictures.
        gpu: the nodes that run the networks; None if the CPU nodes run them.
        gpu_speed: speed of one GPU relative to one core, on the segmenter.
        start_hours: from the request for a node to its first picture.
        idle_hours: for which a node is paid after its last picture.

    Raises:
        ConfigurationError: no pictures, no speed, or a pool without nodes.
    """
    if pictures < 1 or gpu_speed <= 0:
        raise ConfigurationError(
            f"{pictures} pictures at a GPU speed of {gpu_speed}: give 1 or more pictures and a"
            " speed above 0"
        )
    limits = _rates_of_pools(rates, cpu, gpu, gpu_speed)
    bound_by, pace = min(limits.items(), key=lambda item: item[1])
    if pace <= 0:
        raise ConfigurationError(f"no node provides {bound_by}: give one node or more")
    hours = start_hours + pictures / pace / 3600
    pools = [cpu, gpu] if gpu else [cpu]
    cost = sum(pool.nodes * pool.price * (hours + idle_hours) for pool in pools)
    return Night(cpu.nodes, gpu.nodes if gpu else 0, hours, cost, pace, bound_by)


def nodes_for(
    pictures: int,
    rates: Rates,
    cpu: Pool,
    gpu: Pool | None = None,
    *,
    hours: float,
    gpu_speed: float = 1.0,
    start_hours: float = START_HOURS,
) -> tuple[Pool, Pool | None]:
    """Find the smallest pools that screen the pictures within the given hours.

    Args:
        pictures, rates, cpu, gpu, gpu_speed, start_hours: as in `predict`; the numbers of nodes in
            the pools are ignored.
        hours: that the night may last.

    Returns:
        The pools with their numbers of nodes; None for the GPU pool if none was given.

    Raises:
        ConfigurationError: no number of nodes is enough, because their start or the driver takes
            too long.
    """
    if hours <= start_hours:
        raise ConfigurationError(
            f"{hours:.2f} hours are too few: nodes take {start_hours:.2f} hours to start"
        )
    wanted = pictures / ((hours - start_hours) * 3600)
    if wanted > DRIVER_RATE:
        raise ConfigurationError(
            f"{wanted:.0f} pictures per second are more than the {DRIVER_RATE:.0f} that one driver"
            " hands out: give more hours, or screen the archive in parts, each with its own"
            " --results"
        )
    one = _rates_of_pools(
        rates, replace(cpu, nodes=1), replace(gpu, nodes=1) if gpu else None, gpu_speed
    )
    cpus = math.ceil(wanted / min(one[name] for name in OF_CPU_NODES))
    if gpu is None:
        return replace(cpu, nodes=cpus), None
    gpus = math.ceil(wanted / min(one[name] for name in OF_GPU_NODES))
    return replace(cpu, nodes=cpus), replace(gpu, nodes=gpus)


def _rates_of_pools(
    rates: Rates, cpu: Pool, gpu: Pool | None, gpu_speed: float
) -> Mapping[str, float]:
    """Pictures per second that each part of the pools could handle alone."""
    cores, links = OF_CPU_NODES
    crop = 3e-6 * rates.crop_side**2 if gpu else 0.0
    seconds = rates.reading if gpu else rates.reading + rates.measuring
    limits = {
        cores: _ratio(cpu.nodes * cpu.slots * EFFICIENCY, seconds),
        links: _ratio(cpu.nodes * cpu.gigabits, 8 * (rates.megabytes + crop) / 1000),
        "driver": DRIVER_RATE,
    }
    if gpu:
        gpus, beside, links = OF_GPU_NODES
        limits[gpus] = gpu.nodes * gpu.slots * EFFICIENCY * gpu_speed / rates.segment
        limits[beside] = _ratio(gpu.nodes * gpu.cores * EFFICIENCY, rates.measure)
        limits[links] = _ratio(gpu.nodes * gpu.gigabits, 8 * (crop + ROW_MEGABYTES) / 1000)
    return limits


def _ratio(work: float, each: float) -> float:
    return work / each if each else math.inf
