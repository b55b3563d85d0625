"""Comparison of one night with earlier nights and with the bundle's source, per camera."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fundus.drift.compare import ALPHA, LEAST, LOOK, MEASURED, Difference, corrected, differences
from fundus.storage.places import Place

NIGHTS = 14
"""Most earlier runs with which a night is compared."""
COLUMNS = (
    *("run_id", "measuring", "settings", "status", "subject", "manufacturer", "model"),
    *LOOK,
    *MEASURED,
)
"""The columns that are read."""
UNNAMED = "camera not named"
WORDS = {
    "field_red": "red of the field",
    "field_green": "green of the field",
    "field_blue": "blue of the field",
    "disc_confidence": "confidence of the detector",
    "vcdr": "vCDR",
    "vcdr_sd": "spread of vCDR",
}
"""Names of columns for people; other names are plain words already."""
OF_EYES = ("vcdr", "vcdr_sd")
"""Features that other patients change as well as another camera: alone they do not say "adapt"."""
METHOD = (
    "Two-sample Kolmogorov-Smirnov tests, for statuses Fisher's exact tests, corrected together by"
    f" Holm's method: at most {ALPHA:.0%} of unchanged nights raise an alarm if pictures are"
    f" independent. An alarm also needs a distance of {LEAST}."
)


@dataclass(frozen=True)
class Drift:
    """The result of the comparison of one night."""

    sentence: str
    """For the summary, the terminal and the report."""
    command: str
    """The command that adapts to the change; empty if the pictures did not change."""
    differences: tuple[Difference, ...]

    @property
    def alarm(self) -> bool:
        """Whether anything changed."""
        return any(one.alarm for one in self.differences)


def look(rows: pa.Table, run_id: str, *, bundle: str, source: pa.Table | None = None) -> Drift:
    """Compare one run's rows with those of earlier runs and of the bundle's source.

    Args:
        rows: current rows of the results, at least `COLUMNS`.
        run_id: the night.
        bundle: folder or URI of the bundle, for the command.
        source: the result of `reference.load`; None if the bundle has no reference.

    Returns:
        The differences per camera, with p values corrected over all of them. Measures are compared
        only between rows of the same networks, and frames never with disc crops. A source that
        other networks measured is not used, because an adapted bundle has also learned from other
        pictures. Only the first picture of each subject counts, because both eyes are similar.
    """
    night = _of_run(rows, run_id)
    source = _alike(source, night)
    found: list[Difference] = []
    for camera, now in _cameras(night):
        for against, then in _references(rows, run_id, now, camera, source):
            same = pc.equal(then["measuring"], now["measuring"][0])
            pairs = differences(now, then, LOOK)
            if pc.all(same).as_py():
                pairs = differences(now, then, (*LOOK, *MEASURED))
            found += [replace(one, camera=camera, against=against) for one in pairs]
    return _summarised(corrected(found), run_id, bundle)


def source_vcdr(rows: pa.Table, run_id: str, source: pa.Table | None) -> np.ndarray | None:
    """(N,) float, vCDR of the source if the run's own networks measured it; else None."""
    alike = _alike(source, _of_run(rows, run_id))
    return None if alike is None else alike["vcdr"].to_numpy()


def note(place: Place, run_id: str, drift: Drift) -> None:
    """Add the sentence to the run's `summary.json`, if the run has one."""
    name = f"runs/{run_id}/summary.json"
    if held := place.read(name):
        summary = json.loads(held[0]) | {"drift": drift.sentence, "drift_alarm": drift.alarm}
        place.put(name, json.dumps(summary, indent=2).encode() + b"\n")


def for_page(drift: Drift) -> dict:
    """The values that the report's template shows."""
    digits = {"field_red": 0, "field_green": 0, "field_blue": 0, "sharpness": 4}
    rows = [
        {
            "camera": one.camera,
            "against": one.against,
            "feature": WORDS.get(one.feature, one.feature),
            "now": f"{one.now:.{digits.get(one.feature, 2)}f}",
            "then": f"{one.then:.{digits.get(one.feature, 2)}f}",
            "distance": f"{one.distance:.2f}",
            "p": "< 0.0001" if one.p < 1e-4 else f"{one.p:.4f}",
            "alarm": one.alarm,
        }
        for one in drift.differences
    ]
    return {
        "alarm": drift.alarm,
        "sentence": drift.sentence,
        "command": drift.command,
        "method": METHOD,
        "rows": rows,
    }


def _of_run(rows: pa.Table, run_id: str) -> pa.Table:
    return rows.filter(pc.equal(rows["run_id"], run_id))


def _alike(source: pa.Table | None, night: pa.Table) -> pa.Table | None:
    """The rows of the source that were measured in the same way as the night; None if none."""
    if source is None or not night.num_rows:
        return None
    same = [pc.equal(source[name], night[name][0]) for name in ("measuring", "settings")]
    alike = source.filter(pc.and_(*same))
    return alike if alike.num_rows else None


def _cameras(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each camera, one per subject if subjects are known."""
    names = _names(rows)
    for name in sorted(set(names)):
        yield name, _one_each(rows.filter(pa.array([one == name for one in names])))


def _names(rows: pa.Table) -> list[str]:
    pairs = zip(rows["manufacturer"].to_pylist(), rows["model"].to_pylist(), strict=True)
    return [" ".join(filter(None, pair)) or UNNAMED for pair in pairs]


def _one_each(rows: pa.Table) -> pa.Table:
    seen: set[str] = set()
    keep = []
    for subject in rows["subject"].to_pylist():
        keep.append(subject is None or subject not in seen)
        seen.add(subject)
    return rows.filter(pa.array(keep, pa.bool_()))


def _references(
    rows: pa.Table, run_id: str, now: pa.Table, camera: str, source: pa.Table | None
) -> Iterator[tuple[str, pa.Table]]:
    settings = now["settings"][0]
    alike = rows.filter(pc.equal(rows["settings"], settings))
    earlier = sorted(run for run in set(alike["run_id"].to_pylist()) if run < run_id)[-NIGHTS:]
    before = alike.filter(pc.is_in(alike["run_id"], pa.array(earlier, pa.string())))
    same = before.filter(pa.array([name == camera for name in _names(before)], pa.bool_()))
    if same.num_rows:
        yield f"{len(earlier)} earlier runs", _one_each(same)
    elif before.num_rows:
        yield f"other cameras of {len(earlier)} earlier runs", _one_each(before)
    if source is not None:
        yield "the bundle's source", source


def _summarised(found: list[Difference], run_id: str, bundle: str) -> Drift:
    day = f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}"
    alarms = [one for one in found if one.alarm]
    if not found:
        sentence = "There are too few earlier pictures to tell whether the camera has changed."
        return Drift(sentence, "", ())
    if not alarms:
        against = " and ".join(dict.fromkeys(one.against for one in found))
        return Drift(f"The pictures are like those of {against}.", "", tuple(found))
    if all(one.feature in OF_EYES for one in alarms):
        sentence = (
            f"The pictures look alike, but the eyes differ: other patients? {_about(alarms)}."
        )
        return Drift(sentence, "", tuple(found))
    changed = [one for one in alarms if one.against != "the bundle's source"]
    start = f"The pictures changed on {day}" if changed else "The pictures are not the source's"
    sentence = f"{start}: adapt. {_about(alarms)}."
    command = (
        f"python jobs/adapt.py --bundle {bundle} --source LABELLED_SET"
        " --target folder:PICTURES_OF_THE_NEW_CAMERA --to runs/adapted"
    )
    return Drift(sentence, command, tuple(found))


def _about(alarms: list[Difference]) -> str:
    worst = max(alarms, key=lambda one: one.distance)
    names = ", ".join(dict.fromkeys(WORDS.get(one.feature, one.feature) for one in alarms))
    camera = worst.camera[0].upper() + worst.camera[1:]
    return f"{camera}, against {worst.against}, differs in {names}"
