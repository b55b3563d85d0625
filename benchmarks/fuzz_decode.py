#!/usr/bin/env python
"""Broken files at the doors: python benchmarks/fuzz_decode.py --count 5000 --data FOLDER

Takes real pictures in every format, DICOM syntax and kind of archive, as they are and broken by
mutation, and bombs made by hand. Archives go through listing and fetching, what lies in them and
all other files through the sandbox, from several threads. Every input must give pictures or a
refusal with a status of a row; a broken archive must list all its members or say that it is broken;
what is sound must be read; this process must live, and no child may stay behind. Exit code 1
otherwise, and where it is stopped early: it then says how far it came. The same seed gives the same
inputs. An input that breaks a rule or its reader is kept in --keep.
"""

import argparse
import hashlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import fuzz_inputs
import numpy as np

from fundus.archive.fetch import FetchFailed, fetch_many
from fundus.archive.listing import walk
from fundus.decoding.sandbox import Decoder
from fundus.images.decode import Refused
from fundus.ledger.row import STATUSES

HANGS_S = 400.0
"""Seconds for one input after which it counts as hanging: more than the sandbox's own bounds."""
SAY_EVERY_S = 15.0
SLOWEST = 8


@dataclass
class Found:
    """What came of the inputs so far."""

    by_kind: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind and status."""
    bad: list[str] = field(default_factory=list)
    """Crashes, timeouts and broken rules."""
    slow: list[tuple[float, str]] = field(default_factory=list)
    running: dict[int, tuple[float, str]] = field(default_factory=dict)
    """By thread: since when, and which input."""

    @property
    def done(self) -> int:
        return self.by_kind.total()


LEAST_SIDE = 100
"""Shorter side of working frames: most of the pictures are reduced."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--data", type=Path, required=True, help="a folder of real pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--children", type=int, default=max(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for an input")
    parser.add_argument("--keep", type=Path, help="where inputs that break something are kept")
    options = parser.parse_args()
    stop = threading.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: stop.set())
    start = time.monotonic()
    files = fuzz_inputs.sound(options.data)
    kinds = len({name.split()[0] for name in files})
    print(f"{len(files)} sound files of {kinds} kinds", flush=True)
    inputs = Inputs(files, dict(fuzz_inputs.bombs()), options.count, options.seed)
    decoders = [
        Decoder(timeout_s=options.timeout, max_pixels=50_000_000, least_side=LEAST_SIDE)
        for _ in range(options.children)
    ]
    found = Found()
    threads = [
        threading.Thread(target=_work, args=(inputs, decoder, found, stop, options.keep))
        for decoder in decoders
    ]
    for thread in threads:
        thread.start()
    hanging = _follow(threads, found, len(inputs), start)
    if not hanging:
        alive = all(_verdict(one, "png", next(iter(files.values())))[0] == "ok" for one in decoders)
        for decoder in decoders:
            decoder.close()
        left = _children()
    _show(found)
    bombs = sum(count for (kind, _), count in found.by_kind.items() if kind == "bomb")
    print(f"\n{found.done} of {len(inputs)} inputs have a verdict, {bombs} of them bombs")
    print(f"{len(found.bad)} are bad")
    if hanging:
        print(f"HANGS: {hanging}", flush=True)
        os._exit(1)
    print(f"{len(left)} children are left; the parent lives and still decodes: {alive}")
    print(f"{time.monotonic() - start:.0f} s{', STOPPED EARLY' if stop.is_set() else ''}")
    sys.exit(bool(found.done < len(inputs) or found.bad or left or not alive))


class Inputs:
    """All inputs by number, each made when it is asked for: sound ones, bombs, mutated ones."""

    def __init__(self, files: dict[str, bytes], bombs: dict[str, bytes], count: int, seed: int):
        self.files, self.bombs, self.count, self.seed = files, bombs, count, seed
        self._named = [*files, *bombs]
        self._next = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return max(self.count, len(self._named))

    def __getitem__(self, number: int) -> tuple[str, str, bytes]:
        """(kind, name, data)"""
        if number >= len(self._named):
            kind, data = fuzz_inputs.mutated(self.files, self.seed, number)
            return kind, f"mutated {number}", data
        name = self._named[number]
        if name in self.bombs:
            return "bomb", name, self.bombs[name]
        return name.split()[0], "sound", self.files[name]

    def take(self) -> Iterator[tuple[str, str, bytes]]:
        """Those that no other thread has taken."""
        while True:
            with self._lock:
                number, self._next = self._next, self._next + 1
            if number >= len(self):
                return
            yield self[number]


def _work(
    inputs: Inputs, decoder: Decoder, found: Found, stop: threading.Event, keep: Path | None
) -> None:
    me = threading.get_ident()
    for kind, name, data in inputs.take():
        if stop.is_set():
            break
        start = time.monotonic()
        found.running[me] = (start, f"{kind} {name}")
        try:
            status, reason = _verdict(decoder, kind, data)
        except Exception as error:  # the rule that is tested: nothing but a verdict comes out
            status, reason = "RAISED", repr(error)
        found.running.pop(me)
        found.slow = sorted([*found.slow, (time.monotonic() - start, f"{kind} {name}: {status}")])
        found.slow = found.slow[-SLOWEST:]
        found.by_kind[kind, status] += 1
        fine = status in STATUSES and status not in ("crashed", "timed_out")
        if not fine or (name == "sound" and not _as_sound(kind, status)):
            found.bad.append(f"{kind} {name}: {status}: {reason}")
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                suffix = fuzz_inputs.ARCHIVES.get(kind.partition("_")[0], "")
                digest = hashlib.sha256(data).hexdigest()[:12]
                (keep / f"{kind}-{digest}{suffix}").write_bytes(data)
        if kind == "bomb":
            print(f"  {name} ({len(data)} bytes): {status}: {reason}", flush=True)


def _as_sound(kind: str, status: str) -> bool:
    return status == ("unsupported" if kind == "jpeg_12_bits" else "ok")


def _verdict(decoder: Decoder, kind: str, data: bytes) -> tuple[str, str]:
    suffix = fuzz_inputs.ARCHIVES.get(kind.partition("_")[0])
    if suffix is None:
        return _decoded(decoder, data)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"archive{suffix}").write_bytes(data)
        entries = list(walk(folder))
        statuses = []
        for number, content in fetch_many(entries):
            if isinstance(content, FetchFailed):
                statuses.append((content.status, content.reason))
            elif "!/" in entries[number].uri:
                statuses.append(_decoded(decoder, content))
            else:
                return "LOST", "an archive was taken for a picture"
    said = [one for one in statuses if one[0] != "ok"]
    # Of two tars, cut within the zeros that end the first, nothing tells of the second.
    joined = kind.endswith("joined") and not (kind.startswith("tar") and b"second/" not in data)
    least = len(fuzz_inputs.MEMBERS) * (1 + joined)
    if not said and len(statuses) < least:
        return "LOST", f"{len(statuses)} of {least} members, and nothing says so"
    return said[0] if said else ("ok", f"{len(statuses)} members")


def _decoded(decoder: Decoder, data: bytes) -> tuple[str, str]:
    try:
        found = decoder(data, subject_key=b"fuzz", keep_header=True)
    except Refused as refused:
        return refused.status, refused.reason
    sound = all(p.pixels.dtype == np.uint8 and p.pixels.shape[2:] == (3,) for p in found)
    return ("ok" if found and sound else "NONSENSE"), f"{len(found)} pictures"


def _follow(threads: list[threading.Thread], found: Found, count: int, start: float) -> str:
    """Until all is done; the input that hangs, where one does."""
    said = start
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.2)
        now = time.monotonic()
        for since, name in list(found.running.values()):
            if now - since > HANGS_S:
                return name
        if now - said > SAY_EVERY_S:
            said = now
            pace = found.done / (now - start)
            print(
                f"{found.done} of {count} after {now - start:.0f} s, {pace:.1f} per second, "
                f"{len(found.bad)} bad",
                flush=True,
            )
    return ""


def _children() -> list[str]:
    """Processes whose parent is this one: none should be left."""
    left = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # ended meanwhile
        if int(parent) == os.getpid():
            left.append(f"{stat.parent.name} {state}")
    return left


def _show(found: Found) -> None:
    statuses: Counter[str] = Counter()
    for (_, status), count in found.by_kind.items():
        statuses[status] += count
    print("\nby status:", dict(statuses.most_common()))
    print("by kind:")
    for kind in sorted({kind for kind, _ in found.by_kind}):
        verdicts = {status: n for (k, status), n in sorted(found.by_kind.items()) if k == kind}
        print(f"  {kind}: {verdicts}")
    print("slowest:")
    for seconds, name in reversed(found.slow):
        print(f"  {seconds:.1f} s {name}")
    print("bad (crashed, timed out, raised, lost, or sound and refused):")
    for line in found.bad:
        print(f"  {line}")


if __name__ == "__main__":
    main()
