#!/usr/bin/env python
"""Send broken files to the readers: python benchmarks/fuzz_decode.py --count 5000 --data FOLDER

Takes real pictures in every format, DICOM syntax and kind of container, unchanged and broken by
mutation, and handmade bombs. Containers go through listing and fetching. Their members and all
other files go through the sandbox, from several threads. Every input must give pictures, or a
refusal with a status of the ledger. A broken container must list all its members or be reported as
broken. Every sound file must be read. This process must survive, and no child may be left.
Otherwise, or if the run is stopped early, the exit code is 1; a stopped run still prints its
results. The same seed gives the same inputs. Inputs that break a rule are stored in --keep.
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
"""Seconds after which an input counts as hanging: more than the sandbox's own limits."""
PROGRESS_EVERY_S = 15.0
SLOWEST = 8


@dataclass
class Tally:
    """The results of the inputs so far."""

    by_kind: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Number of inputs, by kind and status."""
    bad: list[str] = field(default_factory=list)
    """Crashes, timeouts and broken rules."""
    slow: list[tuple[float, str]] = field(default_factory=list)
    running: dict[int, tuple[float, str]] = field(default_factory=dict)
    """By thread: when it began its current input, and the name of that input."""

    @property
    def done(self) -> int:
        return self.by_kind.total()


LEAST_SIDE = 100
"""Shorter side of working frames; so small that most pictures are reduced."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--data", type=Path, required=True, help="a folder of real pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--children", type=int, default=max(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds per input")
    parser.add_argument("--keep", type=Path, help="folder for inputs that break a rule")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    start = time.monotonic()
    files = fuzz_inputs.sound(options.data)
    kinds = len({name.split()[0] for name in files})
    print(f"{len(files)} sound files of {kinds} kinds", flush=True)
    inputs = Inputs(files, dict(fuzz_inputs.bombs()), options.count, options.seed)
    decoders = [
        Decoder(timeout_s=options.timeout, max_pixels=50_000_000, least_side=LEAST_SIDE)
        for _ in range(options.children)
    ]
    tally = Tally()
    threads = [
        threading.Thread(target=_work, args=(inputs, decoder, tally, stop, options.keep))
        for decoder in decoders
    ]
    for thread in threads:
        thread.start()
    hanging = _follow(threads, tally, len(inputs), start)
    if not hanging:
        alive = all(_verdict(one, "png", next(iter(files.values())))[0] == "ok" for one in decoders)
        for decoder in decoders:
            decoder.close()
        left = _children()
    _show(tally)
    bombs = sum(count for (kind, _), count in tally.by_kind.items() if kind == "bomb")
    print(f"\n{tally.done} of {len(inputs)} inputs have a verdict, {bombs} of them bombs")
    print(f"{len(tally.bad)} are bad")
    if hanging:
        print(f"HANGS: {hanging}", flush=True)
        os._exit(1)
    print(f"{len(left)} children are left; the parent survives and still decodes: {alive}")
    print(f"{time.monotonic() - start:.0f} s{', STOPPED EARLY' if stop.is_set() else ''}")
    sys.exit(bool(tally.done < len(inputs) or tally.bad or left or not alive))


class Inputs:
    """All inputs by number, each made on demand: sound files, then bombs, then mutations."""

    def __init__(self, files: dict[str, bytes], bombs: dict[str, bytes], count: int, seed: int):
        self.files, self.bombs, self.count, self.seed = files, bombs, count, seed
        self._named = [*files, *bombs]
        self._next = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return max(self.count, len(self._named))

    def __getitem__(self, number: int) -> tuple[str, str, bytes]:
        """Return (kind, name, data)."""
        if number >= len(self._named):
            kind, data = fuzz_inputs.mutated(self.files, self.seed, number)
            return kind, f"mutated {number}", data
        name = self._named[number]
        if name in self.bombs:
            return "bomb", name, self.bombs[name]
        return name.split()[0], "sound", self.files[name]

    def take(self) -> Iterator[tuple[str, str, bytes]]:
        """Yield the inputs that no other thread has taken."""
        while True:
            with self._lock:
                number, self._next = self._next, self._next + 1
            if number >= len(self):
                return
            yield self[number]


def _work(
    inputs: Inputs, decoder: Decoder, tally: Tally, stop: threading.Event, keep: Path | None
) -> None:
    thread = threading.get_ident()
    for kind, name, data in inputs.take():
        if stop.is_set():
            break
        start = time.monotonic()
        tally.running[thread] = (start, f"{kind} {name}")
        try:
            status, reason = _verdict(decoder, kind, data)
        except Exception as error:  # the rule under test: a verdict, never an exception
            status, reason = "RAISED", repr(error)
        tally.running.pop(thread)
        tally.slow = sorted([*tally.slow, (time.monotonic() - start, f"{kind} {name}: {status}")])
        tally.slow = tally.slow[-SLOWEST:]
        tally.by_kind[kind, status] += 1
        allowed = status in STATUSES and status not in ("crashed", "timed_out")
        if not allowed or (name == "sound" and not _is_expected(kind, status)):
            tally.bad.append(f"{kind} {name}: {status}: {reason}")
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                suffix = fuzz_inputs.CONTAINERS.get(kind.partition("_")[0], "")
                digest = hashlib.sha256(data).hexdigest()[:12]
                (keep / f"{kind}-{digest}{suffix}").write_bytes(data)
        if kind == "bomb":
            print(f"  {name} ({len(data)} bytes): {status}: {reason}", flush=True)


def _is_expected(kind: str, status: str) -> bool:
    return status == ("unsupported" if kind == "jpeg_12_bits" else "ok")


def _verdict(decoder: Decoder, kind: str, data: bytes) -> tuple[str, str]:
    suffix = fuzz_inputs.CONTAINERS.get(kind.partition("_")[0])
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
                return "LOST", "a container was taken for a picture"
    refusals = [one for one in statuses if one[0] != "ok"]
    # Two joined tars, cut within the zeros that end the first, show no trace of the second.
    joined = kind.endswith("joined") and not (kind.startswith("tar") and b"second/" not in data)
    expected = len(fuzz_inputs.MEMBERS) * (1 + joined)
    if not refusals and len(statuses) < expected:
        return "LOST", f"{len(statuses)} of {expected} members, without an error"
    return refusals[0] if refusals else ("ok", f"{len(statuses)} members")


def _decoded(decoder: Decoder, data: bytes) -> tuple[str, str]:
    try:
        found = decoder(data, subject_key=b"fuzz", keep_header=True)
    except Refused as refused:
        return refused.status, refused.reason
    sound = all(p.pixels.dtype == np.uint8 and p.pixels.shape[2:] == (3,) for p in found)
    return ("ok" if found and sound else "NONSENSE"), f"{len(found)} pictures"


def _follow(threads: list[threading.Thread], tally: Tally, count: int, start: float) -> str:
    """Wait for the threads; return the name of an input that hangs, or ""."""
    printed = start
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.2)
        now = time.monotonic()
        for since, name in list(tally.running.values()):
            if now - since > HANGS_S:
                return name
        if now - printed > PROGRESS_EVERY_S:
            printed = now
            pace = tally.done / (now - start)
            print(
                f"{tally.done} of {count} after {now - start:.0f} s, {pace:.1f} per second, "
                f"{len(tally.bad)} bad",
                flush=True,
            )
    return ""


def _children() -> list[str]:
    """Return the child processes of this one: none should be left."""
    left = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it has ended meanwhile
        if int(parent) == os.getpid():
            left.append(f"{stat.parent.name} {state}")
    return left


def _show(tally: Tally) -> None:
    statuses: Counter[str] = Counter()
    for (_, status), count in tally.by_kind.items():
        statuses[status] += count
    print("\nby status:", dict(statuses.most_common()))
    print("by kind:")
    for kind in sorted({kind for kind, _ in tally.by_kind}):
        verdicts = {status: n for (k, status), n in sorted(tally.by_kind.items()) if k == kind}
        print(f"  {kind}: {verdicts}")
    print("slowest:")
    for seconds, name in reversed(tally.slow):
        print(f"  {seconds:.1f} s {name}")
    print("bad (crashed, timed out, raised, lost, or sound and refused):")
    for line in tally.bad:
        print(f"  {line}")


if __name__ == "__main__":
    main()
