"""Placement on a cluster that starts from zero nodes, which Ray's own autoscaler grows.

Nodes are raylets of this machine, GPUs logical, stages sleep: what is tried is who asks for nodes,
gets them and loses one.
"""

import json
import subprocess
from collections.abc import Iterator
from itertools import groupby

import clusters
import pytest

pytestmark = pytest.mark.cluster

MEMORY = 4 << 30
POOLS = {
    "cpu": {"resources": {"CPU": 2, "memory": MEMORY, "reader": 1}, "max_workers": 2},
    "gpu": {"resources": {"CPU": 2, "GPU": 1, "memory": MEMORY}, "max_workers": 2},
}
GROWS_TO = f"CPU=8 GPU=2 memory={4 * MEMORY} reader=2"
ROWS, SLICES = 160, 40

CHAIN = """
import json, threading, time
import numpy as np, pyarrow as pa, ray
from fundus.runtime.resources import reachable
from fundus.screening.placement import placement, tune

ray.init(log_to_driver=False, logging_level="ERROR")
began = time.monotonic()

def say(**what):
    print(json.dumps(what | {"at": time.monotonic() - began}), flush=True)

def watch():
    last = None
    while True:
        found = ray.cluster_resources()
        now = [found.get("CPU", 0), found.get("GPU", 0)]
        if now != last:
            say(cpus=now[0], gpus=now[1])
        last = now
        time.sleep(0.3)

class Read:
    def __init__(self):
        here = ray.get_runtime_context().get_node_id()
        [node] = [one for one in ray.nodes() if one["NodeID"] == here]
        self.gpus = node["Resources"].get("GPU", 0)
    def __call__(self, batch):
        time.sleep(0.2)
        count = len(batch["id"])
        images = np.zeros((count, 100, 100), np.uint8)
        return batch | {"image": images, "gpus": [self.gpus] * count}

class Model:
    def __init__(self, seconds):
        self.seconds = seconds
    def __call__(self, batch):
        time.sleep(self.seconds)
        return batch

def same(batch):
    return batch

threading.Thread(target=watch, daemon=True).start()
context = ray.data.DataContext.get_current()
tune(context)
context.enable_progress_bars = False
stages = placement(reachable())
say(most=[stages.locate["compute"].max_size, stages.segment["compute"].max_size])
slices = [pa.table({"id": range(i, ROWS, SLICES)}) for i in range(SLICES)]
chain = (
    ray.data.from_arrow(slices)
    .map_batches(Read, batch_size=4, **stages.read)
    .map_batches(Model, fn_constructor_args=(0.1,), batch_size=4, **stages.locate)
    .map_batches(same, batch_size=4, **stages.light)
    .map_batches(Model, fn_constructor_args=(0.6,), batch_size=4, **stages.segment)
    .map_batches(same, batch_size=4, **stages.light)
)
rows = []
for row in chain.iter_rows():
    rows.append(row)
    if len(rows) == ROWS // 4:
        say(quarter=True)
say(ids=sorted(row["id"] for row in rows), read_beside_gpus=sum(row["gpus"] for row in rows))
time.sleep(60)
"""


def reports(driver: subprocess.Popen, seen: list[dict]) -> Iterator[dict]:
    """What the driver says, as it says it; kept in `seen`. Other lines are for the failure."""
    assert driver.stdout is not None
    other = []
    for line in driver.stdout:
        if line.startswith("{"):
            seen.append(json.loads(line))
            yield seen[-1]
        else:
            other.append(line)
    raise AssertionError("the driver ended: " + "".join(other[-30:]))


def test_pools_grow_from_zero_lose_a_node_and_go_back_with_every_row_once() -> None:
    script = f"ROWS, SLICES = {ROWS}, {SLICES}\n" + CHAIN
    seen: list[dict] = []
    with clusters.head(pools=POOLS) as head:
        driver = head.driver(script, FUNDUS_GROWS_TO=GROWS_TO)
        try:
            said = reports(driver, seen)
            next(report for report in said if "quarter" in report)
            clusters.a_node(head.folder, "GPU,1").kill()
            end = next(report for report in said if "ids" in report)
            next(report for report in said if report.get("gpus") == 0)
        finally:
            driver.kill()
    assert end["ids"] == list(range(ROWS))
    assert end["read_beside_gpus"] == 0
    assert {"most": [2, 6]}.items() <= next(r for r in seen if "most" in r).items()
    gpus = [count for count, _ in groupby(report["gpus"] for report in seen if "gpus" in report)]
    assert gpus[0] == 0 and gpus[-1] == 0
    killed = gpus.index(2)
    assert gpus[killed + 1] == 1 and 2 in gpus[killed + 2 :], f"no other node came: {gpus}"
