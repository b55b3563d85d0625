#!/usr/bin/env python
"""Kill a screening at random moments, and see that nothing is lost and nothing comes twice.

    python benchmarks/kills.py --count 20 --data DATA
    python benchmarks/kills.py --count 3 --objects 12

Each round puts new objects into an archive on a real S3 server, starts jobs/screen.py, kills with
SIGKILL its driver, one of its workers or the S3 server, and gives the same command again until it
ends with 0. A run that ends before its kill is another round. All the while a reader follows
current.json. Without --data the pictures are drawn.
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
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from s3_server import Server  # noqa: E402

from fundus.ledger import current as pointer  # noqa: E402
from fundus.storage.places import open_place  # noqa: E402
from fundus.storage.retry import StorageFailed  # noqa: E402

VICTIMS = ("driver", "worker", "server")
TRIES = 4


@dataclass
class Reader:
    """Reads the pointer again and again, as a report does, and counts what was wrong."""

    results: str
    reads: int = 0
    unreachable: int = 0
    wrong: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def follow(self) -> None:
        """Until stopped: every file that the pointer names is there, with the rows that it says."""
        while not self.stopped.wait(0.3):
            try:
                self.wrong += whats_wrong(self.results)
                self.reads += 1
            except Exception as error:
                if isinstance(error.__cause__ or error, StorageFailed | OSError):
                    self.unreachable += 1  # while the server is dead
                else:
                    self.wrong.append(f"a reader stumbled: {type(error).__name__}")


def whats_wrong(results: str) -> Iterator[str]:
    """What a reader of the current files would stumble over."""
    place = open_place(results)
    current, _ = pointer.read(place)
    for file in current.files:
        found = place.read(file.path)
        if found is None:
            yield f"{file.path} is not there"
        elif pq.read_metadata(io.BytesIO(found[0])).num_rows != file.rows:
            yield f"{file.path} has not the {file.rows} rows that the pointer says"


def pictures(data: Path | None, draw: random.Random) -> Iterator[bytes]:
    """JPEGs without end, each another one."""
    files = sorted((data / "drishti_gs1_full" / "images").glob("*")) if data else []
    while True:
        if files:
            image = Image.open(draw.choice(files)).convert("RGB").resize((640, 540))
        else:
            pixels = np.random.default_rng(draw.getrandbits(32)).integers(0, 255, (60, 80, 3))
            image = Image.fromarray(pixels.astype(np.uint8)).resize((640, 480))
        content = io.BytesIO()
        image.save(content, "JPEG", quality=80, comment=draw.randbytes(8))
        yield content.getvalue()


def descendants(pid: int) -> list[int]:
    """Process ids below a process, at any depth."""
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
    """Ray's worker processes below a driver."""

    def command(one: int) -> bytes:
        try:
            return Path(f"/proc/{one}/cmdline").read_bytes()
        except OSError:
            return b""

    return [one for one in descendants(pid) if command(one).startswith(b"ray::")]


NOTHING = "nothing: it had ended"


def kill(victim: str, driver: subprocess.Popen, server: Server, draw: random.Random) -> str:
    """SIGKILL; what was hit."""
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
        time.sleep(draw.uniform(0.2, 2))
        server.start()
        return "the S3 server, started again"
    os.kill(draw.choice(found), signal.SIGKILL)
    return f"one of {len(found)} workers"


def run(given: argparse.Namespace, server: Server) -> int:
    """All rounds; 1 when something was lost, came twice, or could not be read."""
    draw = random.Random(given.seed)
    bucket = server.bucket()
    archive, results = f"s3://{bucket}/archive", f"s3://{bucket}/results"
    command = [sys.executable, str(ROOT / "jobs" / "screen.py")]
    command += ["--archive", archive, "--results", results, *given.arguments]
    reader = Reader(results)
    threading.Thread(target=reader.follow, daemon=True).start()
    source, wanted, usual, wrong, kills = pictures(given.data, draw), set(), 0.0, 0, 0
    print(f"{'round':>5}  {'killed':40}  {'after':>6}  tries  rows  lost  twice", flush=True)
    for number in itertools.count():
        if kills == given.count:
            break
        for _ in range(given.objects):
            key = f"archive/{number:02d}/{draw.getrandbits(40):010x}.jpg"
            server.client.put_object(Bucket=bucket, Key=key, Body=next(source))
            wanted.add(f"s3://{bucket}/{key}")
        start = time.monotonic()
        hit, delay = "nothing: how long it takes", 0.0
        for tries in range(1, TRIES + 1):
            with tempfile.TemporaryFile() as log:
                driver = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
                if number and tries == 1:
                    delay = draw.uniform(0.1, usual)
                    with suppress(subprocess.TimeoutExpired):
                        driver.wait(delay)
                    hit = kill(VICTIMS[kills % 3], driver, server, draw)
                code = driver.wait()
                log.seek(0)
                said = log.read().decode(errors="replace")
            if code == 0:
                break
        else:
            print(said[-3000:])
            raise SystemExit(f"round {number}: the command ended with {code}, {TRIES} times")
        if not number or hit == NOTHING:
            usual = time.monotonic() - start
        else:
            kills += 1
        rows = Counter(current_uris(results))
        lost, twice = len(wanted - set(rows)), sum(count > 1 for count in rows.values())
        wrong += lost + twice + len(set(rows) - wanted)
        print(
            f"{number:5}  {hit:40}  {delay:5.1f}s  {tries:5}  {rows.total():4}  {lost:4}"
            f"  {twice:5}",
            flush=True,
        )
    reader.stopped.set()
    print(
        f"{kills} kills; {reader.reads} reads of the pointer and all its files:"
        f" {len(reader.wrong)} wrong ({reader.unreachable} while the server was dead)"
    )
    print(*reader.wrong[:5], sep="\n")
    return int(bool(wrong or reader.wrong))


def current_uris(results: str) -> list[str]:
    """The URI of every current row."""
    place = open_place(results)
    found = []
    for file in pointer.read(place)[0].files:
        content = place.read(file.path)
        assert content
        found += pq.read_table(io.BytesIO(content[0]), columns=["uri"])["uri"].to_pylist()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=20, help="kills")
    parser.add_argument("--objects", type=int, default=40, help="new objects a round")
    parser.add_argument("--data", type=Path, help="folder of real pictures, with drishti_gs1_full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("arguments", nargs="*", help="more for jobs/screen.py, after --")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        os.environ.update(server.environment | {"OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local"})
        return run(given, server)


if __name__ == "__main__":
    sys.exit(main())
