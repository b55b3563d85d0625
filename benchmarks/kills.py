#!/usr/bin/env python
"""Kill a screening at random moments, and check that no picture is lost and none comes twice.

    python benchmarks/kills.py --count 20 --data DATA
    python benchmarks/kills.py --count 3 --objects 12

Each round puts new objects into an archive on a real S3 server, starts jobs/screen.py, and kills
its driver, one of its workers or the S3 server with SIGKILL. It then repeats the command until the
command ends with 0. If a run ends before its kill, the round does not count. Meanwhile, another
process reads the Delta table in turn with Polars and with pandas, without any code of this project.
Without --data, the pictures are noise.
"""

import argparse
import io
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from s3_server import Server  # noqa: E402

from fundus.ledger import table  # noqa: E402

VICTIMS = ("driver", "worker", "server")
TRIES = 4


READER_SCRIPT = """
import sys, time
import deltalake, polars

COLUMNS = ["uri", "vcdr", "mask_png"]
READERS = (
    lambda: polars.read_delta(sys.argv[1], columns=COLUMNS)["uri"].to_list(),
    lambda: deltalake.DeltaTable(sys.argv[1]).to_pandas(columns=COLUMNS)["uri"].tolist(),
)
lost, twice, reads, unreachable, most = 0, 0, 0, 0, 0
while True:
    time.sleep(0.3)
    try:
        uris = READERS[reads % 2]()
    except Exception as error:  # no table yet, or no server
        unreachable += 1
        print(type(error).__name__, file=sys.stderr, flush=True)
        continue
    reads += 1
    lost += len(uris) < most
    twice += len(uris) != len(set(uris))
    most = len(uris)
    print(reads, unreachable, lost, twice, flush=True)
"""
"""Checks that every snapshot can be read, has no picture twice and has lost none."""


class Reader:
    """The process that runs `READER_SCRIPT`, and its counts."""

    def __init__(self, results: str) -> None:
        self.output = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-c", READER_SCRIPT, f"{results}/rows"],
            stdout=self.output,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"AWS_ALLOW_HTTP": "true"},  # the tests' server has no TLS
        )
        self.errors: Counter[str] = Counter()
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.errors[line.strip()] += 1

    def stop(self) -> tuple[int, int, int, int]:
        """Return the counts of reads, of failed reads, of snapshots with fewer rows than before,
        and of snapshots with a picture twice."""
        self.process.terminate()  # a background process ignores SIGINT
        self.process.wait()
        self.output.seek(0)
        lines = self.output.read().splitlines()
        reads, unreachable, lost, twice = map(int, lines[-1].split()) if lines else (0, 0, 0, 0)
        return reads, unreachable, lost, twice


def pictures(data: Path | None, rng: random.Random) -> Iterator[bytes]:
    """Yield JPEGs without end, all different."""
    files = sorted((data / "drishti_gs1_full" / "images").glob("*")) if data else []
    while True:
        if files:
            image = Image.open(rng.choice(files)).convert("RGB").resize((640, 540))
        else:
            pixels = np.random.default_rng(rng.getrandbits(32)).integers(0, 255, (60, 80, 3))
            image = Image.fromarray(pixels.astype(np.uint8)).resize((640, 480))
        content = io.BytesIO()
        image.save(content, "JPEG", quality=80, comment=rng.randbytes(8))
        yield content.getvalue()


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes below a process, at any depth."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    below, level = [], [pid]
    while level:
        level = [child for one in level for child in parents.get(one, [])]
        below += level
    return below


def workers(pid: int) -> list[int]:
    """Return the ids of Ray's worker processes below a driver."""

    def command(one: int) -> bytes:
        try:
            return Path(f"/proc/{one}/cmdline").read_bytes()
        except OSError:
            return b""

    return [one for one in descendants(pid) if command(one).startswith(b"ray::")]


NOTHING = "nothing: the run had ended"


def kill(victim: str, driver: subprocess.Popen, server: Server, rng: random.Random) -> str:
    """Send SIGKILL to the victim; return what was killed."""
    found = workers(driver.pid)
    while victim == "worker" and not found and driver.poll() is None:
        time.sleep(0.1)
        found = workers(driver.pid)
    if driver.poll() is not None:
        return NOTHING
    if victim == "driver":
        driver.kill()
        return "the driver"
    if victim == "server":
        server.kill()
        time.sleep(rng.uniform(0.2, 2))
        server.start()
        return "the S3 server, started again"
    os.kill(rng.choice(found), signal.SIGKILL)
    return f"one of {len(found)} workers"


def run(args: argparse.Namespace, server: Server) -> int:
    """Run all rounds; return 1 if a picture was lost, came twice or could not be read."""
    rng = random.Random(args.seed)
    bucket = server.bucket()
    archive, results = f"s3://{bucket}/archive", f"s3://{bucket}/results"
    command = [sys.executable, str(ROOT / "jobs" / "screen.py")]
    command += ["--archive", archive, "--results", results, *args.arguments]
    reader = Reader(results)
    source, wanted, usual, wrong, kills = pictures(args.data, rng), set(), 0.0, 0, 0
    print(f"{'round':>5}  {'killed':40}  {'after':>6}  tries  rows  lost  twice", flush=True)
    for number in itertools.count():
        if kills == args.count:
            break
        for _ in range(args.objects):
            key = f"archive/{number:02d}/{rng.getrandbits(40):010x}.jpg"
            server.client.put_object(Bucket=bucket, Key=key, Body=next(source))
            wanted.add(f"s3://{bucket}/{key}")
        start = time.monotonic()
        killed, delay = "nothing: the usual time is measured", 0.0
        for tries in range(1, TRIES + 1):
            with tempfile.TemporaryFile() as log:
                driver = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
                if number and tries == 1:
                    delay = rng.uniform(0.1, usual)
                    with suppress(subprocess.TimeoutExpired):
                        driver.wait(delay)
                    killed = kill(VICTIMS[kills % 3], driver, server, rng)
                code = driver.wait()
                log.seek(0)
                output = log.read().decode(errors="replace")
            if code == 0:
                break
        else:
            print(output[-3000:])
            raise SystemExit(f"round {number}: the command ended with {code}, {TRIES} times")
        if not number or killed == NOTHING:
            usual = time.monotonic() - start
        else:
            kills += 1
        rows = Counter(current_uris(results))
        lost, twice = len(wanted - set(rows)), sum(count > 1 for count in rows.values())
        wrong += lost + twice + len(set(rows) - wanted)
        print(
            f"{number:5}  {killed:40}  {delay:5.1f}s  {tries:5}  {rows.total():4}  {lost:4}"
            f"  {twice:5}",
            flush=True,
        )
    reads, unreachable, fewer, double = reader.stop()
    print(
        f"{kills} kills; {reads} snapshots read by Polars and pandas in another process: {fewer}"
        f" with fewer rows than before, {double} with a picture twice ({unreachable} reads before"
        f" the first run and while the server was down: {dict(reader.errors)})"
    )
    return int(bool(wrong or fewer or double or not reads))


def current_uris(results: str) -> list[str]:
    """The URI of every current row."""
    return table.read(results, ["uri"])["uri"].to_pylist()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=20, help="number of kills")
    parser.add_argument("--objects", type=int, default=40, help="new objects per round")
    parser.add_argument("--data", type=Path, help="folder of real pictures, with drishti_gs1_full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("arguments", nargs="*", help="more arguments for jobs/screen.py, after --")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        os.environ.update(server.environment | {"OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local"})
        return run(args, server)


if __name__ == "__main__":
    sys.exit(main())
