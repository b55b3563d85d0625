#!/usr/bin/env python
"""Test that a change of camera raises the alarm and the variety within one camera does not.

    python benchmarks/drift.py --data data/real --camera origa_full --other messidor_riga_full

Reads the frames of a manifest and computes the colour and the sharpness of each field as screening
does. With --measure it also computes the detector's confidence, vCDR and spread, which takes
longer. It then calls the function that screening calls:

1. For two weeks of nights of one camera and then a night of the other: the alarm must be raised.
2. For many random halves of one camera, one as a night and one as the earlier nights: the share of
   alarms must stay below the stated rate.
"""

import argparse
import csv
import random
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

import fundus
from fundus.decoding.picture import pictures
from fundus.drift import compare, nights
from fundus.field import quality
from fundus.images.decode import Refused
from fundus.ledger import row


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.csv")
    parser.add_argument("--camera", default="origa_full", help="set of the first camera")
    parser.add_argument("--other", default="messidor_riga_full", help="set of the second one")
    parser.add_argument("--limit", type=int, default=400, help="most frames per set")
    parser.add_argument("--halves", type=int, default=1000, help="random halves per set")
    parser.add_argument("--measure", action="store_true", help="run the networks too")
    args = parser.parse_args()
    sets = {name: frames(args, name) for name in (args.camera, args.other)}
    first, second = sets.values()
    night = f"{args.other} after 14 nights of {args.camera}"
    run, before = "20270115T220000Z-000000", two_weeks(first)
    show(night, nights.look(pa.concat_tables([before, of_run(second, run)]), run, bundle="BUNDLE"))
    for name, rows in sets.items():
        alarms = [alarm(rows, seed) for seed in range(args.halves)]
        print(
            f"{name}: {sum(alarms)} alarms in {len(alarms)} random halves of {rows.num_rows} frames"
            f" ({np.mean(alarms):.2%}; stated: at most {compare.ALPHA:.0%})"
        )
    return 0


def frames(args: argparse.Namespace, name: str) -> pa.Table:
    """Return the set's frames as rows, in random order because manifests are sorted."""
    with (args.data / "manifest.csv").open(newline="") as lines:
        paths = [one["image"] for one in csv.DictReader(lines) if one["set"] == name]
    random.Random(0).shuffle(paths)
    found = [graded(args.data / path, args.measure) for path in paths[: args.limit]]
    columns = {key: [one.get(key) for one in found] for key in {k for one in found for k in one}}
    columns |= {"uri": [str(i) for i in range(len(found))], "etag": ["1"] * len(found)}
    return row.table(columns, "none", "b" * 64, "frames").select(list(nights.COLUMNS))


def graded(path: Path, measure: bool) -> dict:
    """Return the results of screening for one frame."""
    names = (*compare.LOOK, *compare.MEASURED)
    if measure:
        eye = fundus.measure(path)
        return {"status": eye.status} | {name: getattr(eye, name) for name in names}
    try:
        (found,) = pictures(path.read_bytes())
    except Refused as refused:
        return {"status": refused.status}
    grade = quality.assess(found.pixels)
    look = {column: grade.measures.get(name) for column, name in quality.LOOK.items()}
    return look | {"status": "ungradable" if grade.reason else "ok"}


def of_run(rows: pa.Table, run_id: str) -> pa.Table:
    at = rows.schema.get_field_index("run_id")
    return rows.set_column(at, rows.schema.field(at), pa.array([run_id] * rows.num_rows))


def two_weeks(rows: pa.Table) -> pa.Table:
    """Spread the rows over 14 nights."""
    parts = [rows.take(list(range(day, rows.num_rows, 14))) for day in range(14)]
    return pa.concat_tables(
        [of_run(part, f"202701{day:02d}T220000Z-000000") for day, part in enumerate(parts, start=1)]
    )


def alarm(rows: pa.Table, seed: int) -> bool:
    """Return whether one random half raises an alarm against the other."""
    order = np.random.default_rng(seed).permutation(rows.num_rows)
    half = len(order) // 2
    early = of_run(rows.take(order[:half]), "20270101T220000Z-000000")
    late = of_run(rows.take(order[half:]), "20270102T220000Z-000000")
    both = pa.concat_tables([early, late])
    return nights.look(both, "20270102T220000Z-000000", bundle="BUNDLE").alarm


def show(title: str, drift: nights.Drift) -> None:
    print(f"{title}\n  {drift.sentence}\n  {drift.command}")
    for one in drift.differences:
        print(
            f"  {'ALARM' if one.alarm else 'alike':6s} {one.feature:20s} now {one.now:9.4f}"
            f" then {one.then:9.4f} distance {one.distance:.2f} adjusted p {one.p:.2g}"
        )


if __name__ == "__main__":
    sys.exit(main())
