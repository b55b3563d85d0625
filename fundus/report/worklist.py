"""The order in which a grader sees the rows of a run, and the values that the page derives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fundus.anatomy.biomarkers import rim_profile
from fundus.ledger import row
from fundus.notebook.results import mask_of

RISK, PERCENTILE = "risk", "percentile"
SUSPECT_PERCENTILE = 95.0
"""Without a calibrated risk, eyes at or above this percentile of vCDR are suspects."""
RAYS = 36
"""Angles of a rim profile on the page: one per ten degrees."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Worklist:
    """A run's rows, suspects first."""

    rows: list[Row]
    """Columns of `row.SCHEMA`, and `percentile` (0 to 100, or None) and `suspect` (bool)."""
    order: str
    """`RISK` if the bundle is calibrated, else `PERCENTILE`."""
    left_out: int
    """Rows beyond the most that a report lists."""

    @property
    def suspects(self) -> int:
        """Rows that are suspects."""
        return sum(one["suspect"] for one in self.rows)


def worklist(rows: pa.Table, archive_vcdr: np.ndarray, most: int) -> Worklist:
    """Order the rows of a run by risk, or else by vCDR, with unmeasured rows last.

    Args:
        rows: columns of `row.SCHEMA`.
        archive_vcdr: (N,) float, the vCDR of all current rows, to which percentiles refer.
        most: rows in the list.
    """
    risk, vcdr = (rows[name].to_numpy() for name in ("risk", "vcdr"))
    calibrated = bool(np.isfinite(risk).any())
    first = np.where(np.isnan(risk), -1, risk) if calibrated else np.zeros(len(vcdr))
    answered = pc.is_in(rows["status"], pa.array(sorted(row.ANSWERS))).to_numpy()
    bare = pc.is_null(rows["mask_png"]).to_numpy()
    keys = (rows["uri"].to_numpy(), ~answered, bare, -np.where(np.isnan(vcdr), -1, vcdr), -first)
    chosen = np.lexsort(keys)[:most]
    everyone = np.sort(archive_vcdr[np.isfinite(archive_vcdr)])
    found = rows.take(pa.array(chosen)).to_pylist()
    for one in found:
        one["percentile"] = percentile(one["vcdr"], everyone)
        one["suspect"] = bool(
            one["referable"] if calibrated else (one["percentile"] or 0) >= SUSPECT_PERCENTILE
        )
    return Worklist(found, RISK if calibrated else PERCENTILE, rows.num_rows - len(found))


def percentile(vcdr: float | None, ordered: np.ndarray) -> float | None:
    """Share of the eyes, in percent, whose vCDR is at most this one; None without a vCDR."""
    if vcdr is None or not len(ordered):
        return None
    return float(100 * np.searchsorted(ordered, vcdr, side="right") / len(ordered))


def tsnit(one: Row) -> list[float | None]:
    """Rim width by angle in the order of an OCT's profile: temporal, superior, nasal, inferior.

    (RAYS,) in vertical disc diameters. Without a laterality the profile starts at the left of the
    picture, as if the eye were a right one; the page then labels the ends left and right.
    """
    return ordered_as_tsnit(rim_profile(mask_of(one), RAYS), one["laterality"])


def ordered_as_tsnit(profile: np.ndarray, laterality: str | None) -> list[float | None]:
    """A profile of `rim_profile` (right, below, left, above) in the order of `tsnit`."""
    half = len(profile) // 2
    # A right eye's temporal side is on the left: left, above, right, below. A left eye is mirrored.
    turned = profile[::-1] if laterality == "OS" else np.roll(profile, -half)
    return [None if np.isnan(value) else round(float(value), 3) for value in turned]


def usual_rim(profiles: Sequence[Sequence[float | None]]) -> list[list[float]]:
    """The 10th, 50th and 90th percentile of the rim at each angle over many eyes; empty for few."""
    known = [each for each in profiles if None not in each]
    if len(known) < 10:
        return []
    return np.percentile(np.array(known, float), (10, 50, 90), axis=0).round(3).tolist()


def fellows(rows: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """The row of the same subject's other eye for each row, if it is known: index by index.

    If there are several pictures of one eye, the measured one with the best quality counts.
    """
    eyes: dict[tuple[str, str], int] = {}
    for number, one in enumerate(rows):
        if one["subject"] and one["laterality"] and one["vcdr"] is not None:
            key = (one["subject"], one["laterality"])
            held = eyes.get(key)
            if held is None or (one["quality"] or 0) > (rows[held]["quality"] or 0):
                eyes[key] = number
    other = {"OD": "OS", "OS": "OD"}
    return {
        number: eyes[one["subject"], other[one["laterality"]]]
        for number, one in enumerate(rows)
        if one["laterality"] and (one["subject"], other[one["laterality"]]) in eyes
    }
