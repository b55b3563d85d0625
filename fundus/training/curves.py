"""Training curves: a table and a picture beside the bundle."""

import csv
from collections.abc import Sequence
from pathlib import Path

from fundus.training.loop import Row


def save(history: Sequence[Row], folder: Path, name: str) -> None:
    """Write `<name>.curves.csv`, one row per epoch, and `<name>.curves.png` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.curves.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)
    draw(history, folder / f"{name}.curves.png", title=name)


def draw(history: Sequence[Row], file: Path, *, title: str) -> None:
    """Losses on the left, Dice on the source's validation pictures on the right, over epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, prefix, label in zip(
        figure.subplots(1, 2), ("loss_", "val_"), ("loss", "source validation Dice"), strict=True
    ):
        for key in (k for k in history[0] if k.startswith(prefix)):
            axes.plot([r["epoch"] for r in history], [r[key] for r in history], label=key)
        axes.set(xlabel="epoch", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend()
    canvas.print_png(str(file))
