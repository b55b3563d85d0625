"""Screening: an archive in, one row for every object out. The whole chain is `_rows`."""

import json
import logging
import math
import secrets
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from pyarrow import fs
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy

from fundus.models.bundle import ADAPTED, DETECTOR, SOURCE_ONLY, Bundle
from fundus.screening import inventory, report, row, stages

log = logging.getLogger(__name__)

LIGHT, STEADY = 0.1, 0.2
"""CPUs that a stage claims. One of each claims less than 1: a small machine never deadlocks.

Claims bound what runs at once, not what it uses: pools and decoding are bounded by the machine.
"""
ROWS_A_TASK, MOST_TASKS = 16, 4096
"""Objects that one decoding task reads: few enough to spread; more where tasks became too many."""
FRAMES_A_BATCH, CROPS_A_BATCH = 4, 4
"""Pictures in memory at once in one process; a frame of 12 megapixels takes 36 MB."""
ROWS_A_FILE = 500


def new_run_id() -> str:
    """Sorts by time: "20270131T235959Z-1a2b3c"."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class Screening:
    """One run over one archive."""

    archive: str
    """Folder, or file:// URI."""
    results: str
    """Folder or URI that holds `runs/<run_id>/`."""
    crops: bool = False
    """The pictures are disc crops already: detection is left out."""
    limit: int | None = None
    """Only so many objects, the first by name; None for all."""
    run_id: str = field(default_factory=new_run_id)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"the limit is {self.limit}, not a count of objects")
        archive = inventory.local_folder(self.archive)
        if not archive.is_dir():
            raise ValueError(f"the archive {self.archive} is not a folder")
        if archive == inventory.local_folder(self.results):
            raise ValueError(
                "the results would lie among the archive's pictures: give another folder"
            )

    def check(self, bundle: Bundle) -> None:
        """ValueError, in one sentence, when the bundle cannot do this run."""
        if not self.crops and DETECTOR not in bundle.networks:
            raise ValueError("the bundle has no detector: it can screen disc crops alone (--roi)")
        if not {SOURCE_ONLY, ADAPTED} & set(bundle.networks):
            raise ValueError("the bundle has no segmenter")


def screen(config: Screening, bundle: Bundle) -> report.Summary:
    """Screen an archive on the Ray that runs; `ray.init` is the caller's.

    Writes `inventory.parquet`, `rows/*.parquet` and, last, `summary.json` under
    `<results>/runs/<run_id>/`. Every object has exactly one row then, or RuntimeError is raised. A
    bundle that lacks a network raises ValueError.
    """
    config.check(bundle)
    start = time.monotonic()
    _quiet()
    filesystem, place = _results_place(config)
    entries = inventory.walk(config.archive, leave_out=config.results)
    inventory.write(entries, f"{place}/inventory.parquet", filesystem, config.limit)
    listed = pq.read_table(f"{place}/inventory.parquet", filesystem=filesystem)
    log.info("%d objects listed", listed.num_rows)
    digest = bundle.digest
    if listed.num_rows:
        rows = _rows(config, bundle, digest, listed)
        rows.write_parquet(
            f"{place}/rows",
            filesystem=filesystem,
            schema=row.schema(config.run_id, digest),
            compression="zstd",
            min_rows_per_file=ROWS_A_FILE,
            ray_remote_args={"num_cpus": LIGHT},
        )
    else:
        _write_no_rows(config, digest, f"{place}/rows", filesystem)
    written = pq.read_table(f"{place}/rows", filesystem=filesystem, columns=list(report.COLUMNS))
    _reconcile(listed, written)
    summary = report.summarise(
        written,
        run_id=config.run_id,
        bundle=digest,
        archive=config.archive,
        rows_folder=str(PurePosixPath(place) / "rows"),
        seconds=time.monotonic() - start,
    )
    with filesystem.open_output_stream(f"{place}/summary.json") as stream:
        stream.write(json.dumps(asdict(summary), indent=2).encode() + b"\n")
    return summary


def _rows(config: Screening, bundle: Bundle, digest: str, listed: pa.Table) -> Dataset:
    """The chain: object -> picture -> disc -> crop -> maps -> measures."""
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    gpus = int(ray.cluster_resources().get("GPU", 0))
    shared = ray.put(bundle)
    pool = ActorPoolStrategy(min_size=1, max_size=gpus or cpus)
    # Slices of the driver's table: read_parquet and a repartition cost 6 s more, measured.
    share = min(ROWS_A_TASK, math.ceil(listed.num_rows / (2 * cpus)))
    share = max(share, math.ceil(listed.num_rows / MOST_TASKS))
    slices = [listed.slice(start, share) for start in range(0, listed.num_rows, share)]
    objects = ray.data.from_arrow(slices)
    pictures = objects.map_batches(
        stages.fetch_and_decode,
        batch_size=FRAMES_A_BATCH,
        compute=TaskPoolStrategy(size=min(cpus, len(slices))),
        num_cpus=STEADY,
    )
    located = pictures.map_batches(
        stages.Locate,
        fn_constructor_args=(shared, config.crops),
        batch_size=FRAMES_A_BATCH,
        compute=pool,
        num_gpus=0.25 if gpus else None,
        num_cpus=STEADY,
    )
    crops = located.map_batches(
        partial(stages.crop, side=bundle.preprocessing.roi_side),
        batch_size=FRAMES_A_BATCH,
        num_cpus=LIGHT,
    )
    maps = crops.map_batches(
        stages.Segment,
        fn_constructor_args=(shared,),
        batch_size=CROPS_A_BATCH,
        compute=pool,
        num_gpus=0.75 if gpus else None,
        num_cpus=STEADY,
    )
    return maps.map_batches(
        partial(
            stages.measure,
            thresholds=bundle.thresholds,
            risk=bundle.risk,
            run_id=config.run_id,
            bundle=digest,
        ),
        batch_size=CROPS_A_BATCH,
        num_cpus=LIGHT,
    )


def _quiet() -> None:
    """Ray Data's progress belongs on a terminal; in a log it is five lines a second of nothing."""
    context = DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    context.enable_rich_progress_bars = True
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _results_place(config: Screening) -> tuple[fs.FileSystem, str]:
    results = config.results
    if "://" not in results:
        results = inventory.local_folder(results).as_uri()
    filesystem, path = fs.FileSystem.from_uri(results)
    place = f"{path.rstrip('/')}/runs/{config.run_id}"
    filesystem.create_dir(f"{place}/rows", recursive=True)
    return filesystem, place


def _write_no_rows(config: Screening, digest: str, folder: str, filesystem: fs.FileSystem) -> None:
    """Ray writes nothing for nothing; readers still find the schema."""
    empty = row.schema(config.run_id, digest).empty_table()
    pq.write_table(empty, f"{folder}/empty.parquet", filesystem=filesystem)


def _reconcile(listed: pa.Table, written: pa.Table) -> None:
    """Every listed object has exactly one row, and every row its object, or RuntimeError."""
    wanted, present = (table.select(["uri", "etag"]) for table in (listed, written))
    missing = wanted.join(present, ["uri", "etag"], join_type="left anti").num_rows
    foreign = present.join(wanted, ["uri", "etag"], join_type="left anti").num_rows
    twice = present.num_rows - present.group_by(["uri", "etag"]).aggregate([]).num_rows
    if missing or foreign or twice:
        raise RuntimeError(
            f"{wanted.num_rows} objects were listed and {present.num_rows} rows written: "
            f"{missing} objects without a row, {foreign} rows without an object, {twice} twice"
        )
