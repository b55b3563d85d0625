"""Placement of the stages of screening: the resources that each claims, and its largest pool.

The same rule holds for a laptop and for 40 GPUs. Claims equal the use of a stage, because an
autoscaler starts nodes by claims. Pools are bounded by what the cluster may grow to, not by what is
running at the start.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.data import ActorPoolStrategy, DataContext

from fundus.runtime.resources import READER

HEAVY, BESIDE_A_GPU, LIGHT = 1.0, 0.5, 0.2
"""CPUs that an actor, an actor on a GPU, and a light actor use while they work."""
SPARE = 0.9
"""Share of the CPUs that all actors and two light ones may claim together."""
READ, MEASURE = 0.5, 0.4
"""Most actors per CPU without GPUs, roughly by each stage's share of the time per picture with the
bundle in the package (benchmarks/stages.py). The rest is for light actors."""
READ_FOR_GPUS = 0.7
"""Most readers per CPU that the measuring actors leave free, with GPUs."""
GPU_SHARE, MEASURE_PER_GPU = 0.25, 4
"""Share of a GPU that an actor claims, and actors per GPU: while some measure on the CPU, others
keep the GPU busy. Chosen, not measured: no GPU was available."""
READERS_PER_LIGHT = 4
"""Readers per light actor, at the pool's largest."""
PER_READER = 0.001
"""Amount of the resource `READER` per reader, so small that CPUs decide how many readers fit."""
READ_MEMORY = 1 << 30
"""Bytes: four frames of 12 megapixels, each decoded in a child, take 0.4 GiB."""
NO_PROGRESS_S = 20 * 60
"""Seconds without progress after which Ray Data gives up. A node may take ten minutes to start."""

Kwargs = dict[str, Any]
"""Arguments of `Dataset.map_batches`."""


@dataclass(frozen=True)
class Placement:
    """Arguments of Ray Data for each stage, without the batch size."""

    read: Kwargs
    """Fetch, decode, assess gradability, find the disc, crop."""
    measure: Kwargs
    """Segment and measure; on GPUs if there are any."""
    light: Kwargs
    """Stages without a network. Actors also here: Ray notices within a minute that an actor's node
    is cut off, but waits up to seven minutes for the answer of a task there."""
    readers: int
    """Most readers at once."""


def placement(
    resources: Mapping[str, float],
    environment: Mapping[str, str] | None = None,
    node_cpus: float = math.inf,
) -> Placement:
    """Claims and bounds of the stages on given resources.

    Readers run on nodes with the resource `READER`, if there are any, so that CPUs on GPU nodes are
    free for measuring. All actors and two light ones fit at once on any machine, so that nothing
    waits for ever. Without GPUs one actor of each stage also fits on the smallest node: if it is
    the last one left, the run continues there.

    Args:
        resources: CPU, GPU, memory and `READER` of `fundus.runtime.resources.reachable`.
        environment: variables for the processes of the stages, see `fundus.runtime.logs.name_run`.
        node_cpus: CPUs of the smallest node, see `fundus.runtime.resources.smallest_node`.
    """
    cpus = max(1, int(resources.get("CPU", 0)))
    gpus = int(resources.get("GPU", 0))
    if gpus:
        measurers, each, share = MEASURE_PER_GPU * gpus, BESIDE_A_GPU, GPU_SHARE
        readers = int(READ_FOR_GPUS * (cpus - each * measurers))
    else:
        readers, measurers, each, share = int(READ * cpus), int(MEASURE * cpus), HEAVY, 0.0
    readers, measurers = max(1, readers), max(1, measurers)
    widest = HEAVY * readers + each * measurers + 2 * LIGHT
    shrink = min(1.0, SPARE * cpus / widest)
    if not gpus:
        shrink = min(shrink, SPARE * node_cpus / (2 * HEAVY + 2 * LIGHT))
    memory = min(READ_MEMORY, int(resources.get("memory", 0) / (2 * readers)))
    there = {"resources": {READER: PER_READER}} if resources.get(READER) else {}
    shared = {"runtime_env": {"env_vars": dict(environment)}} if environment else {}
    return Placement(
        read=_actors(readers, num_cpus=HEAVY * shrink, memory=memory) | there | shared,
        measure=_actors(measurers, num_cpus=each * shrink, num_gpus=share) | shared,
        light=_actors(max(1, readers // READERS_PER_LIGHT), num_cpus=LIGHT * shrink) | shared,
        readers=readers,
    )


def _actors(most: int, **claims: float) -> Kwargs:
    """A pool of 1 to `most` actors; claims of 0 are left out."""
    pool = ActorPoolStrategy(min_size=1, max_size=most)
    return {"compute": pool} | {name: round(value, 3) for name, value in claims.items() if value}


def tune(context: DataContext) -> None:
    """Let Ray Data return rows in any order, end a stalled run, and never drop a block."""
    context.execution_options.preserve_order = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_S
    context.max_errored_blocks = 0
