"""How things stand in a results place: what is done, failed and missing, and who is at it."""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fundus.ledger import claim, pseudonyms, runs
from fundus.ledger import current as pointer
from fundus.ledger.runs import Run
from fundus.screening import report
from fundus.screening.pipeline import keep, list_archive
from fundus.screening.settings import Screening
from fundus.storage.places import open_place


@dataclass(frozen=True)
class Standing:
    """A results place, as it is now."""

    results: str
    runs: int
    """Finished ones."""
    published: str
    """When the last one was; empty before the first."""
    statuses: dict[str, int]
    """Current rows by status."""
    reasons: dict[str, int]
    """Current rows that are not ok, by "status: reason"."""
    unfinished: dict[str, int]
    """Rows staged, by run."""
    holder: str | None
    """Who screens into it now."""
    missing: int | None
    """Objects of the archive without a current row by this bundle; None where it was not listed."""


def standing(config: Screening | None, results: str, bundle: str = "") -> Standing:
    """Look at a results place; with a configuration also at its archive, for what is missing."""
    place = open_place(results)
    current, _ = pointer.read(place)
    table = runs.read_current(place, current, ["status", "error"])
    holder = claim.holder(place)
    return Standing(
        results=place.uri,
        runs=len(current.runs),
        published=current.published,
        statuses=dict(Counter(table["status"].to_pylist()).most_common()),
        reasons=report.reasons_of(table),
        unfinished={
            run.run_id: runs.staged(place, run).ids.num_rows
            for run in runs.unfinished(place, current)
        },
        holder=holder.described() if holder else None,
        missing=_missing(config, bundle) if config else None,
    )


def readable(found: Standing) -> str:
    """For a terminal."""
    lines = [f"{found.results}: {found.runs} finished runs, the last {found.published or 'none'}"]
    lines += [f"  {sum(found.statuses.values()):7d}  rows"]
    lines += report.counted(found.statuses, found.reasons)
    for run_id, rows in found.unfinished.items():
        lines.append(f"unfinished: run {run_id}, {rows} rows staged; the same command continues it")
    if found.missing is not None:
        lines.append(f"missing: {found.missing} objects of the archive have no row by this bundle")
    lines.append(f"held by {found.holder}" if found.holder else "nobody screens into it now")
    return "\n".join(lines)


def _missing(config: Screening, bundle: str) -> int:
    place = open_place(config.results)
    pseudonyms.check(place, config.uri_key)
    current, _ = pointer.read(place)
    with tempfile.TemporaryDirectory(prefix="fundus-") as scratch:
        listed = keep(config, list_archive(config), Path(scratch))
        done = runs.answered(place, current, Run("", bundle, config.settings))
        return sum(some.num_rows for some in runs.left(listed.batches(), done))
