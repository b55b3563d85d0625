#!/usr/bin/env python
"""`make bench`: how fast the whole screening is, as ratios of things measured in one run.

    python benchmarks/bench.py --data DATA [--rounds 5] [--frames 200] [--before FOLDER]

Screens real frames of DATA's manifest with `jobs/screen.py`, as a process of its own: a few of
them, then `--frames`. The difference of the two times is the time of the other frames after
start-up; the start-up is what the few took beyond that. In each round the ways take turns, and all
figures are medians over the rounds:

(a) the chain against its bare stages: `benchmarks/stages.py` in as many processes at once as there
    are cores
(b) both profiles against `benchmarks/plain.py`, the script that a user would write
(c) each stage's share of the bare time
(d) one core against all (Ray is told of one, and the process is bound to one)
(g) start-up, and the whole job of a few frames with the graphs of the bundle built anew

With --before, a folder with an older checkout of the repository, its `jobs/screen.py` takes part
too. (e), memory against the size of the archive, is `benchmarks/memory.py`; (f), the networks
against the machine's matrix product, is `benchmarks/engines.py`.
"""

import argparse
import csv
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORES = len(os.sched_getaffinity(0))
FEW = 40
STAGES = ("read", "locate", "crop", "segment", "measure")


def fill(folder: Path, data: Path, count: int) -> None:
    """Copy `count` different real frames, of every set of frames in turn."""
    with (data / "manifest.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["set"].endswith("_full")]
    sets: dict[str, list[str]] = {}
    for row in rows:
        sets.setdefault(row["set"], []).append(row["image"])
    most = max(map(len, sets.values()))
    chosen = [files[i] for i in range(most) for files in sets.values() if i < len(files)]
    if len(chosen) < count:
        sys.exit(f"bench: {data} has {len(chosen)} frames: give fewer than {count} as --frames")
    for number, name in enumerate(chosen[:count]):
        shutil.copy(data / name, folder / f"{number:04d}{Path(name).suffix}")


def job(
    code: Path, archive: Path, results: Path, limit: int, *words: str, cores: int = CORES
) -> float:
    """Seconds of one screening, from its first instruction to its end."""
    command = [sys.executable, str(code / "jobs" / "screen.py"), "--archive", str(archive)]
    command += ["--results", str(results / f"{time.monotonic_ns()}"), "--limit", str(limit)]
    command += ["--bundle", str(ROOT / "fundus" / "bundles" / "default"), "--no-report", *words]
    # Ray counts the machine's cores, not those that the process may use.
    environment = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    environment["RAY_OVERRIDE_RESOURCES"] = json.dumps({"CPU": cores})
    bound = ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))]
    start = time.monotonic()
    done = subprocess.run(
        bound + command, env=environment, cwd=code, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"bench: {' '.join(command)}\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    return time.monotonic() - start


def plain(archive: Path, folder: Path, limit: int) -> float:
    """Seconds per frame of the user's script, after its start."""
    command = [sys.executable, str(ROOT / "benchmarks" / "plain.py"), str(archive)]
    command += [str(folder / "rows.csv"), "--limit", str(limit)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = re.search(r"in ([\d.]+) s", said.stdout)
    assert found
    return float(found[1]) / limit


def bare(archive: Path, profile: str, limit: int) -> dict[str, float]:
    """Seconds of a core per frame in each stage, with all cores at work."""
    command = [sys.executable, str(ROOT / "benchmarks" / "stages.py"), "--archive", str(archive)]
    command += ["--limit", str(limit), "--profile", profile, "--mean"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(CORES)
    ]
    said = [json.loads(one.communicate()[0]) for one in running]
    return {name: statistics.mean(one[name] for one in said) for name in STAGES}


def slope(run: Callable[[int], float], frames: int) -> tuple[float, float]:
    """Seconds per frame after start-up, and of the job of FEW frames."""
    few, all_of_them = run(FEW), run(frames)
    return (all_of_them - few) / (frames - FEW), few


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="an older checkout")
    given = parser.parse_args(arguments)
    rounds: dict[str, list[float]] = {}
    shares: dict[str, list[dict[str, float]]] = {"exact": [], "fast": []}

    def note(name: str, seconds: float) -> None:
        rounds.setdefault(name, []).append(seconds)
        print(f"  {name}: {seconds:.3f} s", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as name:
        folder = Path(name)
        archive = folder / "archive"
        archive.mkdir()
        fill(archive, given.data, given.frames)

        def screen(profile: str, code: Path = ROOT, cores: int = CORES) -> Callable[[int], float]:
            words = ["--profile", profile] if code == ROOT else []
            return lambda limit: job(code, archive, folder, limit, *words, cores=cores)

        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        for number in range(given.rounds):
            print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
            shutil.rmtree(folder / "cache", ignore_errors=True)
            note("start-up, graphs built anew", screen("exact")(FEW))
            for profile in shares:
                per_frame, few = slope(screen(profile), given.frames)
                note(profile, per_frame)
                note(f"start-up, {profile}", few - FEW * per_frame)
                shares[profile].append(bare(archive, profile, 40))
                note(f"bare {profile}", sum(shares[profile][-1].values()) / CORES)
            note("one core", slope(screen("exact", cores=1), given.frames // 2)[0])
            note("plain", plain(archive, folder, 20))
            if given.before:
                note("before", slope(screen("exact", given.before.resolve()), given.frames)[0])
    middle = {name: statistics.median(seconds) for name, seconds in rounds.items()}
    print(f"{given.frames} frames, {CORES} cores, medians of {given.rounds} rounds")
    for profile, some in shares.items():
        frame = middle[profile]
        print(f"(a) {profile}, bare stages over chain: {middle[f'bare {profile}'] / frame:.2f}")
        print(f"(b) {profile}: {middle['plain'] / frame:.1f} times as fast as the plain script")
        parts = {stage: statistics.median(one[stage] for one in some) for stage in STAGES}
        total = sum(parts.values())
        print("(c) " + ", ".join(f"{stage} {part / total:.0%}" for stage, part in parts.items()))
        if given.before:
            print(f"    {profile}: {middle['before'] / frame:.1f} times as fast as before")
    print(f"(d) all cores over one: {middle['one core'] / middle['exact']:.2f}")
    started, anew = middle["start-up, exact"], middle["start-up, graphs built anew"]
    print(f"(g) start-up {started:.1f} s; {anew:.1f} s with {FEW} frames and the graphs built anew")
    print("seconds per frame: " + ", ".join(f"{name} {s:.3f}" for name, s in middle.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
