"""Nodes, hours and cost of a night's screening, from measured seconds a picture.

With P pictures, per picture c seconds of a core for the CPU stages and g for the two models:

    CPU pool   rate_cpu = nodes_cpu * cores * EFFICIENCY / c
    GPU pool   rate_gpu = nodes_gpu * gpus * EFFICIENCY * speed / g
    network    rate_net = nodes_cpu * gigabits / (8 * megabytes / 1000)
    driver     rate_driver = DRIVER_RATE
    hours    = start + P / min(rates) / 3600
    cost     = sum of nodes * price * (hours + idle)

Rates are pictures a second; `speed` is one GPU over one core on the models. Without GPUs the models
run on the CPU pool too, and c takes g in. Stages work side by side, so the slowest pool alone sets
the pace; `start` is a node's way from the request to its first picture.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from fundus.errors import ConfigurationError

EFFICIENCY = 0.9
"""Share of a pool's time that goes into pictures; 0.92 in `benchmarks/simulate_cluster.py`."""
DRIVER_RATE = 780.0
"""Pictures a second that one driver hands out, however many nodes there are: what
`benchmarks/simulate_cluster.py --idle 64` measured on two cores that carried the pools as well."""
START_HOURS = 8 / 60
"""A node's boot and installation. An estimate: no node has been started on AWS yet."""


@dataclass(frozen=True)
class Rates:
    """Seconds of one core for a picture in each stage, and what the measured pictures were."""

    read: float
    """Fetch, decode and grade; grows with the megapixels."""
    locate: float
    """The detector."""
    crop: float
    segment: float
    """All networks, 8 turns each."""
    measure: float
    megapixels: float
    """Of the measured pictures, the median."""
    megabytes: float
    """Of their files."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isinstance(value, (int, float)) and 0 <= value < math.inf):
                raise ConfigurationError(
                    f"the rate {field.name} is {value!r}, not a figure of 0 or more"
                )
        if min(self.models, self.megapixels) <= 0:
            raise ConfigurationError("locate, segment and megapixels must be above 0")

    @property
    def models(self) -> float:
        """Seconds of both models."""
        return self.locate + self.segment

    @property
    def cpu(self) -> float:
        """Seconds of the stages without a model."""
        return self.read + self.crop + self.measure

    def at(self, megapixels: float) -> "Rates":
        """The rates of pictures of another size: bytes and reading grow with it."""
        if not 0 < megapixels < math.inf:
            raise ConfigurationError(f"{megapixels} megapixels; give a figure above 0")
        scale = megapixels / self.megapixels
        return replace(
            self,
            read=self.read * scale,
            megabytes=self.megabytes * scale,
            megapixels=megapixels,
        )


def read_rates(text: str) -> Rates:
    """Rates from the JSON of `benchmarks/stages.py`; other keys are ignored.

    ConfigurationError where it is not such JSON.
    """
    try:
        found: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"the rates are not JSON: {error}") from error
    names = [field.name for field in fields(Rates)]
    missing = [name for name in names if not isinstance(found, dict) or name not in found]
    if missing:
        raise ConfigurationError(f"the rates lack {', '.join(missing)}")
    return Rates(**{name: found[name] for name in names})


@dataclass(frozen=True)
class Pool:
    """Nodes of one kind."""

    nodes: int
    slots: int
    """Cores or GPUs of a node."""
    price: float = 0.0
    """Of a node for an hour, any currency."""
    gigabits: float = 10.0
    """A node's network, a second."""

    def __post_init__(self) -> None:
        if self.nodes < 0 or self.slots < 1 or self.price < 0 or self.gigabits <= 0:
            raise ConfigurationError(f"{self} is no pool of nodes")


@dataclass(frozen=True)
class Night:
    """The answer."""

    cpu_nodes: int
    gpu_nodes: int
    hours: float
    cost: float
    pictures_a_second: float
    bound_by: str
    """What sets the pace: cpu, gpu, network or driver."""


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
    """Hours and cost of a night on given nodes. `gpu_speed`: a GPU over one core, on the models."""
    if pictures < 1 or gpu_speed <= 0:
        raise ConfigurationError(
            f"{pictures} pictures at a GPU speed of {gpu_speed}: nothing to plan"
        )
    limits = _rates_of_pools(rates, cpu, gpu, gpu_speed)
    bound_by, pace = min(limits.items(), key=lambda item: item[1])
    if pace <= 0:
        raise ConfigurationError(f"no {bound_by} node: give one or more")
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
    """The pools with as many nodes as the hours demand, each the fewest.

    ConfigurationError where no number of nodes is enough: the start or the driver takes too long.
    """
    if hours <= start_hours:
        raise ConfigurationError(
            f"{hours:.2f} hours are no more than the {start_hours:.2f} that nodes take to start"
        )
    wanted = pictures / ((hours - start_hours) * 3600)
    if wanted > DRIVER_RATE:
        raise ConfigurationError(
            f"{wanted:.0f} pictures a second are more than the {DRIVER_RATE:.0f} that one driver"
            " hands out: give more hours, or screen parts of the archive, each with --results of"
            " its own"
        )
    one = _rates_of_pools(
        rates, replace(cpu, nodes=1), replace(gpu, nodes=1) if gpu else None, gpu_speed
    )
    cpus = math.ceil(wanted / min(one["cpu"], one["network"]))
    return replace(cpu, nodes=cpus), replace(
        gpu, nodes=math.ceil(wanted / one["gpu"])
    ) if gpu else None


def _rates_of_pools(
    rates: Rates, cpu: Pool, gpu: Pool | None, gpu_speed: float
) -> Mapping[str, float]:
    """Pictures a second that each pool could do alone."""
    seconds = rates.cpu if gpu else rates.cpu + rates.models
    limits = {"cpu": _ratio(cpu.nodes * cpu.slots * EFFICIENCY, seconds), "driver": DRIVER_RATE}
    limits["network"] = _ratio(cpu.nodes * cpu.gigabits, 8 * rates.megabytes / 1000)
    if gpu:
        limits["gpu"] = gpu.nodes * gpu.slots * EFFICIENCY * gpu_speed / rates.models
    return limits


def _ratio(work: float, each: float) -> float:
    return work / each if each else math.inf
