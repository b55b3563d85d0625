"""The status of a results location: rows, failures, missing objects, and the run that holds it."""

import tempfile
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deltalake import DeltaTable

from fundus.ledger import claim, pseudonyms, row, runs, table
from fundus.ledger.plan import Plan
from fundus.ledger.runs import Run
from fundus.screening import report
from fundus.screening.pipeline import keep, list_archive
from fundus.screening.settings import Screening
from fundus.storage.places import Place, open_place


@dataclass(frozen=True)
class Status:
    """The present state of a results location."""

    results: str
    version: int | None
    """Version of the table; None before the first run."""
    published: str
    """Time of its commit; empty before the first run."""
    statuses: dict[str, int]
    """Current rows by status."""
    reasons: dict[str, int]
    """Current rows that are not ok, by "status: reason"."""
    unfinished: dict[str, int]
    """Staged rows by unfinished run."""
    holder: str | None
    """The process that holds the location now."""
    missing: int | None
    """Objects of the archive without a current row of these networks and settings; None if the
    archive was not listed."""


def look_up(config: Screening | None, results: str, measuring: str = "") -> Status:
    """Look up the status of a results location.

    Args:
        config: archive and settings, to count missing objects; None not to list an archive.
        results: folder or s3:// URI of the results.
        measuring: `Bundle.measuring` of the bundle, to count missing objects.
    """
    place = open_place(results)
    found = table.find(place)
    wanted = row.SCHEMA.empty_table().select(["status", "error"])
    rows = table.stream(found, ["status", "error"]).read_all() if found else wanted
    holder = claim.holder(place)
    return Status(
        results=place.uri,
        version=found.version() if found else None,
        published=_published(found) if found else "",
        statuses=dict(report.counts_of(rows["status"]).most_common()),
        reasons=report.reasons_of(rows),
        unfinished={run.run_id: _staged(place, run) for run in runs.unfinished(place)},
        holder=holder.described() if holder else None,
        missing=_missing(config, place, found, measuring) if config else None,
    )


def readable(found: Status) -> str:
    """The status for a terminal."""
    newest = "nothing yet" if found.version is None else f"version {found.version}"
    lines = [f"{found.results}: {newest} {found.published}".rstrip()]
    lines += [f"  {sum(found.statuses.values()):7d}  rows"]
    lines += report.counted(found.statuses, found.reasons)
    for run_id, rows in found.unfinished.items():
        lines.append(f"unfinished: run {run_id}, {rows} rows staged; the same command continues it")
    if found.missing is not None:
        lines.append(f"missing: {found.missing} objects of the archive have no row by this bundle")
    lines.append(f"held by {found.holder}" if found.holder else "nobody screens into it now")
    return "\n".join(lines)


def _published(found: DeltaTable) -> str:
    moment = datetime.fromtimestamp(found.history(1)[0]["timestamp"] / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _staged(place: Place, run: Run) -> int:
    with (
        tempfile.TemporaryDirectory(prefix="fundus-") as scratch,
        closing(Plan(place, run, Path(scratch))) as plan,
    ):
        return plan.refresh()


def _missing(config: Screening, place: Place, found: DeltaTable | None, measuring: str) -> int:
    pseudonyms.check(place, config.uri_key)
    with tempfile.TemporaryDirectory(prefix="fundus-") as scratch:
        listed = keep(config, list_archive(config), Path(scratch))
        if found is None:
            return listed.objects
        run = Run("", "", config.settings, measuring)
        with closing(Plan(place, run, Path(scratch))) as plan:
            return plan.want(listed.file, found)
