"""Progress of a screening run in its log: listed objects, stages, rate and time left."""

from types import SimpleNamespace

import pytest

from fundus.screening import progress
from fundus.screening.progress import Progress, Steps, duration, listing


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that only a test moves."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    return clock


class Operator(SimpleNamespace):
    """Hashable by identity, as Ray's are."""

    __hash__ = object.__hash__


def test_a_line_has_stages_rate_and_time_left(clock: SimpleNamespace) -> None:
    lines: list[str] = []
    seen = Progress(400, lines.append)
    context = SimpleNamespace(custom_execution_callback_classes=[])
    seen.begin_round(context)  # type: ignore[arg-type]
    assert context.custom_execution_callback_classes == [Steps]
    operators = [
        Operator(name=f"MapBatches({stage})", metrics=SimpleNamespace(row_outputs_taken=count))
        for stage, count in (("Crops", 96), ("Rows", 80), ("Write", 64))
    ]
    clock.now = 30.0
    Steps().on_execution_step(SimpleNamespace(_topology=dict.fromkeys(operators)))
    assert lines == ["0 rows of 400 objects, 96 cropped, 80 measured"]
    clock.now = 40.0
    seen.wrote(["ok"] * 20)  # the first: the only rate is that since the start
    clock.now = 60.0
    seen.wrote(["ok"] * 36 + ["no_disc"] * 4)
    assert lines[-1].startswith("60 rows of 400 objects, 2.00 per second, 3 min left, 96 cropped")
    assert lines[-1].endswith(": 56 ok, 4 no_disc") and len(lines) == 2
    seen.begin_round(context)  # type: ignore[arg-type]
    Steps().on_execution_step(SimpleNamespace(_topology=dict.fromkeys(operators)))
    assert "192 cropped, 160 measured" in seen.line(61.0), "rounds add up"
    Steps().on_execution_step(SimpleNamespace(_topology=dict.fromkeys(operators[:1])))
    assert "192 cropped, 160 measured" in seen.line(61.0), "an unknown chain changes nothing"
    assert len(context.custom_execution_callback_classes) == 1


def test_an_unknown_scheduler_costs_only_the_counts_of_stages(clock: SimpleNamespace) -> None:
    seen = Progress(4, lambda line: None)
    seen.begin_round(SimpleNamespace(custom_execution_callback_classes=[]))  # type: ignore[arg-type]
    Steps().on_execution_step(object())
    assert seen.line(1.0) == "0 rows of 4 objects"


def test_a_long_listing_reports_its_progress(clock: SimpleNamespace) -> None:
    lines: list[str] = []
    for number, _ in enumerate(listing(iter(range(3000)), lines.append)):  # type: ignore[arg-type]
        clock.now = number * 0.01
    assert lines[0] == "listing: 1,002 objects, 100 per second" and len(lines) == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(50, "50 s"), (720, "12 min"), (12_000, "3 h 20 min")]
)
def test_a_duration_is_written_in_a_fitting_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
