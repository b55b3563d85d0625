"""Shared fixtures: the real pictures if available, one S3 server and one local Ray."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from s3_server import Server

# Set before anything imports torch. On two busy cores, two threads wait for each other at every
# small layer: a tiny network took 1.6 s per picture instead of 0.07 s.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Set before anything imports ray: a private, tokenless, silent local Ray.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
# Ray starts workers at niceness 15: beside busy test processes they took minutes to import.
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


# A property test is no benchmark: on a busy machine an example may take any time.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files that start clusters first, then those that start Ray, then the short ones.

    Clusters mostly wait, which leaves the cores to the other test process.
    """
    clusters = {item.path for item in items if item.get_closest_marker("cluster")}
    ray = {item.path for item in items if "ray_local" in item.fixturenames}
    items.sort(key=lambda item: (item.path not in clusters, item.path not in ray))


@pytest.fixture(scope="session")
def fundus_data() -> Path:
    """The folder of real pictures with `manifest.csv`, from FUNDUS_DATA."""
    folder = os.environ.get("FUNDUS_DATA")
    if not folder:
        pytest.skip("FUNDUS_DATA is not set: no real pictures here")
    if not (Path(folder) / "manifest.csv").is_file():
        pytest.skip(f"FUNDUS_DATA={folder} has no manifest.csv")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def s3_address(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """The server of `s3`, already in the environment: a Ray that starts before it knows it too."""
    server = Server(tmp_path_factory.mktemp("s3"))
    os.environ.update(server.environment)
    return server


@pytest.fixture(scope="session")
def s3(s3_address: Server) -> Iterator[Server]:
    """The session's running S3 server; `bucket` gives a test its own bucket."""
    with s3_address:
        yield s3_address


@pytest.fixture
def bucket(s3: Server) -> str:
    """The name of a new bucket on the S3 server."""
    return s3.bucket()


@pytest.fixture(scope="session")
def ray_local(s3_address: Server) -> Iterator[None]:
    """One local Ray per test process, in its own folder.

    `tmp_path` would be too long for Ray's sockets.
    """
    import ray

    with tempfile.TemporaryDirectory(
        prefix="fundus-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        # Local, even if another process on this machine has started a cluster.
        ray.init(
            "local",
            num_cpus=4,
            object_store_memory=200_000_000,
            include_dashboard=False,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()
