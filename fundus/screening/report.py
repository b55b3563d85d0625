"""What a run found, as numbers for machines and as text for people."""

import re
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from fundus.screening import row

COLUMNS = ("uri", "etag", "status", "error", "vcdr", "vcdr_sd")
"""The columns that a summary reads; masks are left where they are."""

SHOWN = 12


@dataclass(frozen=True)
class Summary:
    """One finished run."""

    run_id: str
    bundle: str
    """Digest."""
    archive: str
    rows: str
    """The folder of Parquet files."""
    seconds: float
    """From the listing to the last check."""
    objects: int
    statuses: dict[str, int]
    """Count by status, most frequent first."""
    reasons: dict[str, int]
    """Count by "status: reason" of the rows that are not ok, details left out."""
    measured: int
    """Rows with a vcdr."""
    vcdr_quartiles: tuple[float, ...]
    """Minimum, quartiles and maximum of vcdr; empty where nothing was measured."""
    vcdr_sd_median: float | None


def summarise(
    rows: pa.Table, *, run_id: str, bundle: str, archive: str, rows_folder: str, seconds: float
) -> Summary:
    """Count and describe rows (at least `COLUMNS`)."""
    statuses = Counter(rows["status"].to_pylist())
    failed = rows.filter(pc.not_equal(rows["status"], row.OK))
    pairs = zip(failed["status"].to_pylist(), failed["error"].to_pylist(), strict=True)
    reasons = Counter(f"{status}: {_without_details(error or '')}" for status, error in pairs)
    vcdr = rows["vcdr"].drop_null()
    quantiles = pc.quantile(vcdr, [0, 0.25, 0.5, 0.75, 1]).to_pylist() if len(vcdr) else []
    sd = rows["vcdr_sd"].drop_null()
    return Summary(
        run_id=run_id,
        bundle=bundle,
        archive=archive,
        rows=rows_folder,
        seconds=seconds,
        objects=rows.num_rows,
        statuses=dict(statuses.most_common()),
        reasons=dict(reasons.most_common()),
        measured=len(vcdr),
        vcdr_quartiles=tuple(quantiles),
        vcdr_sd_median=pc.quantile(sd, 0.5)[0].as_py() if len(sd) else None,
    )


def readable(summary: Summary) -> str:
    """The summary for a terminal."""
    pace = summary.objects / summary.seconds if summary.seconds else 0.0
    lines = [
        f"run {summary.run_id}, bundle {summary.bundle[:12]}",
        f"{summary.objects} objects in {summary.seconds:.1f} s ({pace:.2f} a second)",
        "",
    ]
    lines += [
        f"  {count:7d}  {status:14s} {row.STATUSES[status]}"
        for status, count in summary.statuses.items()
    ]
    if summary.reasons:
        lines += ["", "why not ok:"]
        shown = list(summary.reasons.items())[:SHOWN]
        lines += [f"  {count:7d}  {reason}" for reason, count in shown]
        if len(summary.reasons) > SHOWN:
            lines.append(f"           and {len(summary.reasons) - SHOWN} reasons more")
    if summary.vcdr_quartiles:
        low, q1, median, q3, high = summary.vcdr_quartiles
        lines += [
            "",
            f"vertical cup-to-disc ratio of {summary.measured} eyes: median {median:.2f}, "
            f"half of them {q1:.2f} to {q3:.2f}, all {low:.2f} to {high:.2f}",
        ]
    if summary.vcdr_sd_median is not None:
        lines.append(f"its spread over the maps of one eye: median {summary.vcdr_sd_median:.3f}")
    lines += ["", f"rows: {summary.rows}", "research use, not a medical device"]
    return "\n".join(lines)


def _without_details(error: str) -> str:
    """An error less what stands in parentheses, so that equal reasons count together."""
    return re.sub(r"\s*\(.*\)", "", error)
