"""Screening: from an archive to one row per picture. `_rows` is the whole chain."""

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

from fundus.archive.entries import Entry
from fundus.archive.listing import walk
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
from fundus.screening import attempts, dicom, light, models, reading, report, stages
from fundus.screening.placement import placement, tune
from fundus.screening.progress import Progress, listing
from fundus.screening.settings import EXTRAS, Screening
from fundus.screening.stages import Networks
from fundus.storage.conditional import check_conditional_writes
from fundus.storage.places import Place, open_place

log = logging.getLogger(__name__)

ROWS_PER_TASK, TASKS_PER_READER, MOST_TASKS = 32, 8, 4096
"""Objects per reading task. A small archive gets smaller tasks, so that all readers are busy to its
end; a very large one gets larger tasks."""
LEAST_ROWS, MOST_ROWS, FILES = 64, 2048, 256
"""Rows per file, which are lost per writer if the run is killed, and files per round: few files for
readers, soon written."""
PASSES = 3
"""A lost node may cost rows, if its objects give other batches when they are read again."""


def screen(
    config: Screening,
    bundle: Bundle,
    show: Callable[[str], None] = lambda line: None,
    max_failure_rate: float = 1.0,
) -> report.Summary:
    """Screen all objects of an archive that have no row yet, on the running Ray.

    Afterwards every object of the archive has its rows in the table. If this fails, the same call
    continues the run.

    Args:
        config: archive, results and settings.
        bundle: the networks.
        show: called with each line of progress.
        max_failure_rate: share of failed rows above which the summary's exit code is 3.

    Raises:
        ConfigurationError: the archive, the results or the bundle cannot be used.
        ClaimHeld: another run holds the results.
        RuntimeError: objects still lack rows.
    """
    config.check(bundle)
    start = time.monotonic()
    left_out: Counter[str] = Counter()
    entries = listing(_not_empty(config, list_archive(config, left_out)), show)
    place = open_place(config.results)
    check_conditional_writes(place)
    with (
        claimed(place, take_over=config.take_over) as claim,
        tempfile.TemporaryDirectory(prefix="fundus-") as scratch,
    ):
        folder = Path(scratch)
        return _screen(
            config, bundle, entries, left_out, place, claim, folder, start, show, max_failure_rate
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
    show: Callable[[str], None],
    max_failure_rate: float,
) -> report.Summary:
    pseudonyms.keep_to(place, config.uri_key)
    rows = table.opened(place)
    finish_published(place, rows)
    about = Run("", bundle.digest, config.settings, bundle.measuring, config.source, config.extras)
    run = runs.begin(place, about)
    listed = keep(config, entries, scratch)
    place.put(f"{run.folder}/inventory.parquet", listed.listed.read_bytes())
    show(f"run {run.run_id}: {listed.objects} objects listed")
    _prepare()
    with closing(Plan(place, run, scratch)) as plan:
        wanted = plan.want(listed.file, rows, retry=config.retry_failed)
        _show_missing_extras(plan, rows, show)
        plan.refresh()
        networks = None
        for _ in range(PASSES):
            todo = plan.todo()
            show(f"{todo} to screen, {wanted - todo} are staged")
            if not todo:
                break
            networks = networks or stages.share(
                bundle, config.profile, gpu=bool(reachable()["GPU"])
            )
            progress = Progress(todo, show)
            for objects in plan.rounds():
                claim.check()
                progress.begin_round(DataContext.get_current())
                _follow(_rows(config, bundle, networks, place, run, objects), progress)
            plan.refresh()
        claim.check()
        # Before the run's own commit, which must be the newest for `runs.finish`.
        if revised := recalibrate(place, run, bundle.risk):
            show(f"the bundle was calibrated again: {revised} rows have its new risk")
        plan.publish()
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
    """Clean up after a run's commit, and write its summary last.

    Args:
        place: the results location.
        run: the committed run.
        archive: as the summary names it; empty if URIs are pseudonyms.
        listed, left_out: counts of the listing; None if they are unknown.
        seconds: duration of the run.
        max_failure_rate: share of failed rows above which the exit code is 3.
    """
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


def _show_missing_extras(plan: Plan, rows: DeltaTable, show: Callable[[str], None]) -> None:
    """Report pictures that have rows already, for which this run's extra outputs are not made."""
    for extra, objects in plan.lacking(rows).items():
        show(
            f"{objects} objects were screened before without {EXTRAS[extra.split()[0]]} and stay as"
            " they are: to have it for them too, give another location as --results"
        )


def list_archive(config: Screening, left_out: Counter[str] | None = None) -> Iterable[Entry]:
    """List the archive lazily, with the filters of `config`.

    Args:
        config: archive and filters.
        left_out: counts the system files that are not listed, by kind.

    Raises:
        ConfigurationError: there is no such archive; raised at once.
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
    """Return the same entries; ConfigurationError if there are none although nothing is filtered.

    With --glob, --suffix or --modified-since a night without new files is not a mistake.
    """
    ahead = iter(entries)
    first = list(islice(ahead, 1))
    if not first and not (config.suffixes or config.glob or config.modified_since):
        raise ConfigurationError(
            f"the archive {config.archive} holds no file to screen: give the folder, bucket or list"
            " of the photographs as --archive"
        )
    return chain(first, ahead)


def keep(config: Screening, entries: Iterable[Entry], scratch: Path) -> Inventory:
    """Write the listing to this machine's disk, with the URIs that rows will carry."""
    key = config.uri_key
    shown = partial(pseudonyms.pseudonym, secret=key) if key else str
    listed = inventory.write(entries, scratch, shown, config.limit)
    if config.uri_map:
        pseudonyms.write_map(config.uri_map, listed.batches())
    return listed


def _rows(
    config: Screening, bundle: Bundle, networks: Networks, place: Place, run: Run, todo: pa.Table
) -> Dataset:
    """The chain: objects -> crops of their discs -> rows -> files."""
    where = placement(reachable(), logs.name_run(run.run_id), smallest_node())
    share = min(ROWS_PER_TASK, math.ceil(todo.num_rows / (TASKS_PER_READER * where.readers)))
    share = max(share, math.ceil(todo.num_rows / MOST_TASKS))
    tried = attempts.shared()
    # Slices of the table in this process: read_parquet and a repartition took 6 s more, and
    # from_arrow starts a task for each slice.
    objects = ray.data.from_blocks(reading.tasks(todo, share))
    read = partial(
        reading.Read,
        config.gradability,
        precropped=config.precropped,
        keep_header=bool(config.dicom_out),
        subject_key=pseudonyms.Secret(pseudonyms.key()),  # type: ignore[arg-type]  # arrives as bytes
        least_side=bundle.preprocessing.least_side(precropped=config.precropped),
        attempts=tried,
    )
    locate = partial(models.Locate, precropped=config.precropped)
    measure = light.Measure(
        bundle.thresholds,
        bundle.risk,
        run,
        keep_header=bool(config.dicom_out),
        hidden=bundle.hidden_spread(config.profile),
    )
    crops = (networks.reading, tried, read, locate)
    rows = (networks.measuring, tried, models.Segment, measure)
    # A whole reading task at once: some objects are fetched while others are decoded.
    if where.measure is None:
        both = (partial(stages.Crops, *crops), partial(stages.Rows, *rows))
        measured = objects.map_batches(
            stages.CropsAndRows, fn_constructor_args=both, batch_size=None, **where.read
        )
    else:
        measured = objects.map_batches(
            stages.Crops, fn_constructor_args=crops, batch_size=None, **where.read
        ).map_batches(
            stages.Rows,
            fn_constructor_args=rows,
            batch_size=stages.CROPS_PER_BATCH,
            **where.measure,
        )
    if config.dicom_out:
        measured = measured.map_batches(
            dicom.WriteObjects,
            fn_constructor_args=(open_place(config.dicom_out).uri, run),
            batch_format="pyarrow",
            **where.light,
        )
    return measured.map_batches(
        light.Write,
        fn_constructor_args=(place.uri, run),
        batch_size=rows_per_file(todo.num_rows),
        batch_format="pyarrow",
        **where.light,
    )


def rows_per_file(objects: int) -> int:
    """Rows per file, for a round of `objects`."""
    return min(MOST_ROWS, max(LEAST_ROWS, objects // FILES))


def _follow(rows: Dataset, progress: Progress) -> None:
    """Run the chain to its end, and count its rows."""
    for batch in rows.iter_batches(batch_size=None, batch_format="numpy"):
        progress.wrote(batch["status"])


def _prepare() -> None:
    """Configure Ray Data: progress bars only on a terminal, and a quiet log."""
    context = DataContext.get_current()
    tune(context)
    context.enable_progress_bars = sys.stderr.isatty()
    context.enable_rich_progress_bars = True
    context.print_on_execution_start = False
    # The bounds are chosen for large archives; small ones do not reach them.
    warnings.filterwarnings("ignore", "The maximum number of concurrent tasks", UserWarning)
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)
