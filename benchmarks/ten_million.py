#!/usr/bin/env python
"""Measure the driver's work for an archive of ten million objects: time and memory of each part.

    python benchmarks/ten_million.py
    python benchmarks/ten_million.py --objects 100000

No picture is read: the inventory and the rows of the workers are made up. Each part runs in its own
process, whose peak memory is printed. The URIs have 215 characters.
"""

import argparse
import hashlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fundus.anatomy.risk import RiskModel
from fundus.archive.entries import Entry
from fundus.ledger import inventory, row, runs, table
from fundus.ledger.plan import Plan
from fundus.ledger.revise import recalibrate
from fundus.ledger.runs import Run
from fundus.screening.pipeline import MOST_ROWS
from fundus.storage.places import open_place

STEM = "s3://national-programme-archive/" + "region/hospital/camera/year/" * 6
NEW = 1000
RUN = Run("", "b" * 64, "frames", "a" * 64, "archive")


def uri(number: int) -> str:
    """Return a URI of 215 characters; URIs sort like their numbers."""
    return f"{STEM}{number:011}.jpg"


def etag(number: int) -> str:
    """Return 32 hexadecimal digits, as S3 does."""
    return hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest()


def entries(count: int) -> Iterator[Entry]:
    """Yield a listing."""
    for number in range(count):
        yield Entry(uri(number), etag(number), 2_000_000)


def listing(folder: Path, count: int) -> str:
    """Write the inventory of all objects to the driver's disk."""
    (folder / f"{count}").mkdir()
    listed = inventory.write(entries(count), folder / f"{count}", str)
    return f"{listed.objects} objects, {listed.file.stat().st_size >> 20} MiB"


def shortened(folder: Path, listed: int, count: int) -> str:
    """Write the inventory of the night before, with only the first `count` objects."""
    (folder / f"{count}").mkdir()
    whole = pq.ParquetFile(folder / f"{listed}" / "working.parquet")
    left = count
    with pq.ParquetWriter(folder / f"{count}" / "working.parquet", whole.schema_arrow) as writer:
        for batch in whole.iter_batches(inventory.BATCH):
            writer.write_batch(batch[:left])
            left = max(0, left - batch.num_rows)
    return f"{count} objects"


def written(folder: Path, first: int, count: int) -> str:
    """Write the files of the workers: rows with random measures, without masks."""
    place = open_place(str(folder / "results"))
    run = runs.begin(place, RUN)
    (folder / "results" / run.rows).mkdir(parents=True)
    draw = np.random.default_rng(0)
    for start in range(first, first + count, MOST_ROWS):
        numbers = range(start, min(start + MOST_ROWS, first + count))
        columns = {"uri": list(map(uri, numbers)), "etag": list(map(etag, numbers))}
        columns |= {"status": ["ok"] * len(numbers), "vcdr": list(draw.random(len(numbers)))}
        columns["vcdr_sd"] = list(0.1 * draw.random(len(numbers)))
        rows = row.table(columns, run.run_id, run.bundle, run.settings, run.measuring)
        pq.write_table(rows, folder / "results" / run.rows / f"{start:08}.parquet")
    return f"{count} rows in files of {MOST_ROWS}"


def committed(folder: Path, listed: int) -> str:
    """Do everything from the listing to the commit, with all rows already written."""
    place = open_place(str(folder / "results"))
    run = runs.begin(place, RUN)
    with (
        tempfile.TemporaryDirectory(dir=folder) as scratch,
        closing(Plan(place, run, Path(scratch))) as plan,
    ):
        marks = [time.monotonic()]
        wanted = plan.want(folder / f"{listed}" / "working.parquet", table.opened(place))
        marks.append(time.monotonic())
        plan.refresh()
        marks.append(time.monotonic())
        plan.publish()
        marks.append(time.monotonic())
    runs.finish(place, run, b"{}")
    wants, reads, commits = np.diff(marks)
    return f"{wanted} wanted: {wants:.0f} s, ids read: {reads:.0f} s, committed: {commits:.0f} s"


def left(folder: Path, listed: int) -> str:
    """Find what is left of an archive after all but a few objects are done."""
    place = open_place(str(folder / "results"))
    with (
        tempfile.TemporaryDirectory(dir=folder) as scratch,
        closing(Plan(place, RUN, Path(scratch))) as plan,
    ):
        plan.want(folder / f"{listed}" / "working.parquet", table.opened(place))
        plan.refresh()
        found = plan.todo()
        return f"{found} of {listed} left, {sum(t.num_rows for t in plan.rounds())} handed out"


def calibrated(folder: Path) -> str:
    """Write the risk of a newly calibrated bundle into all rows."""
    model = RiskModel(-1.0, 9.0, 0.5, 0.1, 0.4, 0.9, 20, 20, "set", "c" * 64)
    place = open_place(str(folder / "results"))
    changed = recalibrate(place, replace(RUN, bundle="d" * 64), model)
    return f"{changed} rows have another risk"


def read(folder: Path) -> str:
    """Count the rows with Polars, as an analyst does: one row per picture."""
    import polars

    rows = polars.scan_delta(str(folder / "results" / "rows")).select(polars.len()).collect()
    return f"{rows.item()} rows"


def timed(work: Callable[..., str], *arguments: object) -> tuple[str, float, float]:
    """Return the summary of a part, its seconds, and the peak memory of this process in MiB."""
    start = time.monotonic()
    summary = work(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return summary, time.monotonic() - start, peak


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=10_000_000)
    parser.add_argument("--scratch", type=Path, help="folder with 10 GB free, else the system's")
    args = parser.parse_args(arguments)
    count, later = args.objects, args.objects + NEW
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        folder = Path(scratch)
        print(f"{'part':42} {'seconds':>8} {'peak MiB':>9}", flush=True)
        for name, work, values in (
            ("listing", listing, (later,)),
            ("(the night before: not the driver)", shortened, (later, count)),
            ("(workers write, not the driver)", written, (0, count)),
            ("the first night's plan and commit", committed, (count,)),
            ("what is left, the next night", left, (later,)),
            ("(workers write, not the driver)", written, (count, NEW)),
            ("the next night's plan and commit", committed, (later,)),
            ("a newly calibrated bundle's risk", calibrated, ()),
            ("read by Polars", read, ()),
        ):
            # Each part has its own process, so that no peak is hidden by another.
            with get_context("spawn").Pool(1) as pool:
                summary, seconds, peak = pool.apply(timed, (work, folder, *values))
            print(f"{name:42} {seconds:8.1f} {peak:9.0f}  {summary}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
