"""Where each stage of screening runs: what it claims of a node, and how wide it may grow.

One rule for a laptop and for 40 GPUs. Claims are what a stage uses, since an autoscaler starts
nodes by claims; bounds come from what the cluster may grow to, not from what is up at the start.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.data import ActorPoolStrategy, DataContext

from fundus.runtime.resources import READER

HEAVY, BESIDE_A_GPU, LIGHT = 1.0, 0.5, 0.2
"""CPUs that a reader or a model, a model on a GPU, and any other stage uses while it works."""
SPARE = 0.9
"""Share of the CPUs that all actors and two light tasks may claim together."""
READ, LOCATE, SEGMENT = 0.25, 0.2, 0.45
"""Actors a CPU, at most, without GPUs. Measured 0.25, 0.17 and 0.51 of a picture's time, with the
bundle in the package (benchmarks/stages.py); what is left is for the light stages, since an actor
keeps what it claims."""
READ_FOR_GPUS = 0.7
"""Readers a CPU that the models leave over, at most, with GPUs."""
GPU_SHARE, LOCATE_A_GPU, SEGMENT_A_GPU = 0.25, 1, 3
"""One share for both models, so that whatever mixture meets on a GPU fills it, and at most as many
actors as fill all GPUs. Chosen, not measured: no GPU was at hand."""
A_READER = 0.001
"""Of the resource `READER`: so small an amount that CPUs decide how many readers fit."""
READ_MEMORY = 1 << 30
"""Bytes: four frames of 12 megapixels, each decoded in a child, take 0.4 GiB."""
NO_PROGRESS_S = 20 * 60
"""Ray Data gives up then. A node of a pool that was at zero may take ten minutes to come."""

Kwargs = dict[str, Any]
"""For `Dataset.map_batches`."""


@dataclass(frozen=True)
class Placement:
    """What each stage asks of Ray Data; the batch size stays the caller's."""

    read: Kwargs
    locate: Kwargs
    segment: Kwargs
    light: Kwargs
    """Of every stage that is a plain function."""
    readers: int
    """The most at once."""


def placement(
    resources: Mapping[str, float],
    environment: Mapping[str, str] | None = None,
    node_cpus: float = math.inf,
) -> Placement:
    """The stages' claims and bounds on these resources: CPU, GPU, memory (see
    `fundus.runtime.resources.reachable`).

    Readers go to nodes with the resource `READER`, if there are such, so that they leave the CPUs
    beside GPUs to the models. `environment` are variables of the stages' processes, see
    `fundus.runtime.logs.name_run`.
    All actors and two light tasks fit at once, on however small a machine: nothing waits for ever.
    Without GPUs one of each stage fits on a node of `node_cpus` (`smallest_node`), too: should it
    be the last one left, the run goes on there.
    """
    cpus = max(1, int(resources.get("CPU", 0)))
    gpus = int(resources.get("GPU", 0))
    if gpus:
        locate, segment = LOCATE_A_GPU * gpus, SEGMENT_A_GPU * gpus
        model, share = BESIDE_A_GPU, GPU_SHARE
        readers = int(READ_FOR_GPUS * (cpus - model * (locate + segment)))
    else:
        model, share = HEAVY, 0.0
        readers, locate, segment = int(READ * cpus), int(LOCATE * cpus), int(SEGMENT * cpus)
    readers, locate, segment = max(1, readers), max(1, locate), max(1, segment)
    widest = HEAVY * readers + model * (locate + segment) + 2 * LIGHT
    shrink = min(1.0, SPARE * cpus / widest)
    if not gpus:
        shrink = min(shrink, SPARE * node_cpus / (3 * HEAVY + 2 * LIGHT))
    memory = min(READ_MEMORY, int(resources.get("memory", 0) / (2 * readers)))
    there = {"resources": {READER: A_READER}} if resources.get(READER) else {}
    shared = {"runtime_env": {"env_vars": dict(environment)}} if environment else {}
    return Placement(
        read=_actors(readers, num_cpus=HEAVY * shrink, memory=memory) | there | shared,
        locate=_actors(locate, num_cpus=model * shrink, num_gpus=share) | shared,
        segment=_actors(segment, num_cpus=model * shrink, num_gpus=share) | shared,
        light={"num_cpus": round(LIGHT * shrink, 3)} | shared,
        readers=readers,
    )


def _actors(most: int, **claims: float) -> Kwargs:
    """A pool from 1; a claim of nothing is left out."""
    pool = ActorPoolStrategy(min_size=1, max_size=most)
    return {"compute": pool} | {name: round(value, 3) for name, value in claims.items() if value}


def tune(context: DataContext) -> None:
    """Rows in whatever order they come, a stall ends the run, and no block is ever dropped."""
    context.execution_options.preserve_order = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_S
    context.max_errored_blocks = 0
