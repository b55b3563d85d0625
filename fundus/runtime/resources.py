"""What a Ray has to give, now or when its cluster has grown: CPUs, GPUs, memory, reading nodes."""

import math
import os

import ray

from fundus.errors import ConfigurationError

GROWS_TO = "FUNDUS_GROWS_TO"

READER = "reader"
"""A resource of Ray's that a cluster gives to the nodes where pictures are read, and no others;
where there is none, readers go anywhere."""


def reachable() -> dict[str, float]:
    """CPU, GPU, memory and readers' nodes of the running Ray, or what FUNDUS_GROWS_TO says that it
    may grow to.

    A head of no CPUs whose pools are at zero tells nothing of what will come, and no autoscaler
    says it to a driver (Ray 2.60): cluster.yaml sets the variable from its pools: "CPU=128 GPU=4".
    """
    now = ray.cluster_resources()
    grown = amounts(os.environ.get(GROWS_TO, ""))
    names = ("CPU", "GPU", "memory", READER)
    return {name: max(now.get(name, 0), grown.get(name, 0)) for name in names}


def smallest_node() -> float:
    """CPUs of the smallest node that does work; infinite where an autoscaler replaces lost ones."""
    if os.environ.get(GROWS_TO):
        return math.inf
    cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return min((each for each in cpus if each), default=math.inf)


def amounts(text: str) -> dict[str, float]:
    """Amounts by name; ConfigurationError, naming the variable, where it is not so."""
    try:
        pairs = [word.split("=") for word in text.split()]
        return {name: float(amount) for name, amount in pairs}
    except ValueError:
        raise ConfigurationError(f'{GROWS_TO} is "{text}", not like "CPU=128 GPU=4"') from None
