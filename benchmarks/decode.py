#!/usr/bin/env python
"""Measure the cost of the sandbox: python benchmarks/decode.py [--data FOLDER] [--rounds 20]

Decodes the same pictures directly and in the sandbox, in turn. Prints milliseconds per megapixel
and the ratio of the two. Only the ratio can be compared between machines.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from fundus.decoding.picture import pictures
from fundus.decoding.sandbox import Decoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder of pictures, e.g. real frames")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    start = time.perf_counter()
    decoder = Decoder()
    decoder(_drawn(64))
    print(f"start of the child and its first picture: {time.perf_counter() - start:.2f} s")
    for name, data in _objects(options.data).items():
        megapixels = pictures(data)[0].pixels.size / 3e6
        direct, sandboxed = _compare(data, decoder, options.rounds)
        print(
            f"{name}: {megapixels:.1f} megapixels; ms per megapixel: "
            f"{direct / megapixels:.1f} direct, "
            f"{sandboxed / megapixels:.1f} sandboxed, ratio {sandboxed / direct:.2f}"
        )


def _objects(folder: Path | None) -> dict[str, bytes]:
    if folder is None:
        return {f"drawn, {side} pixels wide": _drawn(side) for side in (500, 1000, 2000, 4000)}
    suffixes = {".jpg", ".jpeg", ".png", ".tif", ".ppm"}
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in suffixes)
    return {str(f.relative_to(folder)): f.read_bytes() for f in files[:: max(1, len(files) // 8)]}


def _drawn(side: int) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (side // 4, side // 4, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG")
    return stream.getvalue()


def _compare(data: bytes, decoder: Decoder, rounds: int) -> tuple[float, float]:
    """Return the medians in milliseconds; both take turns, so that a busy machine slows both."""
    times: dict[Callable, list[float]] = {pictures: [], decoder: []}
    for _ in range(rounds):
        for read, spent in times.items():
            start = time.perf_counter()
            read(data)
            spent.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[pictures]), statistics.median(times[decoder])


if __name__ == "__main__":
    main()
