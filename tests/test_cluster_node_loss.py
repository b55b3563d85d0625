"""A real screening on a cluster that loses a node in the middle: one row for every picture."""

import subprocess
from pathlib import Path

import clusters
import psutil
import pyarrow.dataset as ds
import pytest
from clusters import Head
from test_models_bundle import tiny_bundle

from fundus.datasets.synthetic import write_archive
from fundus.ledger import current
from fundus.models import bundle as bundles
from fundus.storage.places import open_place
from fundus.synthetic.camera import clinic, hospital

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PICTURES = 120


def kill_node(node: subprocess.Popen) -> None:
    """SIGKILL of a node with its raylet and all that runs on it, as when its plug is pulled."""
    process = psutil.Process(node.pid)
    for one in [*process.children(recursive=True), process]:
        one.kill()


def screen(head: Head, archive: Path, results: Path, bundle: Path) -> subprocess.Popen:
    words = ["--archive", str(archive), "--results", str(results), "--bundle", str(bundle)]
    return subprocess.Popen(
        [str(clusters.ROOT / "jobs/screen.py"), *words, "--roi", "--gradability", "off"],
        env=head.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_node_is_lost_and_no_row_is_missing_or_twice(tmp_path: Path) -> None:
    archive, results, bundle = tmp_path / "archive", tmp_path / "results", tmp_path / "bundle"
    frames = write_archive(archive, (clinic(), hospital()), count=3, seed=1)
    for number in range(PICTURES):
        source = archive / frames[number % len(frames)].path
        (archive / f"again-{number:03d}{source.suffix}").hardlink_to(source)
    bundles.save(tiny_bundle(), bundle)
    with clusters.head() as head, head.worker(cpus=2), head.worker(cpus=2) as lost:
        job = screen(head, archive, results, bundle)
        clusters.wait(lambda: [*results.glob("runs/*/staged/*.parquet")], 400, "the first rows")
        assert job.poll() is None, "it was over before"
        kill_node(lost)
        said, _ = job.communicate(timeout=400)
    assert job.returncode == 0, said
    found, _ = current.read(open_place(str(results)))
    rows = ds.dataset([str(results / file.path) for file in found.files]).to_table(
        ["uri", "status"]
    )
    assert rows.num_rows == PICTURES + len(frames)
    assert len(set(rows["uri"].to_pylist())) == rows.num_rows
    assert set(rows["status"].to_pylist()) == {"ok"}
