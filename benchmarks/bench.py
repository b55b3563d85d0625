#!/usr/bin/env python
"""`make bench`: measure the speed of the whole screening, as ratios within one run.

    python benchmarks/bench.py --data DATA [--rounds 5] [--frames 400] [--before FOLDER]

Screens real frames of DATA's manifest with `jobs/screen.py` in its own process: first 100 frames,
then `--frames`; with the profile `fast` three times as many, because both processes must be at work
before the shorter run ends. The difference of the two times gives the time per frame after
start-up. In each round all variants take turns, and all figures are medians over the rounds:

(a) the chain against its bare stages: `benchmarks/stages.py` in one process per core
(b) both profiles against `benchmarks/plain.py`, the script that a user would write
(c) each stage's share of the bare time
(d) one core against all (Ray sees one, and the process is bound to one)
(g) seconds from the start of the process until the first row is stored, and until the end of a job
    of 4 frames; and both when the graphs of the bundle are rebuilt

With --before, a folder with an older checkout of the repository, its `jobs/screen.py` is measured
too. (e), memory against the size of the archive, is `benchmarks/memory.py`; (f), the networks
against the machine's matrix product, is `benchmarks/engines.py`.
"""

import argparse
import csv
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fundus.models import bundle as bundles
from fundus.models.bundle import STUDENT
from fundus.runtime.allocator import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
CORES = len(os.sched_getaffinity(0))
FEW, FIRST = 100, 4
MORE = {"exact": 1, "fast": 3}
"""Frames per profile, as multiples of FEW and of --frames."""
STAGES = ("read", "locate", "crop", "segment", "measure")


def fill(folder: Path, data: Path, count: int) -> None:
    """Copy `count` real frames in a fixed random order, and all of them again if they run out.

    So any number of the first frames is a sample of all sets. Bytes after the end of a picture,
    which change nothing else, make all files different.
    """
    with (data / "manifest.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["set"].endswith("_full")]
    chosen = [row["image"] for row in rows]
    random.Random(0).shuffle(chosen)
    for number in range(count):
        file = data / chosen[number % len(chosen)]
        content = file.read_bytes() + number.to_bytes(8)
        (folder / f"{number:04d}{file.suffix}").write_bytes(content)


def job(
    code: Path,
    bundle: Path,
    archive: Path,
    results: Path,
    limit: int,
    *options: str,
    cores: int = CORES,
) -> float:
    """Return the seconds of one screening, from the start of its process to its end."""
    command = [sys.executable, str(code / "jobs" / "screen.py"), "--archive", str(archive)]
    command += ["--results", str(results / f"{time.monotonic_ns()}"), "--limit", str(limit)]
    command += ["--bundle", str(bundle), "--no-report", *options]
    # Ray counts the cores of the machine, not those that the process may use.
    environment = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    environment["RAY_OVERRIDE_RESOURCES"] = json.dumps({"CPU": cores})
    bound = ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))]
    start = time.monotonic()
    finished = subprocess.run(
        bound + command, env=environment, cwd=code, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        sys.exit(f"bench: {' '.join(command)}\n{finished.stdout[-1000:]}{finished.stderr[-3000:]}")
    return time.monotonic() - start


def first_row(results: Path, started: float) -> float:
    """Return the seconds from `started` (Unix time) to the first stored row of the latest job."""
    latest = max(results.glob("[0-9]*"), key=lambda one: int(one.name))
    files = (latest / "rows").glob("[!_]*/*.parquet")
    return min(file.stat().st_mtime for file in files) - started


def plain(archive: Path, folder: Path, limit: int) -> float:
    """Return the seconds per frame of the user's script, without its start-up."""
    command = [sys.executable, str(ROOT / "benchmarks" / "plain.py"), str(archive)]
    command += [str(folder / "rows.csv"), "--limit", str(limit)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    match = re.search(r"in ([\d.]+) s", done.stdout)
    assert match
    return float(match[1]) / limit


def bare(archive: Path, profile: str, limit: int) -> dict[str, float]:
    """Return the seconds of one core per frame in each stage, with all cores busy."""
    command = [sys.executable, str(ROOT / "benchmarks" / "stages.py"), "--archive", str(archive)]
    command += ["--limit", str(limit), "--profile", profile, "--mean"]
    environment = os.environ | SETTINGS | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(CORES)
    ]
    reports = [json.loads(process.communicate()[0]) for process in processes]
    return {name: statistics.mean(report[name] for report in reports) for name in STAGES}


def slope(run: Callable[[int], float], frames: int, more: int = 1) -> float:
    """Return the seconds per frame after start-up, of `more` times FEW and `frames` frames."""
    few, many = run(more * FEW), run(more * frames)
    return (many - few) / (more * (frames - FEW))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="an older checkout")
    args = parser.parse_args(arguments)
    if args.frames <= 2 * FEW:
        parser.error(f"--frames must be more than {2 * FEW}: half of them are timed on one core")
    rounds: dict[str, list[float]] = {}
    shares: dict[str, list[dict[str, float]]] = {"exact": [], "fast": []}

    def record(name: str, seconds: float) -> None:
        rounds.setdefault(name, []).append(seconds)
        print(f"  {name}: {seconds:.3f} s", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as name:
        folder = Path(name)
        archive = folder / "archive"
        archive.mkdir()
        fill(archive, args.data, max(MORE.values()) * args.frames)

        # An older checkout does not know students.
        bundle, plain_bundle = bundles.default_folder(), folder / "bundle"
        bundles.save(bundles.load(bundle).without(STUDENT), plain_bundle)

        def screen(profile: str, cores: int = CORES) -> Callable[[int], float]:
            options = ["--profile", profile]
            return lambda n: job(ROOT, bundle, archive, folder, n, *options, cores=cores)

        def before(limit: int) -> float:
            return job(args.before.resolve(), plain_bundle, archive, folder, limit)

        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
            shutil.rmtree(folder / "cache", ignore_errors=True)
            for name in ("graphs rebuilt", "graphs in the cache"):
                started = time.time()
                record(f"job of {FIRST}, {name}", screen("exact")(FIRST))
                record(f"first row, {name}", first_row(folder, started))
            screen("fast")(FIRST)  # builds its graphs, which are no part of the time per frame
            for profile in shares:
                record(profile, slope(screen(profile), args.frames, MORE[profile]))
                shares[profile].append(bare(archive, profile, 40))
                record(f"bare {profile}", sum(shares[profile][-1].values()) / CORES)
            record("one core", slope(screen("exact", cores=1), args.frames // 2))
            record("plain", plain(archive, folder, 40))
            if args.before:
                record("before", slope(before, args.frames // 2))
    medians = {name: statistics.median(seconds) for name, seconds in rounds.items()}
    print(f"{args.frames} frames, {CORES} cores, medians of {args.rounds} rounds")
    for profile, measured in shares.items():
        frame = medians[profile]
        print(f"(a) {profile}, bare stages over chain: {medians[f'bare {profile}'] / frame:.2f}")
        print(f"(b) {profile}: {medians['plain'] / frame:.1f} times as fast as the plain script")
        parts = {stage: statistics.median(one[stage] for one in measured) for stage in STAGES}
        total = sum(parts.values())
        print("(c) " + ", ".join(f"{stage} {part / total:.0%}" for stage, part in parts.items()))
        if args.before:
            print(f"    {profile}: {medians['before'] / frame:.1f} times as fast as before")
    print(f"(d) all cores: {medians['one core'] / medians['exact']:.2f} times as fast as one")
    for name in ("graphs in the cache", "graphs rebuilt"):
        first, last = medians[f"first row, {name}"], medians[f"job of {FIRST}, {name}"]
        print(f"(g) {name}: first row after {first:.1f} s, end of {FIRST} frames {last:.1f} s")
    print("seconds: " + ", ".join(f"{name} {s:.3f}" for name, s in medians.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
