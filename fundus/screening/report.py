"""The summary of a run, as numbers for programs and as text for people."""

import re
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from fundus.ledger import row

COLUMNS = ("status", "error", "vcdr", "vcdr_sd")
"""The columns that a summary reads."""

SHOWN = 12

TOO_MANY_FAILED = 3
"""Exit code of a finished run with more failures than allowed."""


@dataclass(frozen=True)
class Summary:
    """One finished run."""

    run_id: str
    bundle: str
    """Digest of the bundle."""
    archive: str
    """Empty if URIs are pseudonyms."""
    results: str
    version: int
    """Version of the table that includes this run."""
    seconds: float
    """From the listing to the last check."""
    listed: int | None
    """Objects in the archive, including those that were screened before. None if the run died after
    its commit and the next run wrote this summary."""
    left_out: int | None
    """System files of NAS and desktop systems, which are not listed; None as for `listed`."""
    rows: int
    """Rows of this run, one per picture."""
    statuses: dict[str, int]
    """Count by status, most frequent first."""
    reasons: dict[str, int]
    """Count by "status: reason" of the rows that are not ok, without details."""
    failure_rate: float
    """Share of the rows whose status is a failure: not ok, ungradable or no_disc."""
    measured: int
    """Rows with a vcdr."""
    vcdr_quartiles: tuple[float, ...]
    """Minimum, quartiles and maximum of vcdr; empty if nothing was measured."""
    vcdr_sd_median: float | None
    """Median of vcdr_sd; None if nothing was measured."""
    exit_code: int
    """Exit code of the job: 0, or 3 if more rows failed than allowed."""


def summarise(
    rows: pa.Table,
    *,
    run_id: str,
    bundle: str,
    archive: str,
    results: str,
    listed: int | None,
    left_out: int | None = None,
    version: int,
    seconds: float,
    max_failure_rate: float = 1.0,
) -> Summary:
    """Summarise a run.

    Args:
        rows: the rows of the run, with at least `COLUMNS`.
        max_failure_rate: share of failed rows above which the exit code is 3.

    The other arguments are fields of `Summary`.
    """
    statuses = counts_of(rows["status"])
    failures = sum(count for status, count in statuses.items() if status not in row.ANSWERS)
    failure_rate = failures / rows.num_rows if rows.num_rows else 0.0
    vcdr = rows["vcdr"].drop_null()
    quantiles = pc.quantile(vcdr, [0, 0.25, 0.5, 0.75, 1]).to_pylist() if len(vcdr) else []
    sd = rows["vcdr_sd"].drop_null()
    return Summary(
        run_id=run_id,
        bundle=bundle,
        archive=archive,
        results=results,
        version=version,
        seconds=seconds,
        listed=listed,
        left_out=left_out,
        rows=rows.num_rows,
        statuses=dict(statuses.most_common()),
        reasons=reasons_of(rows),
        failure_rate=failure_rate,
        measured=len(vcdr),
        vcdr_quartiles=tuple(quantiles),
        vcdr_sd_median=pc.quantile(sd, 0.5)[0].as_py() if len(sd) else None,
        exit_code=TOO_MANY_FAILED if failure_rate > max_failure_rate else 0,
    )


def reasons_of(rows: pa.Table) -> dict[str, int]:
    """Count by "status: reason" of the rows that are not ok, most frequent first."""
    failed = rows.filter(pc.not_equal(rows["status"], row.OK))
    reasons: Counter[str] = Counter()
    for one in failed.group_by(["status", "error"]).aggregate([([], "count_all")]).to_pylist():
        reasons[f"{one['status']}: {_without_details(one['error'] or '')}"] += one["count_all"]
    return dict(reasons.most_common())


def counts_of(statuses: pa.ChunkedArray) -> Counter[str]:
    """Count by status."""
    found = pc.value_counts(statuses).to_pylist()
    return Counter({one["values"]: one["counts"] for one in found})


def readable(summary: Summary) -> str:
    """The summary for a terminal."""
    pace = summary.rows / summary.seconds if summary.seconds else 0.0
    lines = [
        f"run {summary.run_id}, bundle {summary.bundle[:12]}",
        f"{summary.listed} objects listed, {summary.rows} rows new"
        f" in {summary.seconds:.1f} s ({pace:.2f} per second)",
        "",
        *counted(summary.statuses, summary.reasons),
    ]
    if summary.left_out:
        lines[2:2] = [f"{summary.left_out} system files left out (--system-files lists them)"]
    if summary.vcdr_quartiles:
        low, q1, median, q3, high = summary.vcdr_quartiles
        lines += [
            "",
            f"vertical cup-to-disc ratio of {summary.measured} eyes: median {median:.2f}, "
            f"half of them {q1:.2f} to {q3:.2f}, all {low:.2f} to {high:.2f}",
        ]
    if summary.vcdr_sd_median is not None:
        lines.append(f"its spread over the maps of one eye: median {summary.vcdr_sd_median:.3f}")
    lines += ["", f"rows: the Delta table {summary.results}/rows, version {summary.version}"]
    return "\n".join([*lines, "research use, not a medical device"])


def counted(statuses: dict[str, int], reasons: dict[str, int]) -> list[str]:
    """Lines with the count by status and the most frequent reasons."""
    lines = [
        f"  {count:7d}  {status:14s} {row.STATUSES[status]}" for status, count in statuses.items()
    ]
    if reasons:
        lines += ["", "why not ok:"]
        lines += [f"  {count:7d}  {reason}" for reason, count in list(reasons.items())[:SHOWN]]
        if len(reasons) > SHOWN:
            lines.append(f"           and {len(reasons) - SHOWN} reasons more")
    return lines


def _without_details(error: str) -> str:
    """An error without its details in parentheses, so that equal reasons are counted together."""
    return re.sub(r"\s*\(.*\)", "", error)
