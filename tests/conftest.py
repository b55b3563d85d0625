"""Shared fixtures: the real pictures, when they are there, and one local Ray for the session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Set before anything imports torch. Two threads that meet on two busy cores wait for each other at
# every small layer: a tiny network took 1.6 s a picture instead of 0.07 s, measured.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Set before anything imports ray: a private, tokenless, silent local Ray.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@pytest.fixture(scope="session")
def fundus_data() -> Path:
    """The folder of real pictures, with `manifest.csv`, that FUNDUS_DATA names."""
    folder = os.environ.get("FUNDUS_DATA")
    if not folder:
        pytest.skip("FUNDUS_DATA is not set: no real pictures here")
    if not (Path(folder) / "manifest.csv").is_file():
        pytest.skip(f"FUNDUS_DATA={folder} has no manifest.csv")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One Ray on this machine for every test that wants it."""
    import ray

    ray.init(num_cpus=4, object_store_memory=200_000_000, include_dashboard=False)
    yield
    ray.shutdown()
