"""Counters for Prometheus, beside Ray's own metrics; without a running Ray nothing is counted.

Rates and shares are queries of the dashboard (`deploy/grafana/fundus.json`). Ray exports each
counter with the prefix `ray_` and the suffix `_total`, at the ports of its nodes' agents.
"""

from functools import cache

import ray
from ray.util.metrics import Counter

COUNTERS = {
    "fundus_pictures": ("stage", "pictures that left a stage, whatever their status"),
    "fundus_rows": ("status", "rows by status, as they are measured"),
    "fundus_fetch_retries": ("reason", "retries of fetches"),
    "fundus_gate_decisions": ("decision", "adapted segmenters, published or refused"),
}
"""By name: its label, and its description. A row that is computed twice is counted twice."""


def count_pictures(stage: str, count: int) -> None:
    """Count pictures that left a stage."""
    _count("fundus_pictures", stage, count)


def count_rows(status: str, count: int) -> None:
    """Count rows of a status."""
    _count("fundus_rows", status, count)


def count_retries(reason: str, count: int) -> None:
    """Count retries of fetches."""
    _count("fundus_fetch_retries", reason, count)


def count_gate(*, published: bool) -> None:
    """Count a decision of the gate."""
    _count("fundus_gate_decisions", "published" if published else "refused", 1)


def _count(name: str, value: str, count: int) -> None:
    if count > 0 and ray.is_initialized():
        _counter(name).inc(count, {COUNTERS[name][0]: value})


@cache
def _counter(name: str) -> Counter:
    label, description = COUNTERS[name]
    return Counter(name, description, (label,))
