"""Resources of a Ray cluster, now or after it has grown: CPUs, GPUs, memory, nodes for readers."""

import math
import os

import ray

from fundus.errors import ConfigurationError

GROWS_TO = "FUNDUS_GROWS_TO"

READER = "reader"
"""Name of the custom resource of nodes on which pictures are read. If no node has it, readers run
anywhere."""


def reachable() -> dict[str, float]:
    """CPUs, GPUs, memory and reader nodes of the running Ray, or FUNDUS_GROWS_TO if larger.

    A head without CPUs whose pools are at zero nodes does not show what will come, and Ray 2.60
    does not tell a driver about its autoscaler. So cluster.yaml sets the variable from its pools,
    such as "CPU=128 GPU=4".
    """
    now = ray.cluster_resources()
    grown = amounts(os.environ.get(GROWS_TO, ""))
    names = ("CPU", "GPU", "memory", READER)
    return {name: max(now.get(name, 0), grown.get(name, 0)) for name in names}


def smallest_node() -> float:
    """CPUs of the smallest working node; infinite if an autoscaler replaces lost nodes."""
    if os.environ.get(GROWS_TO):
        return math.inf
    cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return min((each for each in cpus if each), default=math.inf)


def amounts(text: str) -> dict[str, float]:
    """Parse amounts by name, such as "CPU=128 GPU=4"; ConfigurationError if that fails."""
    try:
        pairs = [word.split("=") for word in text.split()]
        return {name: float(amount) for name, amount in pairs}
    except ValueError:
        raise ConfigurationError(
            f'{GROWS_TO} is "{text}": give amounts such as "CPU=128 GPU=4"'
        ) from None
