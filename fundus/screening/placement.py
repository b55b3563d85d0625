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
READ = 0.9
"""Readers per CPU without GPUs, rounded up. On large machines the rest is for light actors."""
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
"""Bytes: a decoding child with a frame of 12 megapixels, eight working frames and the maps of eight
eyes take less."""
NO_PROGRESS_S = 20 * 60
"""Seconds without progress after which Ray Data gives up. A node may take ten minutes to start."""

Kwargs = dict[str, Any]
"""Arguments of `Dataset.map_batches`."""


@dataclass(frozen=True)
class Placement:
    """Arguments of Ray Data for each stage, without the batch size."""

    read: Kwargs
    """Fetch, decode, assess gradability, find the disc, crop; without GPUs also segment and
    measure, so that each CPU is busy whatever the share of each stage."""
    measure: Kwargs | None
    """Segment and measure on GPUs; None if there are none."""
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
    waits for ever. Without GPUs one reader and two light actors also fit on the smallest node: if
    it is the last one left, the run continues there.

    Args:
        resources: CPU, GPU, memory and `READER` of `fundus.runtime.resources.reachable`.
        environment: variables for the processes of the stages, see `fundus.runtime.logs.name_run`.
        node_cpus: CPUs of the smallest node, see `fundus.runtime.resources.smallest_node`.
    """
    cpus = max(1, int(resources.get("CPU", 0)))
    gpus = int(resources.get("GPU", 0))
    measurers = MEASURE_PER_GPU * gpus
    if gpus:
        readers = max(1, int(READ_FOR_GPUS * (cpus - BESIDE_A_GPU * measurers)))
    else:
        readers = math.ceil(READ * cpus)
    widest = HEAVY * readers + BESIDE_A_GPU * measurers + 2 * LIGHT
    shrink = min(1.0, SPARE * cpus / widest)
    if not gpus:
        shrink = min(shrink, SPARE * node_cpus / (HEAVY + 2 * LIGHT))
    memory = min(READ_MEMORY, int(resources.get("memory", 0) / (2 * readers)))
    there = {"resources": {READER: PER_READER}} if resources.get(READER) else {}
    shared = {"runtime_env": {"env_vars": dict(environment)}} if environment else {}
    beside = {"num_cpus": BESIDE_A_GPU * shrink, "num_gpus": GPU_SHARE}
    return Placement(
        read=_actors(readers, num_cpus=HEAVY * shrink, memory=memory) | there | shared,
        measure=_actors(measurers, **beside) | shared if gpus else None,
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
