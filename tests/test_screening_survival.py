"""Kills and faults: short forms of benchmarks/kills.py and benchmarks/screen_hospital.py.

All are slow. In the quick suite, tests/test_screening_pipeline.py interrupts a run.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import clusters
import kills
import pytest
import screen_hospital
from test_models_bundle import tiny_bundle

from fundus.datasets.synthetic import write_archive
from fundus.ledger import table
from fundus.models import bundle as bundles
from fundus.synthetic.camera import clinic

PICTURES = 1600


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """The benchmarks put their servers into the environment, which other tests use."""
    with patch.dict(os.environ):
        yield


@pytest.fixture
def bundle(tmp_path: Path) -> list[str]:
    """Arguments of jobs/screen.py that make it quick: a tiny bundle that measures everything."""
    bundles.save(tiny_bundle(), tmp_path / "bundle")
    return ["--", "--bundle", str(tmp_path / "bundle"), "--precropped", "--gradability", "off"]


@pytest.mark.s3
@pytest.mark.slow
def test_no_row_is_lost_or_doubled_whatever_is_killed(bundle: list[str]) -> None:
    """The driver, a worker and the S3 server, in turn."""
    assert kills.main(["--count", "3", "--objects", "8", *bundle]) == 0


@pytest.mark.s3
@pytest.mark.slow
def test_an_archive_of_a_hospital_has_the_same_rows_with_and_without_faults(
    fundus_data: Path, bundle: list[str]
) -> None:
    words = ["--data", str(fundus_data), "--count", "24", "--faults", "0.01", *bundle]
    assert screen_hospital.main(words) == 0


@pytest.mark.slow
def test_a_run_that_takes_over_a_living_one_leaves_one_row_per_picture(
    tmp_path: Path, bundle: list[str]
) -> None:
    """Both work to the end; the first may no longer publish."""
    archive, results = tmp_path / "archive", tmp_path / "results"
    frames = write_archive(archive, (clinic(),), count=6, seed=1)
    for number in range(PICTURES - len(frames)):
        source = archive / frames[number % len(frames)].path
        (archive / f"again-{number:03d}{source.suffix}").hardlink_to(source)
    command = [sys.executable, str(clusters.ROOT / "jobs" / "screen.py"), *bundle[1:]]
    command += ["--archive", str(archive), "--results", str(results)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    clusters.wait((results / "claim.json").exists, 120, "the claim")
    refused = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 5 and "--take-over" in refused.stderr
    assert first.poll() is None, "it was over before"
    second = subprocess.run([*command, "--take-over"], capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stdout + second.stderr
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 5, output
    uris = table.read(str(results), ["uri"])["uri"].to_pylist()
    assert len(uris) == len(set(uris)) == PICTURES
    assert not (results / "claim.json").exists()
