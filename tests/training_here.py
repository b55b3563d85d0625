"""Training in the test's own process, for tests of the code around it.

One run of Ray Train costs 40 s of the processor. tests/test_training_*.py and
tests/test_cluster_jobs.py train on Ray.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from fundus.runtime.workers import Workers
from fundus.training import loop, runs, student


def train_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the test ends, trainings start no worker and keep no checkpoint."""
    alone = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(ray.train, "get_context", lambda: alone)
    monkeypatch.setattr(loop, "synchronised", lambda network: network)
    monkeypatch.setattr(loop, "fit", fit)
    for module in (runs, student):
        monkeypatch.setattr(module, "on_a_worker", on_a_worker)


def fit(
    make_learner: Callable[[], loop.Learner], epochs: int, **where: Any
) -> tuple[dict[str, Any], list[loop.Row]]:
    """As `loop.fit`."""
    states: list[dict[str, Any]] = []
    history = loop.run_epochs(make_learner(), epochs, after_epoch=states.append)
    return states[-1]["learner"], history


def on_a_worker(workers: Workers, work: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """As `workers.on_a_worker`."""
    values = [ray.get(one) if isinstance(one, ray.ObjectRef) else one for one in args]
    return work(*values, **named)
