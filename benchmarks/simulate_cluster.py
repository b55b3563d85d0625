#!/usr/bin/env python
"""Check `jobs/plan.py` against Ray Data itself: up to 64 nodes, simulated on one machine.

    python benchmarks/simulate_cluster.py --rates rates.json --nodes 16 32 64

Of four nodes, three are CPU nodes with --cores readers each and one has a GPU. In each stage, one
process with as many threads as four nodes have slots stands for these nodes. Every stage sleeps for
its measured seconds times --slower, since one machine runs the processes of all nodes. So only Ray
is measured: its scheduling, queues, pools and driver. Prints, for each count of nodes, the
predicted and the simulated seconds, and the memory of GCS, raylet and driver in megabytes.

With --idle, the stages do nothing, in tasks of as many pictures as in screening. Prints the
pictures per second that one driver can hand out; no plan may exceed this rate.

With --raylets, real nodes without pictures. Prints the memory of the head with so many nodes, and
how many empty tasks per second it hands out to sixteen of them.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import ray
from ray.cluster_utils import Cluster
from ray.data import ActorPoolStrategy, DataContext

from fundus.cluster.sizing import Pool, Rates, predict, read_rates
from fundus.screening.pipeline import ROWS_PER_TASK
from fundus.screening.placement import tune

BATCH = 4
GPU_SPEED = 12
"""Cores that a GPU replaces, chosen to keep both pools busy, so that neither hides the other."""
NODES_PER_PROCESS = 4
"""A small machine takes minutes to start more than sixty processes."""
BATCHES_PER_READER = 12
"""Enough that filling and draining the chain weigh little, few enough to end within minutes."""


class Sleep:
    """A stage that takes `seconds` per picture."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(self.seconds * len(batch["id"]))
        return batch


def pool(nodes: int, threads: int) -> dict[str, Any]:
    """Return the options of a stage with one process, on one CPU, per `NODES_PER_PROCESS` nodes."""
    size = math.ceil(nodes / NODES_PER_PROCESS)
    threads *= nodes // size
    strategy = ActorPoolStrategy(
        size=size,
        max_concurrent_calls_per_actor=threads,
        max_tasks_in_flight_per_actor=threads + 2,
        enable_true_multi_threading=threads > 1,
    )
    return {"compute": strategy, "num_cpus": 1, "batch_size": BATCH}


def simulate(
    pictures: int, rates: Rates, cpu: Pool, gpu: Pool, task: int = BATCH
) -> tuple[float, float]:
    """Return the seconds to the first row, and to the last one."""
    slices = [pa.table({"id": range(i, min(i + task, pictures))}) for i in range(0, pictures, task)]
    rows = (
        ray.data.from_blocks(slices)
        .map_batches(Sleep, fn_constructor_args=(rates.reading,), **pool(cpu.nodes, cpu.slots))
        .map_batches(Sleep, fn_constructor_args=(rates.segment,), **pool(gpu.nodes, GPU_SPEED))
    )
    start, first, count = time.monotonic(), 0.0, 0
    for batch in rows.iter_batches(batch_size=None):
        first = first or time.monotonic() - start
        count += len(batch["id"])
    if count != pictures:
        raise RuntimeError(f"{count} rows of {pictures} pictures")
    return first, time.monotonic() - start


def compare(nodes: int, rates: Rates, cores: int) -> dict[str, Any]:
    """Return predicted and simulated seconds on `nodes` nodes, three of four without a GPU."""
    cpu, gpu = Pool(nodes * 3 // 4, cores), Pool(nodes - nodes * 3 // 4, 1)
    # The measure stage, on the cores of the GPU nodes, is not simulated.
    rates = replace(rates, measure=0)
    pictures = cpu.nodes * cores * BATCHES_PER_READER * BATCH
    first, simulated = simulate(pictures, rates, cpu, gpu)
    plan = predict(pictures, rates, cpu, gpu, gpu_speed=GPU_SPEED, start_hours=first / 3600)
    predicted = plan.hours * 3600
    return {
        "nodes": nodes,
        "pictures": pictures,
        "bound_by": plan.bound_by,
        "first_row_s": round(first, 1),
        "predicted_s": round(predicted, 1),
        "simulated_s": round(simulated, 1),
        # Without the start, which is measured and not predicted.
        "error": round((simulated - first) / (predicted - first) - 1, 3),
    }


def handed_out(nodes: int, rates: Rates, cores: int) -> dict[str, Any]:
    """Return pictures per second through stages that take no time: the limit of the driver."""
    cpu, gpu = Pool(nodes * 3 // 4, cores), Pool(nodes - nodes * 3 // 4, 1)
    pictures = cpu.nodes * cores * BATCHES_PER_READER * ROWS_PER_TASK
    nothing = replace(rates, read=0, locate=0, crop=0, measure=0, segment=1e-6)
    first, last = simulate(pictures, nothing, cpu, gpu, ROWS_PER_TASK)
    return {
        "nodes": nodes,
        "pictures": pictures,
        "pictures_per_second": round(pictures / (last - first)),
    }


def tasks_per_second(count: int) -> float:
    """Return the rate of empty tasks on workers that have started."""

    @ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
    def nothing() -> None:
        return None

    ray.get([nothing.remote() for _ in range(count // 4)])
    start = time.monotonic()
    ray.get([nothing.remote() for _ in range(count)])
    return count / (time.monotonic() - start)


def memory(head: Any) -> dict[str, int]:
    """Return megabytes of the head's processes and of this driver."""
    sizes = {"driver": psutil.Process().memory_info().rss}
    for kind in ("gcs_server", "raylet"):
        pids = [info.process.pid for info in head.all_processes.get(kind, [])]
        sizes[kind] = sum(psutil.Process(pid).memory_info().rss for pid in pids)
    return {f"{name}_mb": round(size / 1e6) for name, size in sizes.items()}


def on_one_raylet(
    work: Callable[[int, Rates, int], dict[str, Any]], nodes: int, rates: Rates, cores: int
) -> dict[str, Any]:
    ray.init(
        # A CPU for each process and a few more: Ray Data's own small tasks take all free CPUs.
        num_cpus=nodes // 2 + 4,
        object_store_memory=200 << 20,
        log_to_driver=False,
        logging_level="ERROR",
        include_dashboard=False,
        # No idle process per CPU: the stages start enough processes.
        _system_config={"prestart_worker_first_driver": False},
    )
    try:
        context = DataContext.get_current()
        tune(context)
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        figures = work(nodes, rates, cores)
        return figures | memory(ray._private.worker._global_node)
    finally:
        ray.shutdown()


def on_real_raylets(nodes: int) -> dict[str, Any]:
    """Start a head and `nodes` nodes; only the first sixteen have a CPU, to spare the machine."""
    store = 80 << 20
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": store}
    )
    try:
        for number in range(nodes):
            cpus = 1 if number < 16 else 0
            cluster.add_node(num_cpus=cpus, object_store_memory=store, wait=False)
        cluster.wait_for_nodes(timeout=600)
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        rate = tasks_per_second(2000)
        return {"raylets": nodes, "tasks_per_second": round(rate)} | memory(cluster.head_node)
    finally:
        ray.shutdown()
        cluster.shutdown()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rates", type=Path, required=True, help="output of benchmarks/stages.py")
    parser.add_argument("--nodes", type=int, nargs="*", default=[])
    parser.add_argument("--idle", type=int, nargs="*", default=[])
    parser.add_argument("--raylets", type=int, nargs="*", default=[])
    parser.add_argument("--cores", type=int, default=4, help="readers per CPU node")
    parser.add_argument("--slower", type=float, default=20, help="factor on the measured seconds")
    args = parser.parse_args(arguments)
    rates = read_rates(args.rates.read_text())
    names = ("read", "locate", "crop", "segment", "measure")
    rates = replace(rates, **{name: getattr(rates, name) * args.slower for name in names})
    for nodes in args.nodes:
        print(json.dumps(on_one_raylet(compare, nodes, rates, args.cores)), flush=True)
    for nodes in args.idle:
        print(json.dumps(on_one_raylet(handed_out, nodes, rates, args.cores)), flush=True)
    for nodes in args.raylets:
        print(json.dumps(on_real_raylets(nodes)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
