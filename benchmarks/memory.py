#!/usr/bin/env python
"""Test whether a long screening takes more memory than a short one: peaks by kind of process.

    python benchmarks/memory.py --data DATA --frames 500 5000

Screens archives of both sizes (real frames, reduced, all files different). Prints the highest
private resident memory of the driver and of each kind of worker. The exit code is 1 if a kind of
process took over a tenth more memory for the larger archive. A first job, which is not counted,
builds the graphs of the bundle, for which its driver needs PyTorch.
"""

import argparse
import io
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from kills import ROOT, descendants
from PIL import Image

MAX_RATIO = 1.1
WARM_UP = 8
TASKS = ("IDLE", "MapBatches", "get_table_block_metadata_schema")
"""Titles that the same worker process of Ray takes in turn, when idle and in its tasks."""


def fill(folder: Path, data: Path, count: int, side: int) -> None:
    """Write `count` different JPEGs of the real frames in turn, at most `side` pixels long."""
    rng = random.Random(count)
    files = sorted((data / "drishti_gs1_full" / "images").glob("*"))
    contents = []
    for file in files:
        image = Image.open(file).convert("RGB")
        image.thumbnail((side, side))
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=85)
        contents.append(sink.getvalue())
    for number in range(count):
        # Bytes after the end of a JPEG do not change the picture, but give each file its own etag.
        content = contents[number % len(contents)] + rng.randbytes(8)
        (folder / f"{number:06d}.jpg").write_bytes(content)


def memory_of(pid: int) -> tuple[str, int] | None:
    """Return the kind of a process of the screening and its private resident bytes now."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        fields = dict(
            re.findall(r"^(\w+):\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
        )
    except OSError:
        return None
    if "RssAnon" not in fields:
        return None
    if "sandbox_child" in command:
        kind = "decoding child"
    elif command.startswith("ray::"):
        # The title of an actor contains its current method.
        name = re.split(r"[ (.]", command.removeprefix("ray::"))[0]
        kind = "ray:: tasks" if name in TASKS else f"ray::{name}"
    elif "jobs/screen.py" in command:
        kind = "driver"
    else:
        return None
    return kind, int(fields["RssAnon"]) * 1024


def peaks(command: list[str]) -> dict[str, int]:
    """Run a command; return the highest memory of one process, by kind."""
    found: dict[str, int] = {}
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while driver.poll() is None:
        for pid in [driver.pid, *descendants(driver.pid)]:
            if one := memory_of(pid):
                found[one[0]] = max(found.get(one[0], 0), one[1])
        time.sleep(0.25)
    if driver.returncode:
        raise SystemExit(f"screening ended with {driver.returncode}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--frames", type=int, nargs=2, default=[500, 5000])
    parser.add_argument("--side", type=int, default=640, help="pixels of the frames' longer side")
    parser.add_argument("arguments", nargs="*", help="more arguments for jobs/screen.py, after --")
    args = parser.parse_args(arguments)
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local"}
    found = []
    for count in (WARM_UP, *args.frames):
        print(f"{count} frames", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch) / "archive"
            archive.mkdir()
            fill(archive, args.data, count, args.side)
            command = [sys.executable, str(ROOT / "jobs" / "screen.py"), "--archive", str(archive)]
            found.append(peaks([*command, "--results", f"{scratch}/results", *args.arguments]))
    found = found[1:]
    few, many = args.frames
    grown = 0
    print(f"{'kind of process':40}  {few:>7} frames  {many:>7} frames  ratio")
    for kind in sorted(set(found[0]) | set(found[1])):
        low, high = (one.get(kind, 0) for one in found)
        ratio = f"{high / low:5.2f}" if low else "    -"
        print(f"{kind:40}  {low >> 20:>10} MiB  {high >> 20:>10} MiB  {ratio}")
        grown += bool(low) and high > MAX_RATIO * low
    return int(grown > 0)


if __name__ == "__main__":
    sys.exit(main())
