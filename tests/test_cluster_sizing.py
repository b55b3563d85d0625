"""The plan of a night: its formula by hand, its inverse, and what it refuses."""

import json
import math
import re
import shlex
from pathlib import Path

import pytest

from fundus.cluster.sizing import (
    DRIVER_RATE,
    EFFICIENCY,
    Pool,
    Rates,
    nodes_for,
    predict,
    read_rates,
)
from jobs import plan

ROOT = Path(__file__).parent.parent
CORES = "cores of the CPU nodes"
RATES = Rates(read=0.08, locate=0.1, crop=0.0, segment=0.3, measure=0.02, megapixels=4, megabytes=1)


def test_without_gpus_all_work_is_on_the_cores() -> None:
    """Half a second per picture, 10 cores at 90 %: 18 pictures per second."""
    night = predict(64_800, RATES, Pool(nodes=5, slots=2, price=2.0), start_hours=0.5, idle_hours=0)
    assert EFFICIENCY == 0.9
    assert night.pictures_per_second == pytest.approx(18)
    assert night.hours == pytest.approx(1.5)
    assert night.cost == pytest.approx(5 * 2.0 * 1.5)
    assert night.bound_by == CORES


def test_with_gpus_the_slower_pool_sets_the_pace() -> None:
    """Readers do 0.9 * 10 / 0.18 = 50 per second, one GPU of ten cores 0.9 * 10 / 0.3 = 30."""
    cpu, gpu = Pool(nodes=1, slots=10), Pool(nodes=1, slots=1)
    one = predict(1000, RATES, cpu, gpu, gpu_speed=10)
    assert (one.bound_by, one.pictures_per_second) == ("GPUs", pytest.approx(30))
    eight = predict(1000, RATES, cpu, Pool(nodes=8, slots=1), gpu_speed=10)
    assert (eight.bound_by, eight.pictures_per_second) == (CORES, pytest.approx(50))


def test_a_slow_network_sets_the_pace() -> None:
    """8 megabits per picture over 0.1 gigabits per second: 12.5 pictures per second."""
    night = predict(1000, RATES, Pool(nodes=1, slots=64, gigabits=0.1))
    assert (night.bound_by, night.pictures_per_second) == (
        "links of the CPU nodes",
        pytest.approx(12.5),
    )


def test_beside_a_fast_gpu_the_cores_or_links_of_its_node_set_the_pace() -> None:
    """Four cores measure 0.9 * 4 / 0.02 = 180 per second; 8 * (0.0492 + 0.005) Mbit per crop."""
    cpu = Pool(nodes=100, slots=64)
    few = predict(1000, RATES, cpu, Pool(1, 1, cores=4), gpu_speed=1000)
    assert (few.bound_by, few.pictures_per_second) == ("cores of the GPU nodes", pytest.approx(180))
    thin = predict(1000, RATES, cpu, Pool(1, 1, gigabits=0.01, cores=64), gpu_speed=1000)
    assert thin.bound_by == "links of the GPU nodes"
    assert thin.pictures_per_second == pytest.approx(10 / (8 * 0.054152), rel=1e-3)


def test_no_number_of_nodes_outruns_the_driver() -> None:
    night = predict(1000, RATES, Pool(nodes=1000, slots=64))
    assert (night.bound_by, night.pictures_per_second) == ("driver", DRIVER_RATE)
    with pytest.raises(ValueError, match="1000 pictures per second are more than the 780"):
        nodes_for(3_600_000, RATES, Pool(1, 16), hours=1, start_hours=0)


@pytest.mark.parametrize("hours", [0.5, 2, 6.3])
@pytest.mark.parametrize("gpu", [None, Pool(1, 1)])
def test_a_plan_has_the_fewest_nodes_that_finish_in_time(hours: float, gpu: Pool | None) -> None:
    cpu, gpu = nodes_for(100_000, RATES, Pool(1, 16), gpu, hours=hours, gpu_speed=10)
    assert predict(100_000, RATES, cpu, gpu, gpu_speed=10).hours <= hours + 1e-9
    if cpu.nodes > 1:
        fewer = Pool(cpu.nodes - 1, 16)
        assert predict(100_000, RATES, fewer, gpu, gpu_speed=10).hours > hours


def test_larger_pictures_take_longer_only_to_read() -> None:
    larger = RATES.at(12)
    assert larger.read == pytest.approx(3 * RATES.read)
    assert larger.megabytes == pytest.approx(3)
    assert (larger.locate, larger.measuring) == (RATES.locate, RATES.measuring)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "lack read"),
        (json.dumps({"read": 1}), "lack locate"),
        (json.dumps(vars(RATES) | {"segment": -1}), "segment is -1"),
        (json.dumps(vars(RATES) | {"read": "1"}), "read is '1'"),
        (json.dumps(vars(RATES) | {"read": math.nan}), "read is nan"),
        (json.dumps(vars(RATES) | {"segment": 0}), "above 0"),
    ],
)
def test_bad_rates_are_refused_in_a_sentence(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        read_rates(text)


def examples() -> list[str]:
    texts = [plan.__doc__ or "", (ROOT / "docs/cluster.md").read_text()]
    return re.findall(r"^ *python jobs/plan.py (.*)$", "\n".join(texts), re.MULTILINE)


@pytest.mark.parametrize("line", examples())
def test_every_documented_example_gives_a_plan(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rates.json").write_text(json.dumps(vars(RATES) | {"machine": "a note"}))
    assert plan.main(shlex.split(line)) == 0
    printed = capsys.readouterr().out
    assert "100000 pictures of 4.0 megapixels, 100 GB" in printed
    assert re.search(r"on \d+ CPU nodes.*: [\d.]+ hours, of which 0.13 to start", printed)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--rates none.json --pictures 10 --hours 1", "none.json cannot be read"),
        ("--rates rates.json --pictures 10", "give --hours"),
        ("--rates rates.json --pictures 0 --hours 1", "0 pictures"),
        ("--rates rates.json --pictures 10 --hours 0.1", "take 0.13 hours to start"),
        ("--rates rates.json --pictures 10 --hours 1 --cpu-cores 0", "1 or more slots"),
        ("--rates rates.json --pictures 10 --hours 1 --megapixels nan", "nan megapixels"),
    ],
)
def test_bad_configuration_ends_with_2_and_one_sentence(
    words: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rates.json").write_text(json.dumps(vars(RATES)))
    assert plan.main(words.split()) == 2
    printed = capsys.readouterr().err
    assert reason in printed and printed.count("\n") == 1
