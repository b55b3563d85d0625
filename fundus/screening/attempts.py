"""Records which picture a process worked on when it died. After two deaths its row is `crashed`.

Otherwise Ray would restart the process and give it the same batch again, without end.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fundus.screening.columns import Batch, fail_row, writable

MOST = 2
"""Number of processes that one picture may end."""
REASON = f"it ended the process that worked on it, {MOST} times"


class Attempts:
    """The attempts that have begun and not ended, by name: one Ray actor for all processes."""

    def __init__(self) -> None:
        self.open: dict[str, list[str]] = {}

    def begin(self, names: list[str], node: str, most: int, done: Sequence[str] = ()) -> list[int]:
        """Begin an attempt on each name, unless one has already ended `most` processes.

        Processes on lost nodes do not count.

        Args:
            names: the names to begin with.
            node: identifier of the process's node.
            most: processes that a name may have ended.
            done: names whose attempts have ended, as for `end`.

        Returns:
            The number of processes that each name has ended so far.
        """
        self.end(done)
        if any(name in self.open for name in names):
            alive = {one["NodeID"] for one in ray.nodes() if one["Alive"]}
            for name in names:
                self.open[name] = [one for one in self.open.get(name, []) if one in alive]
        ended = [len(self.open.get(name, [])) for name in names]
        if max(ended) < most:
            for name in names:
                self.open.setdefault(name, []).append(node)
        return ended

    def end(self, names: Sequence[str]) -> None:
        """Note that the attempts have ended without the death of a process."""
        for name in names:
            self.open.pop(name, None)


class Watch:
    """Access of one process to the attempts of one stage."""

    def __init__(self, attempts: Any, stage: str) -> None:
        self.attempts, self.stage = attempts, stage
        self.node = ""
        self.done: list[str] = []

    def begin(self, names: list[str], most: int = MOST) -> list[int]:
        """As `Attempts.begin`."""
        self.node = self.node or ray.get_runtime_context().get_node_id()
        done, self.done = self.done, []
        return ray.get(self.attempts.begin.remote(self._named(names), self.node, most, done))

    def end(self, names: list[str]) -> None:
        """As `Attempts.end`, without waiting."""
        self.attempts.end.remote(self._named(names))

    def end_with_next(self, names: list[str]) -> None:
        """As `end`, but noted with the next `begin`, because calls are costly.

        If the process dies before, the names count as tried once. That suffices to try them alone,
        but not to fail them: alone, their end is noted at once.
        """
        self.done += self._named(names)

    def _named(self, names: list[str]) -> list[str]:
        return [f"{self.stage} {name}" for name in names]


class Watched:
    """A stage from batch to batch that survives pictures which end its process.

    If a batch has ended a process, its pictures are given to the stage one by one. A picture that
    ends another process is then passed as a row with the status `crashed`.
    """

    def __init__(self, attempts: Any, name: str, stage: Callable[[Batch], Batch]) -> None:
        self.stage, self.watch = stage, Watch(attempts, name)

    def __call__(self, batch: Batch) -> Batch:
        """Run the stage; the columns are those of the stage in any case."""
        identity = (batch[column].tolist() for column in ("uri", "etag", "frame"))
        names = [f"{uri} {etag} {frame}" for uri, etag, frame in zip(*identity, strict=True)]
        if any(self.watch.begin(names, most=1)):
            parts = [self._alone(batch, i, name) for i, name in enumerate(names)]
            return {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}
        done = self.stage(batch)
        self.watch.end_with_next(names)
        return done

    def _alone(self, batch: Batch, i: int, name: str) -> Batch:
        one = writable({column: values[i : i + 1] for column, values in batch.items()})
        if self.watch.begin([name])[0] >= MOST:
            fail_row(one, 0, "crashed", REASON)
            return self.stage(one)
        done = self.stage(one)
        self.watch.end([name])
        return done


def shared() -> Any:
    """Start the actor on this node; it lives as long as its handle.

    The driver's node cannot be lost without the run. Ray heeds only hard affinity for an actor that
    needs no resources; otherwise it takes a random node, which a spot notice may end.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Attempts).options(num_cpus=0, scheduling_strategy=here).remote()
