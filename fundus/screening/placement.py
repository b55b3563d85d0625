"""Where each stage of screening runs: what it claims of a node, and how wide it may grow.

One rule for a laptop and for 40 GPUs. Claims are what a stage uses, since the autoscaler starts
nodes by claims; bounds come from what the cluster may grow to, not from what is up at the start.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

GIB = 1 << 30
GROWS_TO = "FUNDUS_GROWS_TO"

DECODE, MODEL, MODEL_ON_GPU, CROP, MEASURE, WRITE = 1.0, 1.0, 0.5, 0.1, 0.5, 0.1
"""CPUs in use while a stage works, measured by `benchmarks/stages.py`; a GPU does a model's rest."""
GPU_SHARE = 0.25
"""Of a GPU, for either model. One share for both: whatever mixture meets on a GPU fills it."""
LOCATE_GPUS, SEGMENT_GPUS = 1, 3
"""Actors a GPU, at most: together one whole GPU."""
LOCATE_CPUS, SEGMENT_CPUS = 0.3, 0.45
"""Actors a CPU, at most, without GPUs: a quarter is left to the tasks. Measured 3 : 4 a picture."""
SPARE = 0.9
"""Share of a small machine that one of each stage may claim: the rest is for tasks that list."""
DECODE_MEMORY = GIB
"""Bytes: four frames of 12 megapixels, decoded twice over in a child, take 0.4 GiB."""
NO_PROGRESS_S = 20 * 60
"""Ray Data gives up then. A node of a pool that was at zero may take ten minutes to come."""


@dataclass(frozen=True)
class Stage:
    """What one stage asks of Ray Data."""

    cpus: float
    most: int
    """Tasks or actors at once."""
    actors: bool = False
    gpus: float = 0.0
    memory: float = 0.0
    """Bytes claimed; 0 claims none."""

    def kwargs(self) -> dict[str, Any]:
        """For `Dataset.map_batches`; the batch size stays the caller's."""
        if self.actors:
            compute: Any = ActorPoolStrategy(min_size=1, max_size=self.most)
        else:
            compute = TaskPoolStrategy(size=self.most)
        claims = {"num_gpus": self.gpus or None, "memory": self.memory or None}
        return {"compute": compute, "num_cpus": self.cpus} | {k: v for k, v in claims.items() if v}


@dataclass(frozen=True)
class Placement:
    """Every stage of the chain, in its order."""

    decode: Stage
    locate: Stage
    crop: Stage
    segment: Stage
    measure: Stage
    write: Stage


def reachable() -> dict[str, float]:
    """CPU, GPU and memory of the running Ray, or what FUNDUS_GROWS_TO says that it may grow to.

    A head of no CPUs whose pools are at zero tells nothing of what will come, and no autoscaler
    says it to a driver (Ray 2.60): cluster.yaml sets the variable, "CPU=128 GPU=4", from its pools.
    """
    now = ray.cluster_resources()
    grown = amounts(os.environ.get(GROWS_TO, ""))
    return {name: max(now.get(name, 0), grown.get(name, 0)) for name in ("CPU", "GPU", "memory")}


def amounts(text: str) -> dict[str, float]:
    """ "CPU=128 GPU=4" by name; ValueError, naming the variable, where it is not so."""
    try:
        pairs = [word.split("=") for word in text.split()]
        return {name: float(amount) for name, amount in pairs}
    except ValueError:
        raise ValueError(f'{GROWS_TO} is "{text}", not like "CPU=128 GPU=4"') from None


def placement(resources: Mapping[str, float], tasks: int) -> Placement:
    """The stages' claims and bounds on these resources (`reachable`) for so many decode tasks.

    One of each stage fits at once, on however small a machine: nothing waits for ever.
    """
    cpus = max(1, int(resources.get("CPU", 0)))
    gpus = int(resources.get("GPU", 0))
    model = MODEL_ON_GPU if gpus else MODEL
    each = DECODE + 2 * model + CROP + MEASURE + WRITE
    shrink = min(1.0, SPARE * cpus / each)
    wide = max(1, min(cpus, tasks))

    def task(claim: float) -> Stage:
        return Stage(cpus=round(claim * shrink, 2), most=wide)

    def actor(a_gpu: int, a_cpu: float) -> Stage:
        most = max(1, min(tasks, gpus * a_gpu if gpus else int(cpus * a_cpu)))
        share = GPU_SHARE if gpus else 0.0
        return Stage(cpus=round(model * shrink, 2), most=most, actors=True, gpus=share)

    memory = min(DECODE_MEMORY, int(resources.get("memory", 0) / (2 * wide)))
    return Placement(
        decode=Stage(round(DECODE * shrink, 2), most=wide, actors=True, memory=memory),
        locate=actor(LOCATE_GPUS, LOCATE_CPUS),
        crop=task(CROP),
        segment=actor(SEGMENT_GPUS, SEGMENT_CPUS),
        measure=task(MEASURE),
        write=task(WRITE),
    )


def tune(context: DataContext) -> None:
    """Rows in whatever order they come, a stall ends the run, and no block is ever dropped."""
    context.execution_options.preserve_order = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_S
    context.max_errored_blocks = 0
