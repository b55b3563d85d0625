"""Workers come and go: training uses those that exist, and survives an announced loss."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from fundus.runtime.workers import Workers
from fundus.training import loop

pytestmark = pytest.mark.cluster

EPOCHS, STEPS = 12, 20
NOTICED = "this machine will be taken away: writing a checkpoint after step"


class Counting:
    """Counts its steps; each takes a moment."""

    seed = 0

    def __init__(self) -> None:
        self.network = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(self.network.weight)
        self.stateful = {"network": self.network}
        self.world = ray.train.get_context().get_world_size()

    def batches(self, epoch: int) -> Iterator[int]:
        yield from range(STEPS)

    def step(self, batch: int) -> dict[str, float]:
        time.sleep(0.05)
        with torch.no_grad():
            self.network.weight += 1
        return {"loss": 0.0}

    def validate(self) -> dict[str, float]:
        return {"world": float(self.world)}


@pytest.fixture
def cluster() -> Iterator[tuple[Cluster, Any]]:
    """A cluster on this machine: a head with one CPU, and a second node with another."""
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        yield machines, machines.add_node(num_cpus=1)
    finally:
        machines.shutdown()


def test_training_survives_the_announced_loss_of_a_machine(
    cluster: tuple[Cluster, Any], tmp_path: Path
) -> None:
    machines, second = cluster
    log = tmp_path / "log"
    with log.open("w") as out:
        # A process of its own: this one may use another Ray cluster.
        training = subprocess.Popen(
            [sys.executable, __file__, machines.address, str(tmp_path)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20"},
        )
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("t/checkpoint_*")):
            assert training.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        drain(machines.address, second.node_id)
        deadline = time.monotonic() + 60
        while NOTICED not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.2)
        machines.remove_node(second, allow_graceful=False)
        assert training.wait(timeout=240) == 0, log.read_text()
    finally:
        training.kill()
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["epoch"] for row in found["history"]] == list(range(1, EPOCHS + 1))
    worlds = [row["world"] for row in found["history"]]
    assert worlds[0] == 2 and worlds[-1] == 1, worlds
    assert NOTICED in log.read_text()
    assert found["weight"] == EPOCHS * STEPS, "steps lost or done twice"


def drain(address: str, node: str) -> None:
    """Announce the end of a machine, as a cloud does with a spot instance."""
    command = [
        *(str(Path(sys.executable).with_name("ray")), "drain-node", "--address", address),
        *("--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION"),
        *("--reason-message", "spot", "--deadline-remaining-seconds", "90"),
    ]
    subprocess.run(command, check=True, env=os.environ, capture_output=True)


if __name__ == "__main__":
    address, storage = sys.argv[1:]
    ray.init(address=address)
    state, history = loop.fit(
        Counting, EPOCHS, name="t", storage=Path(storage), workers=Workers(1, 2, cpus=0.9)
    )
    weight = state["network"]["weight"].item()
    (Path(storage) / "found.json").write_text(json.dumps({"history": history, "weight": weight}))
