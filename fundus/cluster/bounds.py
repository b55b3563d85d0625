"""The most that the cluster of a cluster.yaml may grow to, for `fundus.runtime.resources`.

    export FUNDUS_GROWS_TO="$(python -m fundus.cluster.bounds ~/ray_bootstrap_config.yaml)"

The file is on the head. It lists the CPUs, GPUs and memory of each node type, as Ray asked AWS for
them, and the pool that has readers.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def grows_to(config: Mapping[str, Any]) -> str:
    """The resources of all nodes of all pools, without the head: "CPU=128 GPU=4 memory=..."."""
    total: dict[str, int] = {}
    for name, kind in config["available_node_types"].items():
        if name != config["head_node_type"]:
            for resource in ("CPU", "GPU", "memory", "reader"):
                amount = kind["resources"].get(resource, 0) * kind["max_workers"]
                total[resource] = total.get(resource, 0) + amount
    return " ".join(f"{name}={amount}" for name, amount in total.items() if amount)


if __name__ == "__main__":
    print(grows_to(yaml.safe_load(Path(sys.argv[1]).read_text())))  # noqa: T201
