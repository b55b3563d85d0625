"""Charts of a page, drawn by matplotlib as SVG: sharp in print and readable without a script."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fundus.report.pictures import data_uri

INK, GRID = "#3b4650", "#dfe4e8"
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "fundus",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
COLOURS = ("#0b6e99", "#c2571a", "#6b7680")
DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))


@dataclass(frozen=True)
class Chart:
    """A picture for a page, and its content in words for those who do not see it."""

    source: str
    """data: URI of an SVG."""
    words: str


@dataclass(frozen=True)
class Sample:
    """The values of one group."""

    name: str
    values: np.ndarray
    """(N,) float, NaN left out."""


def distribution(
    samples: Sequence[Sample], *, label: str, low: float = 0.0, high: float = 1.0, bins: int = 40
) -> Chart | None:
    """Shares of each group by value: the first filled, the others as lines. None without values."""
    known = [
        Sample(one.name, values)
        for one in samples
        if len(values := one.values[np.isfinite(one.values)])
    ]
    if not known:
        return None
    figure, axes = _figure(width=5.6, height=2.3)
    edges = np.linspace(low, high, bins + 1)
    for number, one in enumerate(known):
        counts, _ = np.histogram(np.clip(one.values, low, high), edges)
        shares = 100 * counts / len(one.values)
        colour = COLOURS[number % 3]
        legend = f"{one.name} ({len(one.values):,})"
        if number == 0:
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.25)
        axes.stairs(
            shares, edges, color=colour, linewidth=1.5, linestyle=DASHES[number % 3], label=legend
        )
    axes.set(xlabel=label, ylabel="% of eyes", xlim=(low, high))
    axes.legend(frameon=False, fontsize=8)
    words = "; ".join(
        f"{one.name}: {len(one.values)} eyes, median {np.median(one.values):.2f}" for one in known
    )
    return Chart(_svg(figure), f"Distribution of {label}. {words}.")


def against(before: np.ndarray, after: np.ndarray, names: tuple[str, str]) -> Chart | None:
    """A point for each eye: (N,) vCDR before and after, with the diagonal. None without points."""
    known = np.isfinite(before) & np.isfinite(after)
    if not known.any():
        return None
    x, y = before[known], after[known]
    figure, axes = _figure(width=3.3, height=3.1)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8)
    axes.plot(x, y, ".", color=COLOURS[0], alpha=0.6, markersize=6, rasterized=len(x) > 500)
    axes.set(xlabel=f"vCDR, {names[0]}", ylabel=f"vCDR, {names[1]}", xlim=(0, 1), ylim=(0, 1))
    axes.set_aspect("equal")
    higher = float(np.mean(y > x))
    return Chart(
        _svg(figure),
        f"vCDR of {len(x)} eyes, {names[1]} against {names[0]}: {higher:.0%} lie above the"
        " diagonal.",
    )


def curves(rows: Sequence[Mapping[str, float]], prefix: str, label: str) -> Chart | None:
    """The columns of a training's epochs that start with `prefix`, over epochs."""
    names = [name for name in (rows[0] if rows else ()) if name.startswith(prefix)]
    if not names:
        return None
    figure, axes = _figure(width=4.6, height=2.5)
    epochs = [one["epoch"] for one in rows]
    for number, name in enumerate(names):
        style = {"color": COLOURS[number % 3], "linestyle": DASHES[number % 3]}
        axes.plot(
            epochs, [one[name] for one in rows], label=name, linewidth=1.5, marker=".", **style
        )
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(frameon=False, fontsize=8)
    last = ", ".join(f"{name} {rows[-1][name]:.3f}" for name in names)
    return Chart(_svg(figure), f"{label} over {len(rows)} epochs; at the end {last}.")


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure) -> str:
    sink = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(sink, format="svg", metadata={"Date": None}, transparent=True)
    return data_uri(sink.getvalue(), "image/svg+xml")
