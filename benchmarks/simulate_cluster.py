#!/usr/bin/env python
"""Check `jobs/plan.py` against Ray Data itself: up to 64 nodes, simulated on one machine.

    python benchmarks/simulate_cluster.py --rates rates.json --nodes 16 32 64

Three nodes of four are CPU nodes with --cores readers, one has a GPU. Four nodes' share of a stage
is one process of as many threads as they have slots, and every stage sleeps for its measured
seconds, stretched by --slower, since one machine runs the processes of all nodes. So no CPU is
measured, but Ray: its scheduling, queues, pools and driver. Prints, for each count of nodes, the
predicted and the simulated seconds, and the memory of GCS, raylet and driver in megabytes.

With --idle, stages that do nothing on so many nodes, in tasks of as many pictures as screening has:
the pictures a second that one driver can hand out, which no plan may exceed.

With --raylets, real nodes without pictures: the head's memory beside so many, and how many empty
tasks a second it hands out to sixteen of them.
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
"""Cores that a GPU stands for, about what keeps both pools busy: neither hides the other."""
NODES_PER_PROCESS = 4
"""This machine takes minutes to start more than sixty processes."""
BATCHES_PER_READER = 12
"""Enough that filling and draining the chain weigh little, few enough for a few minutes."""


class Sleep:
    """A stage of so many seconds a picture."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(self.seconds * len(batch["id"]))
        return batch


def pool(nodes: int, threads: int) -> dict[str, Any]:
    """One process for `NODES_PER_PROCESS` nodes of so many threads; it claims but a place."""
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
    """Seconds to the first row, and to the last one."""
    slices = [pa.table({"id": range(i, min(i + task, pictures))}) for i in range(0, pictures, task)]
    rows = (
        ray.data.from_arrow(slices)
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
    """Predicted and simulated seconds on so many nodes, three of four without a GPU."""
    cpu, gpu = Pool(nodes * 3 // 4, cores), Pool(nodes - nodes * 3 // 4, 1)
    # What a GPU's node measures on its cores is no stage here.
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
        # Of the work alone: the start is measured, not predicted.
        "error": round((simulated - first) / (predicted - first) - 1, 3),
    }


def handed_out(nodes: int, rates: Rates, cores: int) -> dict[str, Any]:
    """Pictures a second through stages that take no time: what the driver alone can do."""
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
    """Empty tasks, workers warm."""

    @ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
    def nothing() -> None:
        return None

    ray.get([nothing.remote() for _ in range(count // 4)])
    start = time.monotonic()
    ray.get([nothing.remote() for _ in range(count)])
    return count / (time.monotonic() - start)


def memory(head: Any) -> dict[str, int]:
    """Megabytes of the head's processes and of this driver."""
    sizes = {"driver": psutil.Process().memory_info().rss}
    for kind in ("gcs_server", "raylet"):
        pids = [info.process.pid for info in head.all_processes.get(kind, [])]
        sizes[kind] = sum(psutil.Process(pid).memory_info().rss for pid in pids)
    return {f"{name}_mb": round(size / 1e6) for name, size in sizes.items()}


def on_one_raylet(
    work: Callable[[int, Rates, int], dict[str, Any]], nodes: int, rates: Rates, cores: int
) -> dict[str, Any]:
    ray.init(
        # A place for each process and a few more: Ray Data's own small tasks take all they find.
        num_cpus=nodes // 2 + 4,
        object_store_memory=200 << 20,
        log_to_driver=False,
        logging_level="ERROR",
        include_dashboard=False,
        # No idle process for each CPU: those of the stages are many enough.
        _system_config={"prestart_worker_first_driver": False},
    )
    try:
        context = DataContext.get_current()
        tune(context)
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        found = work(nodes, rates, cores)
        return found | memory(ray._private.worker._global_node)
    finally:
        ray.shutdown()


def on_real_raylets(nodes: int) -> dict[str, Any]:
    """A head beside so many nodes; only the first sixteen have a CPU, to spare this machine."""
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
    parser.add_argument("--rates", type=Path, required=True, help="of benchmarks/stages.py")
    parser.add_argument("--nodes", type=int, nargs="*", default=[])
    parser.add_argument("--idle", type=int, nargs="*", default=[])
    parser.add_argument("--raylets", type=int, nargs="*", default=[])
    parser.add_argument("--cores", type=int, default=4, help="readers of a CPU node")
    parser.add_argument("--slower", type=float, default=20, help="factor on the seconds")
    given = parser.parse_args(arguments)
    rates = read_rates(given.rates.read_text())
    names = ("read", "locate", "crop", "segment", "measure")
    rates = replace(rates, **{name: getattr(rates, name) * given.slower for name in names})
    for nodes in given.nodes:
        print(json.dumps(on_one_raylet(compare, nodes, rates, given.cores)), flush=True)
    for nodes in given.idle:
        print(json.dumps(on_one_raylet(handed_out, nodes, rates, given.cores)), flush=True)
    for nodes in given.raylets:
        print(json.dumps(on_real_raylets(nodes)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
