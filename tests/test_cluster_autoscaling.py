"""Placement on a cluster that Ray's own autoscaler grows from zero nodes.

Nodes are raylets on this machine, GPUs are logical, and stages sleep. The test checks that nodes
are requested and granted, and that a lost node is replaced. While the file `hold` exists, only the
first third of the rows leaves the models, so that the work lasts until the requested nodes start.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import clusters
import pytest

pytestmark = pytest.mark.cluster

MEMORY = 4 << 30
POOLS = {
    "cpu": {"resources": {"CPU": 2, "memory": MEMORY, "reader": 1}, "max_workers": 1},
    "gpu": {"resources": {"CPU": 2, "GPU": 1, "memory": MEMORY}, "max_workers": 2},
}
GROWS_TO = f"CPU=6 GPU=2 memory={3 * MEMORY} reader=1"
ROWS, SLICE = 60, 2

CHAIN = """
import json, pathlib, threading, time
import numpy as np, pyarrow as pa, ray
from fundus.runtime.resources import reachable
from fundus.screening.placement import placement, tune

ray.init(log_to_driver=False, logging_level="ERROR")
began = time.monotonic()

def report(**facts):
    print(json.dumps(facts | {"at": time.monotonic() - began}), flush=True)

def watch():
    last = None
    while True:
        found = ray.cluster_resources()
        nodes = len({path.stem for path in pathlib.Path(FOLDER).glob("*.model")})
        now = {"cpus": found.get("CPU", 0), "gpus": found.get("GPU", 0), "nodes": nodes}
        if now != last:
            report(**now)
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
    def __init__(self):
        here = ray.get_runtime_context().get_node_id()
        pathlib.Path(FOLDER, here + ".model").touch()
    def __call__(self, batch):
        time.sleep(0.3)
        while min(batch["id"]) >= ROWS // 3 and pathlib.Path(FOLDER, "hold").exists():
            time.sleep(0.1)
        return batch

class Same:
    def __call__(self, batch):
        return batch

threading.Thread(target=watch, daemon=True).start()
context = ray.data.DataContext.get_current()
tune(context)
context.enable_progress_bars = False
stages = placement(reachable())
report(most=stages.measure["compute"].max_size)
slices = [pa.table({"id": range(i, i + SLICE)}) for i in range(0, ROWS, SLICE)]
chain = (
    ray.data.from_arrow(slices)
    .map_batches(Read, batch_size=2, **stages.read)
    .map_batches(Model, batch_size=2, **stages.measure)
    .map_batches(Same, batch_size=2, **stages.light)
)
rows = []
for row in chain.iter_rows():
    rows.append(row)
    if len(rows) == 1:
        report(began=True)
report(ids=sorted(row["id"] for row in rows), read_beside_gpus=sum(row["gpus"] for row in rows))
time.sleep(60)
"""


def reports(driver: subprocess.Popen, seen: list[dict]) -> Iterator[dict]:
    """Yield the driver's reports and append them to `seen`; other lines go into the error."""
    assert driver.stdout is not None
    other = []
    for line in driver.stdout:
        if line.startswith("{"):
            seen.append(json.loads(line))
            yield seen[-1]
        else:
            other.append(line)
    raise AssertionError("the driver ended: " + "".join(other[-30:]))


def test_pools_grow_lose_a_node_and_shrink_with_every_row_once(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    script = f"ROWS, SLICE, FOLDER = {ROWS}, {SLICE}, {str(tmp_path)!r}\n" + CHAIN
    seen: list[dict] = []
    with clusters.head(pools=POOLS, idle_minutes=0.2) as head:
        driver = head.driver(script, FUNDUS_GROWS_TO=GROWS_TO)
        try:
            incoming = reports(driver, seen)
            next(report for report in incoming if "began" in report)
            next(report for report in incoming if report.get("nodes") == 2)
            clusters.a_node(head.folder, "GPU,1").kill()
            next(report for report in incoming if report.get("nodes") == 3)
            hold.unlink()
            end = next(report for report in incoming if "ids" in report)
            next(report for report in incoming if report.get("gpus") == 0)
        finally:
            driver.kill()
    assert end["ids"] == list(range(ROWS))
    assert end["read_beside_gpus"] == 0
    assert {"most": 8}.items() <= next(r for r in seen if "most" in r).items()
    assert next(report["gpus"] for report in seen if "gpus" in report) == 0
