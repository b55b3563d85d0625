"""The report of one screening run: written beside its results, in a folder or on S3."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fundus.errors import ConfigurationError
from fundus.ledger import row, table
from fundus.notebook.results import mask_of
from fundus.report import charts, pictures, worklist
from fundus.report.outlines import outlines
from fundus.report.page import render, shared_folder
from fundus.report.worklist import Row, Worklist
from fundus.storage.places import Place

FIRST = "index.html"
EYES_PER_PAGE = 200
"""Eyes with outlines per page: about 150 kB of it."""
MOST_LISTED = 10_000
"""Rows that the first page lists: about 1.2 MB of it."""
REASONS_SHOWN = 20
ROI_SIDE = 256
"""Pixels of a suspect's picture: about 10 kB each."""
COLUMNS = (
    *("name", "frame", "frames", "status", "error", "eye", "eyeSource", "vcdr", "sd", "risk"),
    *("percentile", "suspect", "quality", "confidence", "rim", "flags", "fellow", "page"),
)
"""The values of each row for the script; as columns, because there are thousands of rows."""


@dataclass(frozen=True)
class Config:
    """What a report shows."""

    run_id: str | None = None
    """The run; None for the newest run that has rows."""
    most_pictures: int = 40
    """Eyes whose pictures are read again from the archive: suspects first, with fellow eyes."""
    site: str = ""
    """The name of the hospital or programme; "" for none."""


@dataclass(frozen=True)
class Written:
    """The report and its counts."""

    run_id: str
    uri: str
    """URI of the first page."""
    pages: int
    suspects: int
    pictures: int
    """ROIs that are shown with their picture; the others are drawn from the mask alone."""


def write(
    place: Place,
    config: Config | None = None,
    *,
    source_vcdr: np.ndarray | None = None,
    drift: Mapping[str, Any] | None = None,
    sources: Mapping[str, str] | None = None,
) -> Written:
    """Write `reports/<run>/index.html` and its further pages into the results.

    Args:
        place: results with at least one finished run.
        config: which run, and how many pictures.
        source_vcdr: (N,) float, the vCDR that the bundle measured on its labelled source.
        drift: the result of `fundus.drift`, for the template; None shows nothing.
        sources: the URI of the bytes for each pseudonym, if the rows have pseudonyms.

    Returns:
        The URI of the first page, and counts.

    Raises:
        ConfigurationError: no run has been published, or none has the id that was given.
    """
    config = config or Config()
    everything = table.read(place.uri, ["run_id", "vcdr"])
    run_id = _run(everything, config.run_id, place)
    # Masks of this run alone: those of a whole archive would not fit into memory.
    rows = table.read(place.uri, where=pc.field("run_id") == run_id)
    earlier = everything.filter(pc.not_equal(everything["run_id"], run_id))
    listed = worklist.worklist(rows, everything["vcdr"].to_numpy(), MOST_LISTED)
    fellows = worklist.fellows(listed.rows)
    shown = _pictures(listed, fellows, config.most_pictures, sources)
    outlined = [one for one in listed.rows if one["mask_png"] is not None]
    usual = worklist.usual_rim([worklist.tsnit(one) for one in outlined[:2000]])
    parts = [
        range(start, min(start + EYES_PER_PAGE, len(outlined)))
        for start in range(0, max(1, len(outlined)), EYES_PER_PAGE)
    ]
    names = [FIRST, *(f"eyes-{number:03d}.html" for number in range(2, len(parts) + 1))]
    common = {
        "title": _title(config.site, run_id),
        "sentence": _sentence(place, run_id, rows, listed),
        "drift": drift,
        "pages": [
            {"name": name, "label": f"eyes {part.start + 1} to {part.stop}"}
            for name, part in zip(names, parts, strict=True)
        ],
        "statuses": sorted(set(rows["status"].to_pylist())),
        "order": _order(listed),
        "rank": "risk, high first" if listed.order == worklist.RISK else "vCDR, high first (rank)",
        "by_risk": listed.order == worklist.RISK,
        "results": place.uri,
        "pictures": _about_pictures(len(shown), config.most_pictures, len(outlined)),
    }
    prefix = shared_folder([one["uri"] for one in listed.rows])
    page_of = {number: number // EYES_PER_PAGE for number in range(len(outlined))}
    folder = f"reports/{run_id}"
    for name, part in reversed(list(zip(names, parts, strict=True))):
        first = name == FIRST
        eyes = range(len(listed.rows)) if first else part
        detailed = {*part, *shown} if first else {*part}
        data = {
            "run": run_id,
            "order": listed.order,
            "prefix": prefix,
            "first": eyes.start,
            "usual": usual,
            "columns": COLUMNS,
            "eyes": [
                _on_page(listed.rows[number], number, eyes, prefix, fellows, page_of)
                for number in eyes
            ],
            "details": {
                str(number - eyes.start): _detail(listed.rows[number], shown.get(number))
                for number in sorted(detailed)
                if number < len(listed.rows) and listed.rows[number]["mask_png"] is not None
            },
        }
        overview = _overview(rows, earlier, source_vcdr) if first else None
        page = render("run.html.j2", here=name, overview=overview, data=data, **common)
        place.put(f"{folder}/{name}", page)
    return Written(run_id, f"{place.uri}/{folder}/{FIRST}", len(parts), listed.suspects, len(shown))


def sources(uri_map: Path) -> dict[str, str]:
    """The URI of each pseudonym, from the map that screening wrote (`--uri-map`)."""
    columns = pq.read_table(uri_map).to_pydict()
    return dict(zip(columns["uri"], columns["source"], strict=True))


def _run(everything: pa.Table, wanted: str | None, place: Place) -> str:
    known = set(pc.unique(everything["run_id"]).to_pylist())
    if wanted is None and known:
        return max(known)
    if wanted not in known or wanted is None:
        what = f"the run {wanted}" if wanted else "any run"
        raise ConfigurationError(
            f"{place.uri} has no current row of {what}: screen first, or give another --run"
        )
    return wanted


def _pictures(
    listed: Worklist, fellows: Mapping[int, int], most: int, sources: Mapping[str, str] | None
) -> dict[int, str]:
    """data: URIs of the ROIs of the first rows and of their fellow eyes, by row."""
    wanted: dict[int, None] = {}
    for number, one in enumerate(listed.rows):
        if len(wanted) >= most or one["mask_png"] is None:
            break
        wanted |= dict.fromkeys((number, fellows.get(number, number)))
    found = pictures.originals([listed.rows[n] for n in wanted], sources)
    return {
        number: pictures.data_uri(
            pictures.roi_jpeg(picture, listed.rows[number], ROI_SIDE), "image/jpeg"
        )
        for number, picture in zip(wanted, found, strict=True)
        if picture is not None
    }


def _on_page(
    one: Row,
    number: int,
    eyes: range,
    prefix: str,
    fellows: Mapping[int, int],
    page_of: Mapping[int, int],
) -> list[Any]:
    """One row for the script, in the order of `COLUMNS`."""
    fellow = fellows.get(number)
    sides = ("inferior", "superior", "nasal", "temporal")
    return [
        one["uri"].removeprefix(prefix),
        *(one[name] for name in ("frame", "frames", "status", "error")),
        *(one[name] for name in ("laterality", "laterality_source")),
        *(_short(one[name]) for name in ("vcdr", "vcdr_sd", "risk")),
        _short(one["percentile"], 1),
        int(one["suspect"]),
        *(_short(one[name], 2) for name in ("quality", "disc_confidence")),
        [_short(one[f"rim_{side}"], 2) for side in sides],
        " ".join(one["flags"] or ()),
        fellow - eyes.start if fellow is not None and fellow in eyes else None,
        page_of.get(number, 0),
    ]


def _detail(one: Row, picture: str | None) -> dict[str, Any]:
    disc, cup = outlines(mask_of(one))
    return {"picture": picture, "disc": disc, "cup": cup, "rim": worklist.tsnit(one)}


def _short(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def _overview(rows: pa.Table, earlier: pa.Table, source_vcdr: np.ndarray | None) -> dict[str, Any]:
    statuses = Counter(rows["status"].to_pylist()).most_common()
    failed = rows.filter(pc.not_equal(rows["status"], row.OK)).select(["status", "error"])
    reasons = Counter(
        f"{one['status']}: {re.sub(r' *[(].*[)]', '', one['error'] or '')}"
        for one in failed.to_pylist()
    ).most_common(REASONS_SHOWN)
    samples = [charts.Sample("this run", rows["vcdr"].to_numpy())]
    absent = []
    for name, values in (
        ("earlier runs", earlier["vcdr"].to_numpy()),
        ("the bundle's source", source_vcdr),
    ):
        if values is not None and np.isfinite(values).any():
            samples.append(charts.Sample(name, values))
        else:
            absent.append(name)
    return {
        "statuses": [
            {"status": status, "count": count, "meaning": row.STATUSES[status]}
            for status, count in statuses
        ],
        "reasons": reasons,
        "chart": charts.distribution(samples, label="vCDR"),
        "compared": f"No figures to compare with: {', '.join(absent)}." if absent else "",
    }


def _title(site: str, run_id: str) -> str:
    day = f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}"
    return f"{site}: screening run of {day}" if site else f"Screening run of {day}"


def _sentence(place: Place, run_id: str, rows: pa.Table, listed: Worklist) -> str:
    measured = rows.num_rows - rows["vcdr"].null_count
    answers = pc.sum(pc.is_in(rows["status"], pa.array(sorted(row.ANSWERS)))).as_py() or 0
    found = place.read(f"runs/{run_id}/summary.json")
    archive = json.loads(found[0]).get("archive") if found else None
    bundle = rows["bundle"][0].as_py()
    suspects = {0: "none is a suspect", 1: "1 is a suspect"}.get(
        listed.suspects, f"{listed.suspects:,} are suspects"
    )
    return (
        f"Run {run_id} screened {rows.num_rows:,} pictures"
        + (f" of {archive}" if archive else "")
        + f" with bundle {bundle[:12]}: {measured:,} were measured, {suspects},"
        f" and {rows.num_rows - answers:,} could not be read."
    )


def _order(listed: Worklist) -> str:
    if listed.order == worklist.RISK:
        text = "Suspects first, by calibrated risk: it reaches the referral threshold in a suspect."
    else:
        text = (
            "This bundle has no calibrated risk. Suspects first, by vCDR; a suspect lies in the"
            f" top {100 - worklist.SUSPECT_PERCENTILE:.0f} % of this archive, which is no"
            " referral threshold."
        )
    if listed.left_out:
        text += f" {listed.left_out:,} rows beyond the first {len(listed.rows):,} are not listed."
    return text


def _about_pictures(shown: int, most: int, outlined: int) -> str:
    return (
        f"{shown:,} of {outlined:,} measured eyes are shown with their picture, read again from the"
        f" archive: the first {most}, fellow eyes among them, where the archive can be reached. The"
        " others are drawn from the mask alone."
    )
