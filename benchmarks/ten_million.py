#!/usr/bin/env python
"""The driver's own work for an archive of ten million objects: time and peak memory of each part.

    python benchmarks/ten_million.py
    python benchmarks/ten_million.py --objects 100000

No picture is looked at: the inventory is made up, and the rows that workers would write are, too.
Each part runs in a process of its own, whose peak memory is printed. The URIs have 215 characters.
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
    """215 characters, in the order of the numbers."""
    return f"{STEM}{number:011}.jpg"


def etag(number: int) -> str:
    """32 hexadecimal digits, as S3 has them."""
    return hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest()


def entries(count: int) -> Iterator[Entry]:
    """A listing."""
    for number in range(count):
        yield Entry(uri(number), etag(number), 2_000_000)


def listing(folder: Path, count: int) -> str:
    """The inventory of all objects, on the driver's disk."""
    (folder / f"{count}").mkdir()
    listed = inventory.write(entries(count), folder / f"{count}", str)
    return f"{listed.objects} objects, {listed.file.stat().st_size >> 20} MiB"


def shortened(folder: Path, listed: int, count: int) -> str:
    """The inventory of the night before, with the first objects alone."""
    (folder / f"{count}").mkdir()
    whole = pq.ParquetFile(folder / f"{listed}" / "working.parquet")
    left = count
    with pq.ParquetWriter(folder / f"{count}" / "working.parquet", whole.schema_arrow) as writer:
        for batch in whole.iter_batches(inventory.BATCH):
            writer.write_batch(batch[:left])
            left = max(0, left - batch.num_rows)
    return f"{count} objects"


def written(folder: Path, first: int, count: int) -> str:
    """What the workers write: files of rows, measures at random, without masks."""
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
    """Everything from the listing to the commit, with all rows written."""
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
    return f"{wanted} wanted {wants:.0f} s, ids read {reads:.0f} s, committed {commits:.0f} s"


def left(folder: Path, listed: int) -> str:
    """What is left of an archive, all of which but some is done."""
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
    """The risk of a newly calibrated bundle in all rows."""
    model = RiskModel(-1.0, 9.0, 0.5, 0.1, 0.4, 0.9, 20, 20, "set", "c" * 64)
    place = open_place(str(folder / "results"))
    changed = recalibrate(place, replace(RUN, bundle="d" * 64), model)
    return f"{changed} rows have another risk"


def read(folder: Path) -> str:
    """One row a picture, as an analyst counts them: with Polars."""
    import polars

    rows = polars.scan_delta(str(folder / "results" / "rows")).select(polars.len()).collect()
    return f"{rows.item()} rows"


def timed(work: Callable[..., str], *given: object) -> tuple[str, float, float]:
    """What it says, its seconds, and the peak memory of this process in MiB."""
    start = time.monotonic()
    said = work(*given)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return said, time.monotonic() - start, peak


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=10_000_000)
    parser.add_argument("--scratch", type=Path, help="where 10 GB are free; default: the system's")
    given = parser.parse_args(arguments)
    count, later = given.objects, given.objects + NEW
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
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
            # A process of its own each: the peak of one must not hide behind another's.
            with get_context("spawn").Pool(1) as pool:
                said, seconds, peak = pool.apply(timed, (work, folder, *values))
            print(f"{name:42} {seconds:8.1f} {peak:9.0f}  {said}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
