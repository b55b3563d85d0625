"""Tables of an evaluation as text, CSV and JSON, and its overlay sheets as files."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from PIL import Image

from fundus.anatomy.scores import Summary
from fundus.evaluation.scoring import Row, SetEvaluation

MEASURES = ("disc_dice", "cup_dice", "vcdr_mae", "vcdr_bias", "auc")


def as_text(rows: Sequence[Row]) -> str:
    """A text table with value, interval and count in each cell; a dash where undefined."""
    head = ["set", "model", "eyes", "no disc", "disc Dice", "cup Dice", "vCDR MAE", "bias", "AUC"]
    lines = [
        [row.set, row.model, str(row.eyes), str(row.no_disc)]
        + [_cell(getattr(row, measure), signed=measure == "vcdr_bias") for measure in MEASURES]
        for row in rows
    ]
    widths = [max(len(cell) for cell in column) for column in zip(head, *lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [head, *lines]
    )


def as_csv(rows: Sequence[Row]) -> str:
    """One line per model and set; an empty cell where undefined."""
    text = io.StringIO()
    plain = [field.name for field in fields(Row) if field.name not in MEASURES]
    ends = ("value", "low", "high", "count")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        plain + [m if end == "value" else f"{m}_{end}" for m in MEASURES for end in ends]
    )
    for row in rows:
        measured = [getattr(getattr(row, m), end) for m in MEASURES for end in ends]
        writer.writerow([getattr(row, name) for name in plain] + measured)
    return text.getvalue()


def write(evaluations: Sequence[SetEvaluation], folder: Path, about: dict[str, Any]) -> list[Path]:
    """Write table.txt, table.csv, evaluation.json and the sheets into `folder`.

    Args:
        evaluations: of the sets.
        folder: created if it does not exist.
        about: facts about the evaluation, for the JSON file, which also has the values of all eyes.

    Returns:
        The files that were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for evaluation in evaluations for row in evaluation.rows]
    everything = {
        "about": about,
        "rows": [asdict(row) for row in rows],
        "eyes": [asdict(eye) for evaluation in evaluations for eye in evaluation.eyes],
    }
    texts = {
        "table.txt": as_text(rows) + "\n",
        "table.csv": as_csv(rows),
        "evaluation.json": json.dumps(everything, indent=1, allow_nan=False) + "\n",
    }
    for file, text in texts.items():
        (folder / file).write_text(text)
    written = [folder / file for file in texts]
    for evaluation in evaluations:
        for model, sheet in evaluation.sheets.items():
            written.append(folder / f"worst_{evaluation.name}_{model}.png")
            Image.fromarray(sheet).save(written[-1])
    return written


def _cell(summary: Summary, *, signed: bool) -> str:
    if summary.low is None or summary.high is None:
        return f"{_number(summary.value, signed=signed)} n={summary.count}"
    low, high = _number(summary.low, signed=signed), _number(summary.high, signed=signed)
    return f"{_number(summary.value, signed=signed)} [{low}, {high}] n={summary.count}"


def _number(value: float | None, *, signed: bool = False) -> str:
    return "-" if value is None else f"{value:{'+' if signed else ''}.3f}"
