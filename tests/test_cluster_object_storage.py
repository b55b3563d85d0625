"""Adaptation and screening on a cluster whose machines share nothing but object storage."""

import re
import subprocess
import sys
from pathlib import Path

import clusters
import pytest
from clusters import Head
from s3_server import Server
from test_models_bundle import tiny_bundle

from fundus.datasets.public import open_set
from fundus.ledger import table
from fundus.models import bundle as bundles
from fundus.storage.places import open_place

pytestmark = [pytest.mark.cluster, pytest.mark.s3, pytest.mark.slow]

COUNT = 8


@pytest.fixture
def clinic(bucket: str) -> str:
    """A bucket of drawn pictures of a new camera, and a tiny bundle."""
    place = open_place(f"s3://{bucket}")
    for sample in open_set(f"synthetic:?camera=hospital&count={COUNT}&seed=2").samples:
        place.put(f"new-hospital/{sample.image.name}", sample.image.read_bytes())
    bundles.save(tiny_bundle(), f"s3://{bucket}/bundle")
    return f"s3://{bucket}"


def job(head: Head, folder: Path, name: str, *words: str) -> subprocess.CompletedProcess:
    """Run a job whose driver has its own home and temporary folder, as on another machine."""
    private = {"RAY_DEDUP_LOGS": "0"}
    for variable in ("HOME", "TMPDIR"):
        private[variable] = str(folder / variable)
        (folder / variable).mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, str(clusters.ROOT / "jobs" / name), *words],
        env=head.env | private,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def test_a_cluster_adapts_resumes_and_screens_from_object_storage(
    s3: Server, clinic: str, tmp_path: Path
) -> None:
    adapting = ("--bundle", f"{clinic}/bundle/", "--to", f"{clinic}/adapted")
    adapting += ("--storage", f"{clinic}/runs", "--target", f"folder:{clinic}/new-hospital")
    adapting += ("--source", "synthetic:?camera=clinic&count=8&seed=1", "--precropped")
    adapting += ("--change", "epochs=2", "--change", "batch=4", "--workers", "2")
    with clusters.head(cpus=0) as head, head.worker(cpus=2):
        first = job(head, tmp_path, "adapt.py", *adapting)
        output = first.stdout + first.stderr
        assert first.returncode == 4, output  # a tiny network draws no plausible shapes
        assert "the gate, after 2 epochs" in output and "epoch 1/2" in output
        loggers = set(re.findall(r"pid=(\d+)\b.* epoch 1/2 ", output))
        assert len(loggers) == 1, "only the first of the two workers logs"
        again = job(head, tmp_path, "adapt.py", *adapting)
        output = again.stdout + again.stderr
        assert again.returncode == 4, output
        assert "the gate, after 2 epochs" in output and "epoch 1/2" not in output, "it restarted"
        assert not [*tmp_path.glob("TMPDIR/fundus-*")], "the head has fetched the pictures"
        screening = ("--archive", f"{clinic}/new-hospital", "--results", f"{clinic}/results")
        screening += ("--bundle", f"{clinic}/bundle/", "--precropped", "--gradability", "off")
        screened = job(head, tmp_path, "screen.py", *screening)
        assert screened.returncode == 0, screened.stdout + screened.stderr
    assert table.read(f"{clinic}/results", ["uri"]).num_rows == COUNT
