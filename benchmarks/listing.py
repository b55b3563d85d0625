#!/usr/bin/env python
"""Measure the peak memory of listing an archive, which must not grow with the archive.

    python benchmarks/listing.py --count 100000 --on s3
    python benchmarks/listing.py --count 1000000 --on folder

Makes `--count` empty objects, a thousand per folder, in a folder or on a real S3 server (SeaweedFS,
filled by its own file interface, which is faster than S3). It then lists them and prints the memory
of the listing process after 10,000, 100,000 and so on.

Measured on 2 busy cores: in a folder 41.5 MB before the first file and after 10,000, 100,000 and
1,000,000; on S3 53.6 MB before the first object, 85.5 MB after 10,000, 86.4 MB after 100,000. A
million on S3 has not been measured to its end: filling the server takes both cores for a long time.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from fundus.archive.listing import walk

TESTS = Path(__file__).parent.parent / "tests"

WRITERS = 2
PER_FOLDER = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="number of objects")
    parser.add_argument("--on", choices=["s3", "folder"], default="s3", help="where to make them")
    args = parser.parse_args()
    with TemporaryDirectory() as scratch:
        make = on_s3 if args.on == "s3" else in_folder
        with make(Path(scratch), args.count) as archive:
            measure(archive, args.count)


def measure(archive: str, count: int) -> None:
    """List the archive, and print memory and time at every power of ten."""
    print(f"{'objects':>10} {'peak memory':>12} {'growth':>10} {'seconds':>8}")
    before, start = peak_mb(), time.monotonic()
    print(f"{0:>10} {before:>9.1f} MB")
    seen = 0
    for seen, _ in enumerate(walk(archive), 1):
        if seen >= 10_000 and str(seen).strip("0") == "1":
            peak, seconds = peak_mb(), time.monotonic() - start
            print(
                f"{seen:>10} {peak:>9.1f} MB {peak - before:>7.1f} MB {seconds:>8.1f}", flush=True
            )
    if seen != count:
        raise SystemExit(f"{count} objects were made and {seen} listed")


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def in_folder(scratch: Path, count: int) -> Iterator[str]:
    for name in names(range(count)):
        path = scratch / name
        if name.endswith("/000.jpg"):
            path.parent.mkdir(parents=True)
        path.touch()
    yield str(scratch)


@contextmanager
def on_s3(scratch: Path, count: int) -> Iterator[str]:
    sys.path.append(str(TESTS))
    from s3_server import Server

    with Server(scratch / "s3") as server:
        os.environ.update(server.environment)
        bucket, start = server.bucket(), time.monotonic()
        spawn = get_context("spawn")
        writers = [
            spawn.Process(target=fill, args=(server.ports[1], bucket, count, first))
            for first in range(WRITERS)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        seconds = time.monotonic() - start
        print(f"{count} objects in {seconds:.0f} s ({count / seconds:.0f} per second)", flush=True)
        yield f"s3://{bucket}/archive"


def fill(port: int, bucket: str, count: int, first: int) -> None:
    """Write one writer's share of the objects over one connection."""
    connection = HTTPConnection("127.0.0.1", port)
    for name in names(range(first, count, WRITERS)):
        kind = {"Content-Type": "image/jpeg"}
        connection.request("PUT", f"/buckets/{bucket}/archive/{name}", headers=kind)
        reply = connection.getresponse()
        reply.read()
        if reply.status != 201:
            raise SystemExit(f"the server answers {reply.status} to {name}")


def names(numbers: range) -> Iterator[str]:
    for number in numbers:
        yield f"{number // PER_FOLDER:05}/{number % PER_FOLDER:03}.jpg"


if __name__ == "__main__":
    main()
