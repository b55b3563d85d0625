"""Progress of a screening: listed objects; pictures by stage, with rate and time left.

On a terminal Ray Data draws one bar per stage. Elsewhere a plain line is printed every ten seconds,
so that a job's log can be followed.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback

from fundus.archive.entries import Entry

EVERY_S = 10.0
STATES = {"(Crops)": "cropped", "(Rows)": "measured", "(CropsAndRows)": "measured"}
"""State of a picture after each stage of `fundus.screening.stages`, in order. Ray's name of a stage
contains its class in parentheses."""

Show = Callable[[str], None]


def listing(entries: Iterable[Entry], show: Show, *, every_s: float = EVERY_S) -> Iterator[Entry]:
    """Return the same entries; every ten seconds show how many have been listed."""
    start = last = time.monotonic()
    for count, entry in enumerate(entries, start=1):
        yield entry
        now = time.monotonic()
        if now - last > every_s:
            last = now
            show(f"listing: {count:,} objects, {count / (now - start):,.0f} per second")


class Progress:
    """Progress of one pass over the objects to screen.

    Args:
        objects: how many there are.
        show: called with each line.
        every_s: seconds between two lines.
    """

    def __init__(self, objects: int, show: Show, *, every_s: float = EVERY_S) -> None:
        self.objects, self.show, self.every_s = objects, show, every_s
        self.statuses: Counter[str] = Counter()
        self.stages: Counter[str] = Counter()
        """Pictures that left a stage, in the earlier rounds."""
        self.round: Counter[str] = Counter()
        """Pictures that left a stage, in this round."""
        self.start = self.last = time.monotonic()
        self.first: tuple[float, int] | None = None
        """Time and number of the first rows: the rate excludes the loading of models before."""

    def begin_round(self, context: DataContext) -> None:
        """Follow the stages of the execution that starts next."""
        global _followed
        _followed = self
        self.stages, self.round = self.stages + self.round, Counter()
        if Steps not in context.custom_execution_callback_classes:
            context.custom_execution_callback_classes.append(Steps)

    def wrote(self, statuses: Iterable[str]) -> None:
        """Count rows that were written."""
        self.statuses.update(statuses)
        if self.first is None:
            self.first = time.monotonic(), self.statuses.total()
        self.tell()

    def tell(self) -> None:
        """Show a line, if there is no terminal and the last line is ten seconds old."""
        now = time.monotonic()
        if now - self.last > self.every_s and not sys.stderr.isatty():
            self.last = now
            self.show(self.line(now))

    def line(self, now: float) -> str:
        """For example `96 rows of 400 objects, 2.10 per second, 2 min left: 90 ok, 6 no_disc`."""
        rows = self.statuses.total()
        parts = [f"{rows:,} rows of {self.objects:,} objects"]
        pace = self._pace(now)
        if pace:
            left = max(0, self.objects - rows) / pace
            parts.append(f"{pace:.2f} per second, {duration(left)} left")
        stages = self.stages + self.round
        parts += [
            f"{count:,} {name}"
            for name in dict.fromkeys(STATES.values())
            if (count := stages[name])
        ]
        counted = ", ".join(f"{count:,} {status}" for status, count in self.statuses.most_common())
        return ", ".join(parts) + (f": {counted}" if counted else "")

    def _pace(self, now: float) -> float:
        """Rows per second; 0 while there is no rate."""
        if self.first is None:
            return 0.0
        since, rows = self.first
        late = self.statuses.total() - rows
        if late:
            return late / (now - since)
        return self.statuses.total() / (now - self.start)


_followed: Progress | None = None
"""The progress that `Steps` updates: Ray instantiates `Steps` itself, in the driver's process."""


class Steps(ExecutionCallback):
    """Counts the pictures that left each stage, by Ray Data's scheduler."""

    def on_execution_step(self, executor: Any) -> None:
        """Update the counts at each step of the scheduler.

        The topology is internal to Ray. If it is missing, lines have no counts by stage.
        """
        if _followed is None:
            return
        for operator in getattr(executor, "_topology", None) or ():
            for stage, state in STATES.items():
                if stage in operator.name:
                    _followed.round[state] = operator.metrics.row_outputs_taken
        _followed.tell()


def duration(seconds: float) -> str:
    """A duration for people: `50 s`, `12 min` or `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
