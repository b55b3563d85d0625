"""Counters and logs of a real Ray: scraped as by Prometheus, read where Ray writes them."""

import json
import re
import urllib.request
from pathlib import Path

import clusters
import pytest
import ray

from fundus.runtime import metrics
from fundus.runtime.metrics import COUNTERS, count_gate, count_pictures, count_rows

ROOT = Path(__file__).parent.parent
DASHBOARD = json.loads((ROOT / "deploy/grafana/fundus.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
OURS = {f"ray_{name}_total" for name in COUNTERS}

JOB = """
import logging
import pyarrow as pa, ray
from fundus.runtime import logs, metrics
from fundus.runtime.resources import reachable
from fundus.screening.placement import placement

ray.init(logging_level="ERROR", **logs.ray_options())
where = placement(reachable(), logs.name_run("20270131T000000Z-abcdef"))

class Stage:
    def __call__(self, batch):
        metrics.count_pictures("read", 5)
        metrics.count_rows("ok", 4)
        metrics.count_rows("no_disc", 1)
        metrics.count_retries("SlowDown", 2)
        logging.getLogger("fundus.archive.fetch").warning("a fetch was tried again")
        return batch

ray.data.from_arrow(pa.table({"id": [1]})).map_batches(Stage, **where.light).take_all()
metrics.count_gate(published=False)
"""


def named(queries: list[str]) -> set[str]:
    return set(re.findall(r"\bray_\w+", " ".join(queries)))


def test_without_ray_nothing_is_counted_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics.ray, "is_initialized", lambda: False)
    metrics._counter.cache_clear()  # counters of jobs that other tests ran
    count_pictures("read", 3)
    count_gate(published=True)
    assert metrics._counter.cache_info().currsize == 0


def test_a_count_of_zero_is_not_sent_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's counter refuses an increase of 0; a batch may well have no row of some status."""
    monkeypatch.setattr(metrics.ray, "is_initialized", lambda: True)
    count_rows("ok", 0)


def test_the_dashboard_queries_all_of_our_counters_and_no_unknown_one() -> None:
    assert {name for name in named(QUERIES) if "fundus" in name} == OURS
    for query in QUERIES:
        for name, label in re.findall(r"by \((\w+)\) \(\w+\(ray_(fundus_\w+)_total", query):
            assert COUNTERS[label][0] == name, query


def test_counts_from_before_the_first_scrape_are_not_lost() -> None:
    """`increase` begins at the first scrape: a job that counts one and ends would show as none."""
    assert not [query for query in QUERIES if "increase(" in query]


def test_the_other_metrics_in_the_dashboard_exist_in_ray() -> None:
    own = Path(ray.__file__).parent / "dashboard/modules/metrics/dashboards"
    known = " ".join(file.read_text() for file in own.glob("*.py"))
    for name in named(QUERIES) - OURS:
        assert re.search(rf"\b{name}\b", known), name


@pytest.mark.cluster
@pytest.mark.slow
def test_the_counts_of_a_job_are_scraped_and_its_log_names_the_run() -> None:
    with clusters.head(cpus=1) as head:
        job = head.driver(JOB, FUNDUS_LOG="json")
        output, _ = job.communicate(timeout=120)
        assert job.returncode == 0, output

        def scraped() -> dict[str, float]:
            text = urllib.request.urlopen(head.metrics).read().decode()
            lines = re.findall(r"^(ray_fundus\w+)\{(.*)\} (\S+)$", text, re.MULTILINE)
            found = {}
            for name, labels, value in lines:
                label = COUNTERS[name.removeprefix("ray_").removesuffix("_total")][0]
                [tag] = re.findall(rf'\b{label}="([^"]*)"', labels)
                found[f"{name} {tag}"] = float(value)
            return found if {n.split()[0] for n in found} == OURS else {}

        counted = clusters.wait(scraped, 60, "all four counters at the Prometheus endpoint")
        logs = (head.folder / "r/session_latest/logs").glob("worker-*.err")
        lines = [line for file in logs for line in file.read_text().splitlines()]
    assert counted == {
        "ray_fundus_pictures_total read": 5,
        "ray_fundus_rows_total ok": 4,
        "ray_fundus_rows_total no_disc": 1,
        "ray_fundus_fetch_retries_total SlowDown": 2,
        "ray_fundus_gate_decisions_total refused": 1,
    }
    [record] = [json.loads(line) for line in lines if "a fetch was tried again" in line]
    assert record["run_id"] == "20270131T000000Z-abcdef"
    assert record["name"] == "fundus.archive.fetch" and record["levelname"] == "WARNING"
    assert {"job_id", "node_id", "worker_id", "task_id"} <= set(record)
