"""What jobs count for Prometheus, beside Ray's own metrics; nothing without a Ray.

Counters alone: rates and shares are the reader's queries (`deploy/grafana/fundus.json`). Ray
exports each with the prefix `ray_` and the suffix `_total`, at the ports of its nodes' agents.
"""

from functools import cache

import ray
from ray.util.metrics import Counter

COUNTERS = {
    "fundus_pictures": ("stage", "pictures that left a stage, whatever their status"),
    "fundus_rows": ("status", "rows by status, as they are measured"),
    "fundus_fetch_retries": ("reason", "fetches tried again"),
    "fundus_gate_decisions": ("decision", "adapted segmenters, published or refused"),
}
"""By name: the one label, and what is counted. A row that is computed twice is counted twice."""


def count_pictures(stage: str, count: int) -> None:
    """So many pictures left a stage."""
    _count("fundus_pictures", stage, count)


def count_rows(status: str, count: int) -> None:
    """So many rows have this status."""
    _count("fundus_rows", status, count)


def count_retries(reason: str, count: int) -> None:
    """So many fetches were tried again."""
    _count("fundus_fetch_retries", reason, count)


def count_gate(*, published: bool) -> None:
    """The gate decided on one adapted segmenter."""
    _count("fundus_gate_decisions", "published" if published else "refused", 1)


def _count(name: str, value: str, count: int) -> None:
    if count > 0 and ray.is_initialized():
        _counter(name).inc(count, {COUNTERS[name][0]: value})


@cache
def _counter(name: str) -> Counter:
    label, description = COUNTERS[name]
    return Counter(name, description, (label,))
