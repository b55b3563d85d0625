"""The report of an adaptation: the gate's checks, loss curves, and the target before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fundus.anatomy.pairs import Pair
from fundus.report import changes, charts
from fundus.report.page import render

NAMES = ("source-only", "adapted")


@dataclass(frozen=True, eq=False)
class Adaptation:
    """The content of the page."""

    run: str
    """Name of the run."""
    published: bool
    bundle: str
    """Digest of the adapted bundle if it was published, else of the bundle before."""
    target: str
    """One line: how many pictures were used, and why others were not."""
    checks: Sequence[Mapping[str, Any]]
    """The gate's checks: name, source_only, adapted, least, most, passed."""
    history: Sequence[Mapping[str, float]]
    """The figures of every epoch."""
    vcdr: np.ndarray
    """(N, 2) float: vCDR of each target picture before and after; NaN where undefined."""
    pairs: Sequence[Pair]
    """The pictures whose outlines differ most."""


def page(about: Adaptation, *, site: str = "", identified: bool = True) -> bytes:
    """The report as one HTML file.

    Args:
        about: the result of the adaptation.
        site: the name of the hospital or programme; "" for none.
        identified: show pictures and their names; without them the page may be stored beside a
            bundle, which others receive.
    """
    failed = [check["name"] for check in about.checks if not check["passed"]]
    return render(
        "adaptation.html.j2",
        title=f"{site}: adaptation" if site else "Adaptation",
        sentence=_sentence(about, failed),
        refused=bool(failed),
        checks=about.checks,
        curves=[
            chart
            for prefix, label in (("loss_", "loss"), ("val_", "source validation Dice"))
            if (chart := charts.curves(about.history, prefix, label))
        ],
        figures=changes.figures(about.vcdr[:, 0], about.vcdr[:, 1], NAMES),
        names=NAMES,
        pairs=changes.shown(about.pairs, identified=identified),
        identified=identified,
    )


def _sentence(about: Adaptation, failed: Sequence[str]) -> str:
    epochs = "1 epoch" if len(about.history) == 1 else f"{len(about.history)} epochs"
    ran = f"Run {about.run}: {about.target}; {epochs}."
    if about.published:
        return f"{ran} Every check passed: bundle {about.bundle[:12]} is published."
    return (
        f"{ran} Not published, because of {', '.join(failed)}: bundle {about.bundle[:12]} stays in"
        " force."
    )
