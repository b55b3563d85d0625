#!/usr/bin/env python
"""Measure the size of the report of a large run, and the time to write and to open it.

    python benchmarks/report_size.py --results results --rows 10000

Repeats the rows of real results until there are `--rows` of them, writes them as a table, and
writes the report of that table. 40 eyes are shown with their picture. Where Playwright and Chromium
are installed, it also measures the time from opening the first page until the list and the first
eye are drawn.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import write_deltalake

from fundus.ledger import row, table
from fundus.report import run
from fundus.storage.places import open_place


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--results", required=True, help="folder or URI of real results")
    parser.add_argument("--rows", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = open_place(folder)
        rows = repeated(table.read(args.results), args.rows).cast(row.SCHEMA)
        write_deltalake(table.opened(place), rows, mode="append")
        start = time.monotonic()
        written = run.write(place)
        seconds = time.monotonic() - start
        first = Path(folder) / "reports" / written.run_id / run.FIRST
        others = [file.stat().st_size for file in first.parent.glob("eyes-*.html")]
        print(f"{args.rows} rows, {written.pictures} eyes with their picture")
        print(f"first page {first.stat().st_size / 1e6:.2f} MB; written in {seconds:.1f} s")
        if others:
            print(f"{len(others)} further pages, at most {max(others) / 1e6:.2f} MB each")
        if chromium := shutil.which("chromium"):
            times = opened(first, chromium)
            print(f"opened in {statistics.median(times):.2f} s, median of {len(times)}")
    return 0


def repeated(rows: pa.Table, count: int) -> pa.Table:
    """Repeat the newest run's rows under their own URIs, so that their pictures are found."""
    newest = max(rows["run_id"].to_pylist())
    rows = rows.filter(pc.equal(rows["run_id"], newest))
    return rows.take(pa.array([i % rows.num_rows for i in range(count)]))


def opened(page: Path, chromium: str, times: int = 5) -> list[float]:
    """Return the seconds until the list and the first eye are drawn, in a new context each time."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        flags = ["--headless", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        for _ in range(times):
            tab = browser.new_page()
            start = time.monotonic()
            tab.goto(page.as_uri())
            tab.locator("#eye svg.roi").first.wait_for()
            found.append(time.monotonic() - start)
            tab.close()
        browser.close()
    return found


if __name__ == "__main__":
    sys.exit(main())
