#!/usr/bin/env python
"""Measure each screening stage: seconds per picture on one core, as JSON for `jobs/plan.py`.

    OMP_NUM_THREADS=1 python benchmarks/stages.py --archive data/real/full > rates.json
    python jobs/plan.py --rates rates.json --pictures 20000

Runs the real stages on real pictures, one after the other in one process. The overhead of Ray is
not included (`benchmarks/simulate_cluster.py` measures it). The figures are medians, since about
one picture in a hundred is slowed by other work on the machine. Run it on the kind of node that
will do the work: another processor or a GPU gives other figures.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fundus.archive.listing import walk
from fundus.cluster.sizing import Rates
from fundus.ledger import inventory
from fundus.ledger.runs import Run
from fundus.models import bundle as bundles
from fundus.models.bundle import Bundle
from fundus.models.predictor import GPU_DRIVERS, Predictor, ready
from fundus.models.turns import PROFILES, Profile
from fundus.screening import columns, light, models, reading
from fundus.screening.settings import Screening

PICTURE_STAGES = ("read", "locate", "crop", "segment", "measure")


def timed(work: Callable[[columns.Batch], Any], batch: columns.Batch) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work(batch)
    return result, time.perf_counter() - start


def one_picture(batch: columns.Batch, chain: dict[str, Callable]) -> dict[str, float] | None:
    """Return the seconds per stage for one picture; None if it is not measured to the end."""
    seconds = {}
    for name, work in chain.items():
        batch, seconds[name] = timed(work, batch)
        if name == "read":
            seconds["megapixels"] = float(batch["height"][0] * batch["width"][0] / 1e6)
        if name != "measure" and batch["status"][0] != "ok":
            return None
    return seconds


def chain_of(config: Screening, bundle: Bundle, profile: Profile) -> dict[str, Callable]:
    """Return the stages by name, with weights loaded."""
    reader = Predictor(ready(bundle, gpu=False, profile=profile))
    measurer = Predictor(ready(bundle, gpu=_has_gpu(), profile=profile))
    run = Run("20270131T000000Z-000000", bundle.digest, config.settings, bundle.measuring)
    read = reading.Read(
        config.gradability,
        precropped=config.precropped,
        keep_header=False,
        subject_key=None,
        least_side=bundle.preprocessing.least_side(precropped=config.precropped),
    )
    works = (
        lambda batch: next(read(batch)),
        models.Locate(reader, precropped=config.precropped),
        partial(light.crop, side=bundle.preprocessing.roi_side),
        models.Segment(measurer),
        light.Measure(bundle.thresholds, bundle.risk, run),
    )
    return dict(zip(PICTURE_STAGES, works, strict=True))


def _has_gpu() -> bool:
    return any(Path(driver).exists() for driver in GPU_DRIVERS)


def batches(archive: str, limit: int) -> list[columns.Batch]:
    """Return one batch per object, as the first stage receives it, spread over the archive."""
    with tempfile.TemporaryDirectory() as folder:
        listed = inventory.write(walk(archive), Path(folder), str)
        table = pa.concat_tables(pa.Table.from_batches([batch]) for batch in listed.batches())
    chosen = np.linspace(0, table.num_rows - 1, min(limit, table.num_rows)).astype(int)
    rows = table.take(np.unique(chosen)).to_pylist()
    return [{name: np.array([value]) for name, value in row.items()} for row in rows]


def measure(
    archive: str,
    limit: int,
    folder: Path | None,
    precropped: bool,
    profile: Profile = "exact",
    average: Callable[[list[float]], float] = statistics.median,
) -> dict[str, Any]:
    """Return medians, or means, over the pictures that are measured to the end."""
    bundle = bundles.load(folder or bundles.default_folder())
    config = Screening(archive=archive, results="unwritten", precropped=precropped)
    chain = chain_of(config, bundle, profile)
    pictures = batches(archive, limit)
    one_picture(pictures[0], chain)  # the first picture pays for late loading
    measured = [seconds for picture in pictures if (seconds := one_picture(picture, chain))]
    if not measured:
        raise ValueError(f"no picture of {archive} is measured to the end")
    averages = {name: average([m[name] for m in measured]) for name in measured[0]}
    sizes = [int(picture["size"][0]) for picture in pictures]
    rates = Rates(
        **{name: round(averages[name], 5) for name in PICTURE_STAGES},
        megapixels=round(averages["megapixels"], 2),
        megabytes=round(statistics.median(sizes) / 1e6, 3),
    )
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    return asdict(rates) | {"pictures": len(measured), "machine": machine}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--archive", required=True, metavar="URI")
    parser.add_argument("--limit", type=int, default=40, help="pictures, spread over the archive")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--precropped", action="store_true", help="the pictures are disc crops")
    parser.add_argument("--profile", choices=PROFILES, default="exact")
    parser.add_argument("--mean", action="store_true", help="means instead of medians")
    args = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    measured = measure(
        args.archive,
        args.limit,
        args.bundle,
        args.precropped,
        args.profile,
        statistics.mean if args.mean else statistics.median,
    )
    print(json.dumps(measured, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
