#!/usr/bin/env python
"""Screen a hospital's archive on a real S3 server: one row for every object, faults or not.

    python benchmarks/screen_hospital.py --data DATA --count 2000
    python benchmarks/screen_hospital.py --data DATA --count 2000 --faults 0.05

Prints the rows by status, and whether their URIs are those of the inventory. With --faults, the
archive is screened a second time, through a proxy that breaks this share of all requests in each of
six ways. Every row that was ok before must be ok again. The exit code is 1 if anything differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from hospital import Hospital, build
from kills import ROOT

sys.path.insert(0, str(ROOT / "tests"))

from fault_proxy import FaultProxy
from s3_server import Server

from fundus.ledger import table
from fundus.storage.places import open_place


def screen(archive: str, results: str, more: Sequence[str], tries: int = 1) -> tuple[pa.Table, int]:
    """Run jobs/screen.py until it ends with 0; return the current rows and the number of starts."""
    command = [sys.executable, str(ROOT / "jobs" / "screen.py"), "--archive", archive]
    started = 0
    for _ in range(tries):
        started += 1
        done = subprocess.run([*command, "--results", results, *more], cwd=ROOT, check=False)
        if done.returncode == 0:
            break
    else:
        raise SystemExit(f"screening ended with {done.returncode}")
    return table.read(results, ["uri", "status", "error", "frame", "frames"]), started


def compared(rows: pa.Table, hospital: Hospital) -> int:
    """Print the rows by status; return how many are missing, have no object or come twice."""
    pictures = Counter(zip(rows["uri"].to_pylist(), rows["frame"].to_pylist(), strict=True))
    found = {uri for uri, _ in pictures}
    lost, foreign = hospital.inventory - found, found - hospital.inventory
    frames = dict(zip(rows["uri"].to_pylist(), rows["frames"].to_pylist(), strict=True))
    seen = Counter(uri for uri, _ in pictures)
    lost |= {uri for uri, count in frames.items() if seen[uri] != count}
    twice = sum(count > 1 for count in pictures.values())
    print(f"{len(hospital.inventory)} objects, {rows.num_rows} rows (one per DICOM frame)")
    for status, count in Counter(rows["status"].to_pylist()).most_common():
        print(f"{count:7}  {status}")
    print(
        f"{len(lost)} objects without all their rows, {len(foreign)} rows without an object,"
        f" {twice} pictures twice"
    )
    print(*sorted(lost | foreign)[:5], sep="\n")
    return len(lost) + len(foreign) + twice


def ok_uris(rows: pa.Table) -> set[tuple[str, int]]:
    """Return (URI, frame) of every picture that was measured."""
    columns = (rows[name].to_pylist() for name in ("uri", "frame", "status"))
    return {(uri, frame) for uri, frame, status in zip(*columns, strict=True) if status == "ok"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("arguments", nargs="*", help="more arguments for jobs/screen.py, after --")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        os.environ.update(server.environment | {"OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local"})
        place = f"s3://{server.bucket()}"
        hospital = build(open_place(f"{place}/archive"), args.data, args.count, args.seed)
        for kind, number in sorted(hospital.kinds.items()):
            print(f"{number:7}  {kind}")
        start = time.monotonic()
        rows, _ = screen(hospital.uri, f"{place}/results", args.arguments)
        print(f"without faults, {time.monotonic() - start:.0f} s:")
        wrong = compared(rows, hospital)
        if args.faults:
            with FaultProxy(server.endpoint, seed=args.seed, share=args.faults) as proxy:
                os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
                start = time.monotonic()
                again, starts = screen(hospital.uri, f"{place}/again", args.arguments, tries=5)
                broken, requests = proxy.faults, len(proxy.requests)
                os.environ["AWS_ENDPOINT_URL"] = server.endpoint
            print(f"with faults, {time.monotonic() - start:.0f} s, {starts} starts:")
            print(f"{broken.total()} of {requests} requests broken: {dict(broken)}")
            wrong += compared(again, hospital)
            missing = ok_uris(rows) - ok_uris(again)
            print(f"{len(missing)} of {len(ok_uris(rows))} rows are ok only without faults")
            wrong += len(missing)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
