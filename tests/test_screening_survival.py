"""Kills and faults: short forms of `benchmarks/kills.py` and `screen_hospital.py`.

All are slow. In the quick run tests/test_screening_pipeline.py ends a run in the middle.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import kills
import pytest
import screen_hospital
from test_models_bundle import tiny_bundle

from fundus.models import bundle as bundles


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """The benchmarks put their servers into the environment; this session has its own there."""
    with patch.dict(os.environ):
        yield


@pytest.fixture
def bundle(tmp_path: Path) -> list[str]:
    """Arguments of jobs/screen.py that make it quick: a tiny bundle that measures everything."""
    bundles.save(tiny_bundle(), tmp_path / "bundle")
    return ["--", "--bundle", str(tmp_path / "bundle"), "--precropped", "--gradability", "off"]


@pytest.mark.s3
@pytest.mark.slow
def test_nothing_is_lost_or_comes_twice_whatever_is_killed(bundle: list[str]) -> None:
    """The driver, a worker and the S3 server, in turn."""
    assert kills.main(["--count", "3", "--objects", "8", *bundle]) == 0


@pytest.mark.s3
@pytest.mark.slow
def test_a_hospitals_archive_comes_through_faults_as_it_does_without(
    fundus_data: Path, bundle: list[str]
) -> None:
    words = ["--data", str(fundus_data), "--count", "24", "--faults", "0.01", *bundle]
    assert screen_hospital.main(words) == 0
