"""Screening: an archive in, one row for every picture out. The whole chain is `_rows`."""

import json
import logging
import math
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pyarrow as pa
import ray
import ray.data
from ray.data import DataContext, Dataset

from fundus.ledger import current as pointer
from fundus.ledger import inventory, pseudonyms, publish, runs
from fundus.ledger.claim import Claim, claimed
from fundus.ledger.current import Current
from fundus.ledger.inventory import Inventory
from fundus.ledger.runs import Run
from fundus.models.bundle import Bundle
from fundus.runtime import logs
from fundus.runtime.resources import reachable, smallest_node
from fundus.screening import dicom, light, models, reading, report
from fundus.screening.placement import placement, tune
from fundus.screening.settings import Screening
from fundus.storage.entries import Entry
from fundus.storage.listing import walk
from fundus.storage.places import Place, open_place

log = logging.getLogger(__name__)

ROWS_A_TASK, MOST_TASKS = 16, 4096
"""Objects that one reading task takes: few enough to spread; more where tasks became too many."""
FRAMES_A_BATCH, CROPS_A_BATCH = reading.FRAMES_TOGETHER, 4
"""Pictures in memory at once in one process."""
ROWS_A_FILE = 64
"""Rows that are staged together, and that a kill costs at most for each writer."""
PASSES = 3
"""A lost node may cost rows where what it had read comes out otherwise the second time."""
SAY_EVERY_S = 10.0


def screen(
    config: Screening,
    bundle: Bundle,
    say: Callable[[str], None] = lambda line: None,
    max_failure_rate: float = 1.0,
) -> report.Summary:
    """Screen what is not screened yet, on the Ray that runs; `ray.init` is the caller's.

    Every object of the archive has its rows in the current files then, or RuntimeError is raised;
    what was staged until then is kept for the next call. `say` is told of progress; a larger share
    of failed rows than `max_failure_rate` sets the summary's exit code.

    ConfigurationError for a bundle that lacks a network and for results that name objects in
    another way, ClaimHeld when another run holds them.
    """
    config.check(bundle)
    start = time.monotonic()
    entries = list_archive(config)
    place = open_place(config.results)
    with (
        claimed(place, take_over=config.take_over) as claim,
        tempfile.TemporaryDirectory(prefix="fundus-") as scratch,
    ):
        folder = Path(scratch)
        return _screen(config, bundle, entries, place, claim, folder, start, say, max_failure_rate)


def _screen(
    config: Screening,
    bundle: Bundle,
    entries: Iterable[Entry],
    place: Place,
    claim: Claim,
    scratch: Path,
    start: float,
    say: Callable[[str], None],
    max_failure_rate: float,
) -> report.Summary:
    digest = bundle.digest
    pseudonyms.keep_to(place, config.uri_key)
    current, etag = pointer.read(place)
    run = runs.begin(place, current, digest, config.settings)
    listed = keep(config, entries, scratch)
    place.put(f"{run.folder}/inventory.parquet", (scratch / "listed.parquet").read_bytes())
    say(f"run {run.run_id}: {listed.objects} objects listed")
    known = runs.answered(place, current, run, retry=config.retry_failed)
    wanted = _table(runs.left(listed.batches(), known))
    _prepare()
    found = runs.staged(place, run)
    for _ in range(PASSES):
        # Sorted, so that rows which will lie in one file are staged together.
        todo = _table(runs.left(wanted.to_batches(), runs.whole(found.ids))).sort_by("uri")
        say(f"{todo.num_rows} to screen, {wanted.num_rows - todo.num_rows} are staged")
        if not todo.num_rows:
            break
        _follow(_rows(config, bundle, place, run, todo), todo.num_rows, say)
        found = runs.staged(place, run)
    publish.reconcile(wanted, found)
    following = publish.publish(place, run, current, etag, wanted, found, claim)
    fresh = [file for file in following.files if file.run_id == run.run_id]
    summary = report.summarise(
        runs.read_current(place, Current(files=tuple(fresh)), list(report.COLUMNS)),
        run_id=run.run_id,
        bundle=digest,
        archive=config.archive if not config.pseudonymise_uris else "",
        results=place.uri,
        listed=listed.objects,
        files=[file.path for file in fresh],
        seconds=time.monotonic() - start,
        max_failure_rate=max_failure_rate,
    )
    place.put(f"{run.folder}/summary.json", json.dumps(asdict(summary), indent=2).encode() + b"\n")
    for name in place.list(f"{run.staged}/"):
        place.delete(name)
    return summary


def list_archive(config: Screening) -> Iterable[Entry]:
    """The archive's objects, listed as they are asked for; ValueError, at once, for no archive."""
    return walk(
        config.archive,
        leave_out=config.results,
        suffixes=config.suffixes or None,
        glob=config.glob,
        modified_since=config.modified_since,
    )


def keep(config: Screening, entries: Iterable[Entry], scratch: Path) -> Inventory:
    """The listing on this machine's disk, with the URIs that rows will carry."""
    key = config.uri_key
    shown = partial(pseudonyms.pseudonym, secret=key) if key else str
    listed = inventory.write(entries, scratch, shown, config.limit)
    if config.uri_map:
        pseudonyms.write_map(config.uri_map, listed.batches())
    return listed


def _rows(config: Screening, bundle: Bundle, place: Place, run: Run, todo: pa.Table) -> Dataset:
    """The chain: object -> pictures -> disc -> crop -> maps -> measures -> file."""
    shared = ray.put(bundle)
    where = placement(reachable(), logs.name_run(run.run_id), smallest_node())
    share = min(ROWS_A_TASK, math.ceil(todo.num_rows / (2 * where.readers)))
    share = max(share, math.ceil(todo.num_rows / MOST_TASKS))
    # Slices of the driver's table: read_parquet and a repartition cost 6 s more, measured.
    slices = [todo.slice(start, share) for start in range(0, todo.num_rows, share)]
    objects = ray.data.from_arrow(slices)
    pictures = objects.map_batches(
        reading.Read,
        fn_constructor_args=(config.gradability,),
        fn_constructor_kwargs={
            "precropped": config.precropped,
            "keep_header": bool(config.dicom_out),
            "subject_key": pseudonyms.Secret(pseudonyms.key()),
        },
        # All that a task takes: while some are fetched, others are decoded.
        batch_size=share,
        **where.read,
    )
    located = pictures.map_batches(
        models.Locate,
        fn_constructor_args=(shared, config.precropped),
        batch_size=FRAMES_A_BATCH,
        **where.locate,
    )
    crops = located.map_batches(
        partial(light.crop, side=bundle.preprocessing.roi_side),
        batch_size=FRAMES_A_BATCH,
        **where.light,
    )
    maps = crops.map_batches(
        models.Segment,
        fn_constructor_args=(shared,),
        batch_size=CROPS_A_BATCH,
        **where.segment,
    )
    measured = maps.map_batches(
        light.Measure(bundle.thresholds, bundle.risk, run, keep_header=bool(config.dicom_out)),
        batch_size=CROPS_A_BATCH,
        **where.light,
    )
    if config.dicom_out:
        measured = measured.map_batches(
            dicom.WriteObjects(open_place(config.dicom_out).uri, run),
            batch_format="pyarrow",
            **where.light,
        )
    return measured.map_batches(
        light.Write(place.uri, run),
        batch_size=ROWS_A_FILE,
        batch_format="pyarrow",
        **where.light,
    )


def _table(batches: Iterable[pa.Table]) -> pa.Table:
    """An inventory's batches as one table."""
    return pa.concat_tables([inventory.WORKING.empty_table(), *batches])


def _follow(rows: Dataset, objects: int, say: Callable[[str], None]) -> None:
    """Run the chain to its end, saying every ten seconds how far it is."""
    statuses: Counter[str] = Counter()
    start = told = time.monotonic()
    for batch in rows.iter_batches(batch_size=None, batch_format="numpy"):
        statuses.update(batch["status"])
        now = time.monotonic()
        if now - told > SAY_EVERY_S:
            told = now
            pace = statuses.total() / (now - start)
            so_far = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
            say(f"{statuses.total()} rows of {objects} objects, {pace:.2f} a second: {so_far}")


def _prepare() -> None:
    """How Ray Data shall run: its progress on a terminal alone, in a log it says nothing often."""
    context = DataContext.get_current()
    tune(context)
    context.enable_progress_bars = sys.stderr.isatty()
    context.enable_rich_progress_bars = True
    context.print_on_execution_start = False
    # Bounds are made for a large archive; a small one does not reach them.
    warnings.filterwarnings("ignore", "The maximum number of concurrent tasks", UserWarning)
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)
