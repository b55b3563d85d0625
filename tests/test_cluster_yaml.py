"""cluster.yaml against Ray's own schema, offline, and the few properties that we promise."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config

from fundus.cluster.bounds import grows_to
from fundus.runtime.resources import amounts

ROOT = Path(__file__).parent.parent


@pytest.fixture
def written() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def on(config: dict[str, Any], kind: str) -> list[str]:
    """The commands that run on a kind of node once it is set up."""
    return config[f"{kind}_start_ray_commands"]


def starts(config: dict[str, Any]) -> dict[str, str]:
    """By kind of node, the one command that starts Ray."""
    found = {}
    for kind in ("head", "worker"):
        commands = [c for c in on(config, kind) if "ray start" in c]
        assert len(commands) == 1, kind
        found[kind] = commands[0]
    return found


def test_ray_accepts_the_file(written: dict[str, Any]) -> None:
    validate_config(prepare_config(written))


def test_ray_refuses_a_misspelt_key(written: dict[str, Any]) -> None:
    """Otherwise the test above could not fail."""
    wrong = written | {"idle_timeout": 5}
    with pytest.raises(ValidationError, match="idle_timeout"):
        validate_config(prepare_config(wrong))


def test_the_head_takes_no_work_and_pools_begin_and_end_empty(
    written: dict[str, Any],
) -> None:
    pools = dict(written["available_node_types"])
    assert pools.pop(written["head_node_type"])["resources"] == {"CPU": 0}
    assert set(pools) == {"cpu", "gpu"}
    for pool in pools.values():
        assert pool["min_workers"] == 0 < pool["max_workers"]
    assert sum(pool["max_workers"] for pool in pools.values()) <= written["max_workers"]
    assert written["idle_timeout_minutes"] > 0


def test_every_kind_of_node_names_the_closed_group_by_its_id(written: dict[str, Any]) -> None:
    """For a name that it does not find, Ray would make a group with port 22 open to the world."""
    kinds = written["available_node_types"].values()
    groups = [kind["node_config"]["SecurityGroupIds"] for kind in kinds]
    assert all(len(ids) == 1 and ids[0].startswith("sg-") for ids in groups)
    assert "security_group" not in written["provider"]


def test_every_ray_demands_the_token_and_starts_in_the_project(written: dict[str, Any]) -> None:
    assert written["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    [environment] = [c for c in written["setup_commands"] if "> ~/fundus.env" in c]
    for line in ("RAY_AUTH_MODE=token", "cd ~/fundus'", ". ~/env/bin/activate'"):
        assert line in environment
    for command in starts(written).values():
        before, _, after = command.partition("ray start")
        assert before.startswith(". ~/fundus.env && ")
        assert "--dashboard-host=127.0.0.1" in shlex.split(after) or "--address=" in after


def test_a_shell_reads_the_environment_of_a_node(written: dict[str, Any], tmp_path: Path) -> None:
    """The command has quotes within quotes, so it is run as it is."""
    [command] = [c for c in written["setup_commands"] if "> ~/fundus.env" in c]
    subprocess.run(["bash", "-c", command], check=True, env={"HOME": str(tmp_path)})
    (tmp_path / "env/bin").mkdir(parents=True)
    (tmp_path / "env/bin/activate").write_text("export ACTIVE=yes\n")
    (tmp_path / "fundus").mkdir()
    names = "$PWD $ACTIVE $RAY_AUTH_MODE $FUNDUS_LOG $FUNDUS_LOGS $AWS_REGION $AWS_DEFAULT_REGION"
    values = subprocess.run(
        ["sh", "-c", f". ~/fundus.env; echo {names}"],
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    region = written["provider"]["region"]
    assert values == [
        f"{tmp_path}/fundus",
        "yes",
        "token",
        "json",
        "s3://screening/logs",
        region,
        region,
    ]


def test_a_node_keeps_its_logs_and_a_worker_heeds_the_spot_notice(written: dict[str, Any]) -> None:
    for kind in ("head", "worker"):
        assert any("deploy/aws/keep_logs.sh $FUNDUS_LOGS" in c for c in on(written, kind))
    [watcher] = [c for c in on(written, "worker") if "-m fundus.cluster.spot_notice" in c]
    folders = re.findall(r"RAY_LOGS:-(.*)}", (ROOT / "deploy/aws/keep_logs.sh").read_text())
    assert f"> {folders[0]}/spot_notice.log" in watcher


def test_a_head_that_cannot_compute_its_bounds_does_not_start(
    written: dict[str, Any], tmp_path: Path
) -> None:
    """The command itself, with a python that fails: `export X="$(false)"` would go on."""
    (tmp_path / "fundus.env").write_text("python() { false; }\nray() { echo started; }\n")
    command = ["bash", "-c", f"ulimit() {{ :; }}; {starts(written)['head']}"]
    done = subprocess.run(command, env={"HOME": str(tmp_path)}, capture_output=True, check=False)
    assert done.returncode != 0 and b"started" not in done.stdout
    (tmp_path / "fundus.env").write_text("python() { echo CPU=1; }\nray() { echo started; }\n")
    done = subprocess.run(command, env={"HOME": str(tmp_path)}, capture_output=True, check=False)
    assert done.returncode == 0 and b"started" in done.stdout


def test_a_node_waits_for_its_automatic_updates(written: dict[str, Any]) -> None:
    calls = re.findall("apt-get .*?(?: &&|$)", " ".join(written["setup_commands"]))
    assert calls and all("-o DPkg::Lock::Timeout=" in call for call in calls)


def test_the_head_tells_its_jobs_how_far_the_pools_may_grow(written: dict[str, Any]) -> None:
    assert ' FUNDUS_GROWS_TO="$(python -m fundus.cluster.bounds ' in starts(written)["head"]
    kinds = written["available_node_types"]
    kinds["cpu"]["resources"] |= {"CPU": 16, "memory": 100}
    kinds["gpu"]["resources"] = {"CPU": 8, "GPU": 1, "memory": 100}
    cpus = 16 * kinds["cpu"]["max_workers"] + 8 * kinds["gpu"]["max_workers"]
    gpus = kinds["gpu"]["max_workers"]
    memory = 100 * (kinds["cpu"]["max_workers"] + gpus)
    reader = kinds["cpu"]["max_workers"]
    assert amounts(grows_to(written)) == {
        "CPU": cpus,
        "GPU": gpus,
        "memory": memory,
        "reader": reader,
    }


def test_the_mounted_files_exist_and_suffice_to_install(written: dict[str, Any]) -> None:
    mounts = {k: v for k, v in written["file_mounts"].items() if not v.startswith("~")}
    assert all((ROOT / local).exists() for local in mounts.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {
        "pyproject.toml",
        project["readme"],
        *project["license-files"],
        "fundus",
        "jobs",
        "deploy",
    }
    assert needed <= set(mounts.values())
    assert all(remote == f"~/fundus/{local}" for remote, local in mounts.items())


def test_the_nodes_run_a_version_of_ray_that_the_project_allows(written: dict[str, Any]) -> None:
    pinned = re.findall(r"ray\[[\w,]+\]==([\d.]+)", " ".join(written["setup_commands"]))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [allowed] = [r for r in map(Requirement, project["dependencies"]) if r.name == "ray"]
    assert len(pinned) == 1 and pinned[0] in allowed.specifier
