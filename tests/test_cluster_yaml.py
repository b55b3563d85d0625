"""cluster.yaml against Ray's own schema, offline, and the few facts that we promise of it."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parent.parent


@pytest.fixture
def written() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def starts(config: dict[str, Any]) -> dict[str, str]:
    """By kind of node, the one command that starts Ray."""
    found = {}
    for kind in ("head", "worker"):
        commands = [c for c in config[f"{kind}_start_ray_commands"] if "ray start" in c]
        assert len(commands) == 1, kind
        found[kind] = commands[0]
    return found


def test_ray_takes_the_file(written: dict[str, Any]) -> None:
    validate_config(prepare_config(written) | {"cluster_synced_files": []})


def test_ray_would_refuse_a_misspelt_key(written: dict[str, Any]) -> None:
    """Otherwise the test above could not fail."""
    wrong = written | {"idle_timeout": 5}
    with pytest.raises(ValidationError, match="idle_timeout"):
        validate_config(prepare_config(wrong) | {"cluster_synced_files": []})


def test_the_head_takes_no_work_and_every_pool_begins_at_none_and_ends(
    written: dict[str, Any],
) -> None:
    pools = dict(written["available_node_types"])
    assert pools.pop(written["head_node_type"])["resources"] == {"CPU": 0}
    assert set(pools) == {"cpu", "gpu"}
    for pool in pools.values():
        assert pool["min_workers"] == 0 < pool["max_workers"] <= written["max_workers"]
    assert written["idle_timeout_minutes"] > 0


def test_every_ray_demands_the_token_and_starts_in_the_project(written: dict[str, Any]) -> None:
    assert written["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for command in starts(written).values():
        before, _, after = command.partition("ray start")
        assert before.startswith("cd ~/fundus && . ~/env/bin/activate && ")
        assert before.endswith("RAY_AUTH_MODE=token ")
        assert "--dashboard-host=127.0.0.1" in shlex.split(after) or "--address=" in after


def test_what_is_mounted_is_there_and_enough_to_install(written: dict[str, Any]) -> None:
    mounts = {k: v for k, v in written["file_mounts"].items() if not v.startswith("~")}
    assert all((ROOT / local).exists() for local in mounts.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {"pyproject.toml", project["readme"], *project["license-files"], "fundus", "jobs"}
    assert needed <= set(mounts.values())
    assert all(remote == f"~/fundus/{local}" for remote, local in mounts.items())


def test_the_nodes_ray_is_one_that_the_project_allows(written: dict[str, Any]) -> None:
    pinned = re.findall(r"ray\[[\w,]+\]==([\d.]+)", " ".join(written["setup_commands"]))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [allowed] = [r for r in map(Requirement, project["dependencies"]) if r.name == "ray"]
    assert len(pinned) == 1 and pinned[0] in allowed.specifier
