"""Real jobs on a cluster that loses a node midway: every row comes once, and training completes.

All are slow. Of the quick tests, tests/test_cluster_autoscaling.py kills a node during screening's
stages, and tests/test_training_elastic.py one during training.
"""

import subprocess
from pathlib import Path

import clusters
import pytest
import torch
from clusters import Head
from test_models_bundle import tiny_bundle

from fundus.datasets.synthetic import write_archive
from fundus.ledger import table
from fundus.models import bundle as bundles
from fundus.synthetic.camera import clinic, hospital

pytestmark = pytest.mark.cluster

PICTURES = 120
POOLS = {
    "cpu": {"resources": {"CPU": 2}, "max_workers": 1},
    "gpu": {"resources": {"CPU": 1, "GPU": 1}, "max_workers": 2},
}

TRAINING = {"cpu": {"resources": {"CPU": 1}, "max_workers": 2}}

ATTEMPTS = """
import time
import ray
from fundus.screening import attempts

ray.init()
while len(ray.nodes()) < 2:
    time.sleep(0.2)
node = lambda actor: ray.get_runtime_context().get_node_id()
started = [attempts.shared() for _ in range(6)]
nodes = set(ray.get([one.__ray_call__.remote(node) for one in started]))
assert nodes == {ray.get_runtime_context().get_node_id()}, "the record of attempts is elsewhere"
"""
"""Checks that the record is on the driver's node: six times, as without affinity it is random."""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """PICTURES drawn eyes, only a few of them different."""
    folder = tmp_path / "archive"
    frames = write_archive(folder, (clinic(), hospital()), count=3, seed=1)
    for number in range(PICTURES - len(frames)):
        source = folder / frames[number % len(frames)].path
        (folder / f"again-{number:03d}{source.suffix}").hardlink_to(source)
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    bundles.save(tiny_bundle(), tmp_path / "bundle")
    return tmp_path / "bundle"


def job(head: Head, name: str, *words: object, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [str(clusters.ROOT / "jobs" / name), *map(str, words)],
        env=head.env | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def screening(head: Head, archive: Path, bundle: Path, **env: str) -> subprocess.Popen:
    """Start a screening, and return it when it has staged its first rows and has more to do."""
    results = bundle.parent / "results"
    words = ("--archive", archive, "--results", results, "--bundle", bundle, "--precropped")
    started = job(head, "screen.py", *words, "--gradability", "off", **env)
    clusters.wait(lambda: [*results.glob("rows/*/*.parquet")], 400, "the first rows")
    assert started.poll() is None, "it ended too early"
    return started


def check_whole(started: subprocess.Popen, results: Path) -> None:
    """Check that the screening succeeds and every picture has one row."""
    output, _ = started.communicate(timeout=400)
    assert started.returncode == 0, output
    rows = table.read(str(results), ["uri", "status"])
    assert rows.num_rows == PICTURES
    assert len(set(rows["uri"].to_pylist())) == PICTURES
    assert set(rows["status"].to_pylist()) == {"ok"}


@pytest.mark.slow
def test_screening_survives_the_loss_of_an_autoscaled_gpu_node(archive: Path, bundle: Path) -> None:
    with clusters.head(pools=POOLS) as head:
        started = screening(head, archive, bundle, FUNDUS_GROWS_TO="CPU=4 GPU=2")
        clusters.kill(clusters.a_node(head.folder, "GPU,1"))
        check_whole(started, bundle.parent / "results")


@pytest.mark.slow
def test_screening_survives_a_cut_link_to_a_host(archive: Path, bundle: Path) -> None:
    with (
        clusters.host() as host,
        clusters.head(cpus=2, token="word-of-this-cluster" * 2) as head,
        head.worker(cpus=2, host=host),
    ):
        driver = head.driver(ATTEMPTS)
        output, _ = driver.communicate(timeout=120)
        assert driver.returncode == 0, output
        started = screening(head, archive, bundle)
        host.cut()
        check_whole(started, bundle.parent / "results")


def checkpoints(runs: Path) -> list[Path]:
    return sorted(runs.glob("*/checkpoint_*/state.pt"))


def history(checkpoint: Path) -> list[dict[str, float]]:
    return torch.load(checkpoint, weights_only=True)["history"]


@pytest.mark.slow
def test_adaptation_survives_the_loss_of_an_autoscaled_node(bundle: Path) -> None:
    runs = bundle.parent / "runs"
    words = ("--bundle", bundle, "--to", bundle.parent / "adapted", "--storage", runs)
    words += ("--source", "synthetic:?camera=clinic&count=16&seed=1")
    words += ("--target", "synthetic:?camera=hospital&count=16&seed=2", "--precropped")
    words += ("--workers", "1-2", "--change", "epochs=6", "--change", "batch=4")
    # Epochs of some seconds: Ray Train learns of a checkpoint up to two seconds after it was
    # written, and begins anew if the node is lost before.
    words += ("--change", "draws=256")
    with clusters.head(pools=TRAINING, idle_minutes=1) as head:
        settings = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20", "FUNDUS_GROWS_TO": "CPU=2"}
        started = job(head, "adapt.py", *words, **settings)
        clusters.wait(lambda: len(checkpoints(runs)) == 2, 300, "two checkpoints")
        assert started.poll() is None, "it ended too early"
        before = history(checkpoints(runs)[0])
        clusters.kill(clusters.a_node(head.folder, "CPU,1,"))
        output, _ = started.communicate(timeout=400)
    assert started.returncode in (0, 4), output
    assert "the gate, after 6 epochs" in output
    after = history(checkpoints(runs)[-1])
    assert after[: len(before)] == before, "it restarted"
