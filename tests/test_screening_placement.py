"""Placement: claims fit into the cluster, and pools grow with it, by one rule for any size."""

import pytest
from ray.data import DataContext

from fundus.runtime import resources
from fundus.runtime.resources import amounts, reachable
from fundus.screening.placement import LIGHT, Placement, placement, tune

MACHINES = [
    {"CPU": cpus, "GPU": gpus, "memory": cpus * (2 << 30)}
    for cpus in (1, 2, 3, 4, 8, 16, 64, 1024)
    for gpus in (0, 1, 4, 40)
]


def actors(found: Placement) -> list[tuple[dict, int, int]]:
    """The arguments and the least and most actors of each pool."""
    pools = [pool for pool in (found.read, found.measure) if pool]
    return [(pool, pool["compute"].min_size, pool["compute"].max_size) for pool in pools]


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_the_widest_pools_leave_room_for_light_actors(machine: dict[str, float]) -> None:
    """An actor keeps its claim: without this room a machine with two CPUs hung."""
    found = placement(machine)
    claimed = sum(pool["num_cpus"] * most for pool, _, most in actors(found))
    assert machine["CPU"] - claimed >= 2 * found.light["num_cpus"] > 0
    assert found.read.get("memory", 0) * found.readers <= machine["memory"]
    assert all(least == 1 <= most for _, least, most in actors(found))


@pytest.mark.parametrize("node", [1, 2, 4, 16])
def test_one_node_alone_can_go_on_when_all_others_are_lost(node: int) -> None:
    """With one of two nodes cut off, the actors claimed more than the other had: the run hung."""
    found = placement({"CPU": 8 * node}, node_cpus=node)
    claimed = sum(pool["num_cpus"] for pool, _, _ in actors(found)) + 2 * found.light["num_cpus"]
    assert claimed <= node


@pytest.mark.parametrize("gpus", [1, 2, 40])
def test_measuring_goes_to_gpus_and_fills_them(gpus: int) -> None:
    found = placement({"CPU": 16 * gpus, "GPU": gpus})
    assert found.measure
    assert 1 / found.measure["num_gpus"] == int(1 / found.measure["num_gpus"])
    widest = sum(pool.get("num_gpus", 0) * most for pool, _, most in actors(found))
    assert widest == gpus
    assert "num_gpus" not in found.read | found.light


def test_every_stage_is_an_actor() -> None:
    """A task on a host whose link was cut held up a run for seven minutes."""
    found = placement({"CPU": 8, "GPU": 1})
    assert found.measure
    for kwargs in (found.read, found.measure, found.light):
        assert kwargs["compute"].min_size == 1


@pytest.mark.parametrize(("cpus", "readers"), [(1, 1), (2, 2), (4, 4), (64, 58)])
def test_without_gpus_each_cpu_reads_and_measures(cpus: int, readers: int) -> None:
    found = placement({"CPU": cpus})
    assert found.measure is None and "num_gpus" not in found.read
    assert found.read["compute"].max_size == found.readers == readers


def test_claims_are_whole_where_there_is_room() -> None:
    found = placement({"CPU": 64, "GPU": 4, "memory": 128 << 30})
    assert found.read["num_cpus"] == 1 and found.read["memory"] == 1 << 30
    assert found.light["num_cpus"] == LIGHT


def test_bounds_follow_the_largest_size_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources.ray, "cluster_resources", lambda: {"memory": 5.0, "node:head": 1})
    assert reachable() == {"CPU": 0, "GPU": 0, "memory": 5, "reader": 0}
    assert "resources" not in placement(reachable()).read
    monkeypatch.setenv("FUNDUS_GROWS_TO", "CPU=128 GPU=4 reader=2")
    assert reachable() == {"CPU": 128, "GPU": 4, "memory": 5, "reader": 2}
    found = placement(reachable())
    assert found.measure and found.measure["compute"].max_size == 16
    assert found.read["resources"].keys() == {"reader"}
    assert not any("resources" in stage for stage in (found.measure, found.light))


def test_a_malformed_variable_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="FUNDUS_GROWS_TO"):
        amounts("128 CPUs")


def test_no_block_is_dropped_and_the_order_is_free() -> None:
    context = DataContext()
    tune(context)
    assert not context.execution_options.preserve_order
    assert context.max_errored_blocks == 0


def test_the_processes_of_all_stages_get_the_requested_environment() -> None:
    assert "runtime_env" not in placement({"CPU": 4}).read
    found = placement({"CPU": 8, "GPU": 1}, {"FUNDUS_RUN_ID": "x"})
    assert found.measure
    for kwargs in (found.read, found.measure, found.light):
        assert kwargs["runtime_env"] == {"env_vars": {"FUNDUS_RUN_ID": "x"}}
