"""Ray clusters of several nodes on this machine, for the tests marked `cluster`.

Each cluster has its own folder, home and ports. Its processes are identified by that folder: any
other Ray on the machine is left alone.
"""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
    FakeMultiNodeProvider,
)

ROOT = Path(__file__).parent.parent
RAY = str(Path(sys.executable).parent / "ray")
LISTS = [
    "initialization",
    "setup",
    "head_setup",
    "worker_setup",
    "head_start_ray",
    "worker_start_ray",
]
STORE = 150 << 20
"""Bytes of object store on each node."""


class FakeNodes(FakeMultiNodeProvider):
    """Ray's own node provider for tests, which starts a raylet on this machine for each node.

    The resource `memory` is left out: the raylet then detects that of the machine.
    """

    def create_node_with_resources_and_labels(
        self,
        node_config: dict,
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> None:
        resources = {name: amount for name, amount in resources.items() if name != "memory"}
        super().create_node_with_resources_and_labels(node_config, tags, count, resources, labels)


@dataclass(frozen=True)
class Head:
    """A running head."""

    gcs: str
    dashboard: str
    client: str
    folder: Path
    metrics: str
    env: dict[str, str]
    """For drivers and the command line: a private home, the address and the token, if any."""

    def ray(self, *words: str, timeout: float = 120, **env: str) -> subprocess.CompletedProcess:
        """Run `ray WORDS` against this cluster."""
        return subprocess.run(
            [RAY, *words],
            env=self.env | env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    @contextmanager
    def worker(self, cpus: int, host: "Host | None" = None) -> Iterator[subprocess.Popen]:
        """Start another node of this cluster, on this machine or on `host`."""
        command = [RAY, "start", "--block", f"--address={self.gcs}", f"--num-cpus={cpus}"]
        if host:
            command = [*host.enter(self.folder / "r"), *command, f"--node-ip-address={host.ip}"]
        command += ["--num-gpus=0", f"--object-store-memory={STORE}"]
        agent, metrics = free_ports(2)  # two nodes on one machine would share the defaults
        command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
        process = self._node(command)
        try:
            yield process
        finally:
            process.kill()

    def _node(self, command: list[str]) -> subprocess.Popen:
        """Start a node in up to 3 tries: Ray allows it 30 s, which a busy machine may exceed."""
        failure = ""
        for number in range(3):
            log = self.folder / f"node-{time.monotonic_ns()}.log"
            with log.open("w") as stream:
                process = subprocess.Popen(
                    command, env=self.env, cwd=ROOT, stdout=stream, stderr=stream
                )
            while process.poll() is None:
                time.sleep(0.3)
                if "--block" in log.read_text():
                    return process
            failure = f"try {number + 1}: {log.read_text()[-1000:]}"
        raise AssertionError(f"no node started: {failure}")

    def driver(self, script: str, **env: str) -> subprocess.Popen:
        """Start a Python script that calls `ray.init()`; stdout carries its stderr too."""
        return subprocess.Popen(
            [sys.executable, "-c", script],
            env=self.env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@dataclass(frozen=True)
class Host:
    """A network namespace that a virtual cable connects to this machine."""

    name: str
    ip: str
    cable: str
    """The device at this machine's end of the cable."""

    def enter(self, private: Path) -> list[str]:
        """Return a prefix that runs a command on the host, with the folder `private` empty."""
        script = f'mount -t tmpfs tmpfs {private} && exec "$@"'
        return ["ip", "netns", "exec", self.name, "unshare", "-m", "sh", "-c", script, "sh"]

    def cut(self) -> None:
        """Cut the cable: packets are lost without any notice."""
        ip("link", "set", self.cable, "down")


_HOSTS = itertools.count(os.getpid())
"""Numbers of hosts: no host meets the leftovers of an earlier one."""


@contextmanager
def host() -> Iterator[Host]:
    """Create a second host; skip the test if that is impossible."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    number = next(_HOSTS) % 250
    name, near, far = f"fundus{number}", f"fundus{number}a", f"fundus{number}b"
    here, there = f"10.99.{number}.1", f"10.99.{number}.2"
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        ip("addr", "add", f"{here}/24", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", name, "addr", "add", f"{there}/24", "dev", far)
        for device in ("lo", far):
            ip("-n", name, "link", "set", device, "up")
        ip("-n", name, "route", "add", "default", "via", here)
        yield Host(name, there, near)
    finally:
        # A process that is still ending keeps a namespace alive, and with it the cable.
        with suppress(subprocess.CalledProcessError):
            ip("link", "del", near)
        ip("netns", "del", name)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def free_ports(count: int) -> list[int]:
    """Free ports of 127.0.0.1."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def head(
    *,
    cpus: int = 0,
    token: str | None = None,
    pools: dict[str, dict[str, Any]] | None = None,
    idle_minutes: float = 0.1,
    project: Path = ROOT,
) -> Iterator[Head]:
    """Run a head node in the folder `project`, where jobs without a working directory run.

    With `pools` (node types as in cluster.yaml), its autoscaler starts nodes.
    """
    # Short: the path of a Unix socket holds at most 107 bytes, of which Ray takes 60.
    folder = Path(tempfile.mkdtemp(prefix="fundus-", dir="/tmp"))
    home = folder / "home"
    home.mkdir()
    node_ip = get_node_ip_address()
    gcs, dashboard, client, agent, metrics = free_ports(5)
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    env |= {
        # Ray starts workers at niceness 15: beside busy test processes they took minutes to start.
        "RAY_worker_niceness": "0",
        "HOME": str(home),
        # The cache of converted bundles: without it, a screening would import PyTorch.
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser()),
        "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token" if token else "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    if token:
        env["RAY_AUTH_TOKEN"] = token
    command = [RAY, "start", "--head", "--block", f"--num-cpus={cpus}", f"--port={gcs}"]
    command += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
    command += ["--dashboard-host=127.0.0.1", "--num-gpus=0"]
    command += [f"--temp-dir={folder / 'r'}", f"--object-store-memory={STORE}"]
    head_env = dict(env)
    if pools is not None:
        config = folder / "pools.json"
        config.write_text(json.dumps(_autoscaling(pools, gcs, idle_minutes)))
        command.append(f"--autoscaling-config={config}")
        head_env |= {
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_NODE_TYPE_NAME": FAKE_HEAD_NODE_TYPE,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        }
    log = (folder / "head.log").open("w")
    process = subprocess.Popen(
        command, env=head_env, cwd=project, stdout=log, stderr=log, start_new_session=True
    )
    try:
        found = Head(
            gcs=f"{node_ip}:{gcs}",
            dashboard=f"http://127.0.0.1:{dashboard}",
            client=f"ray://127.0.0.1:{client}",
            folder=folder,
            metrics=f"http://127.0.0.1:{metrics}/metrics",
            env=env | {"RAY_ADDRESS": f"{node_ip}:{gcs}"},
        )
        wait(lambda: listens(gcs) and listens(dashboard), 60, "the head to start")
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        end_processes_of(folder)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _autoscaling(pools: dict[str, dict[str, Any]], gcs: int, idle_minutes: float) -> dict:
    return {
        "cluster_name": "test",
        "max_workers": sum(pool["max_workers"] for pool in pools.values()),
        "idle_timeout_minutes": idle_minutes,
        "provider": {
            "type": "external",
            "module": "clusters.FakeNodes",
            "gcs_address": f"{get_node_ip_address()}:{gcs}",
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
        },
        "auth": {},
        **{f"{name}_commands": [] for name in LISTS},
        "worker_start_ray_commands": [],
        "cluster_synced_files": [],
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "available_node_types": {
            FAKE_HEAD_NODE_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            **{
                name: {"node_config": {}, "min_workers": 0}
                | pool
                | {"resources": pool["resources"] | {"object_store_memory": STORE}}
                for name, pool in pools.items()
            },
        },
    }


def processes_of(folder: Path) -> list[psutil.Process]:
    """All processes that run from this folder, except this one."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = " ".join(process.cmdline())
            ours = str(folder) in words or str(folder) in process.environ().get("HOME", "")
            if ours and process.pid != os.getpid():
                found.append(process)
    return found


def a_node(folder: Path, resources: str) -> psutil.Process:
    """The raylet of a node with a resource such as `GPU,1`; StopIteration if there is none."""
    return next(process for process in processes_of(folder) if _offers(process, resources))


def _offers(process: psutil.Process, resources: str) -> bool:
    with suppress(psutil.Error):
        words = " ".join(process.cmdline())
        return "/raylet/raylet " in words and resources in words
    return False


def kill(node: psutil.Process) -> None:
    """Kill a node and all its processes with SIGKILL, as a power failure would."""
    for process in [*node.children(recursive=True), node]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def end_processes_of(folder: Path) -> None:
    for process in processes_of(folder):
        with suppress(psutil.Error):
            process.kill()


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def wait(until: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for the first true result and return it; AssertionError on timeout."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := until():
            return answer
        time.sleep(0.3)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")
