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
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from deltalake import DeltaTable
from ray.data import DataContext, Dataset

from fundus.errors import ConfigurationError
from fundus.ledger import inventory, pseudonyms, runs, table
from fundus.ledger.claim import Claim, claimed
from fundus.ledger.inventory import Inventory
from fundus.ledger.plan import Plan
from fundus.ledger.revise import recalibrate
from fundus.ledger.runs import Run
from fundus.models.bundle import Bundle
from fundus.runtime import logs
from fundus.runtime.resources import reachable, smallest_node
from fundus.screening import dicom, light, models, reading, report
from fundus.screening.placement import placement, tune
from fundus.screening.settings import EXTRAS, Screening
from fundus.storage.conditional import check_conditional_writes
from fundus.storage.entries import Entry
from fundus.storage.listing import walk
from fundus.storage.places import Place, open_place

log = logging.getLogger(__name__)

ROWS_A_TASK, MOST_TASKS = 16, 4096
"""Objects that one reading task takes: few enough to spread; more where tasks became too many."""
FRAMES_A_BATCH, CROPS_A_BATCH = reading.FRAMES_TOGETHER, 4
"""Pictures in memory at once in one process."""
LEAST_ROWS, MOST_ROWS, FILES = 64, 2048, 256
"""Rows in one file, which a kill costs at most for each writer, and files in a round: few for a
reader, and soon written."""
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

    Every object of the archive has its rows in the table then, or RuntimeError is raised;
    what was staged until then is kept for the next call. `say` is told of progress; a larger share
    of failed rows than `max_failure_rate` sets the summary's exit code.

    ConfigurationError for a bundle that lacks a network and for results that name objects in
    another way, ClaimHeld when another run holds them.
    """
    config.check(bundle)
    start = time.monotonic()
    left_out: Counter[str] = Counter()
    entries = _not_empty(config, list_archive(config, left_out))
    place = open_place(config.results)
    check_conditional_writes(place)
    with (
        claimed(place, take_over=config.take_over) as claim,
        tempfile.TemporaryDirectory(prefix="fundus-") as scratch,
    ):
        folder = Path(scratch)
        return _screen(
            config, bundle, entries, left_out, place, claim, folder, start, say, max_failure_rate
        )


def _screen(
    config: Screening,
    bundle: Bundle,
    entries: Iterable[Entry],
    left_out: Counter[str],
    place: Place,
    claim: Claim,
    scratch: Path,
    start: float,
    say: Callable[[str], None],
    max_failure_rate: float,
) -> report.Summary:
    pseudonyms.keep_to(place, config.uri_key)
    rows = table.opened(place)
    finish_published(place, rows)
    about = Run("", bundle.digest, config.settings, bundle.measuring, config.source, config.extras)
    run = runs.begin(place, about)
    listed = keep(config, entries, scratch)
    place.put(f"{run.folder}/inventory.parquet", listed.listed.read_bytes())
    say(f"run {run.run_id}: {listed.objects} objects listed")
    _prepare()
    with closing(Plan(place, run, scratch)) as plan:
        wanted = plan.want(listed.file, rows, retry=config.retry_failed)
        _say_what_is_not_made(plan, rows, say)
        plan.refresh()
        for _ in range(PASSES):
            todo = plan.todo()
            say(f"{todo} to screen, {wanted - todo} are staged")
            if not todo:
                break
            for objects in plan.rounds():
                claim.check()
                _follow(_rows(config, bundle, place, run, objects), objects.num_rows, say)
            plan.refresh()
        claim.check()
        plan.publish()
    revised = recalibrate(place, run, bundle.risk)
    if revised:
        say(f"the bundle was calibrated anew: {revised} files have its risk now")
    seconds = time.monotonic() - start
    summary = finish(
        place,
        run,
        config.archive_shown,
        listed.objects,
        left_out.total(),
        seconds=seconds,
        max_failure_rate=max_failure_rate,
    )
    table.tidy(place)
    return summary


def finish(
    place: Place,
    run: Run,
    archive: str = "",
    listed: int | None = None,
    left_out: int | None = None,
    seconds: float = 0.0,
    max_failure_rate: float = 1.0,
) -> report.Summary:
    """After a run's commit: clean up, and write the summary last."""
    rows = table.opened(place)
    summary = report.summarise(
        table.stream(rows, report.COLUMNS, filter=pc.field("run_id") == run.run_id).read_all(),
        run_id=run.run_id,
        bundle=run.bundle,
        archive=archive,
        results=place.uri,
        listed=listed,
        left_out=left_out,
        version=rows.version(),
        seconds=seconds,
        max_failure_rate=max_failure_rate,
    )
    runs.finish(place, run, json.dumps(asdict(summary), indent=2).encode() + b"\n")
    return summary


def finish_published(place: Place, rows: DeltaTable) -> None:
    """Finish runs that died after their commit."""
    for run in runs.unfinished(place):
        if table.is_published(rows, run.run_id):
            finish(place, run)


def _say_what_is_not_made(plan: Plan, rows: DeltaTable, say: Callable[[str], None]) -> None:
    """What this run is told to make beside the rows is not made for pictures that have rows."""
    for extra, objects in plan.lacking(rows).items():
        say(
            f"{objects} objects were screened before without {EXTRAS[extra.split()[0]]} and stay as"
            " they are: to have it for them too, screen into another results place"
        )


def list_archive(config: Screening, left_out: Counter[str] | None = None) -> Iterable[Entry]:
    """The archive's objects, listed as they are asked for; ValueError, at once, for no archive.

    `left_out` gets the count of the system files that are not listed, by kind.
    """
    return walk(
        config.archive,
        leave_out=config.results,
        suffixes=config.suffixes or None,
        glob=config.glob,
        modified_since=config.modified_since,
        system_files=config.system_files,
        left_out=left_out,
    )


def _not_empty(config: Screening, entries: Iterable[Entry]) -> Iterable[Entry]:
    """The same entries. ConfigurationError where an archive holds none and none was filtered out.

    A night on which no new file passes --glob, --suffix or --modified-since is no mistake.
    """
    ahead = iter(entries)
    first = list(islice(ahead, 1))
    if not first and not (config.suffixes or config.glob or config.modified_since):
        raise ConfigurationError(
            f"the archive {config.archive} holds no file to screen: give the folder, bucket or list"
            " of the photographs with --archive"
        )
    return chain(first, ahead)


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
        batch_size=rows_a_file(todo.num_rows),
        batch_format="pyarrow",
        **where.light,
    )


def rows_a_file(objects: int) -> int:
    """Rows that are written together, for so many objects in a round."""
    return min(MOST_ROWS, max(LEAST_ROWS, objects // FILES))


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
