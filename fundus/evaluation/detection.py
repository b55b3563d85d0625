"""The detector's table: how often it is right, and how often it finds no disc."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fundus.anatomy import scores
from fundus.datasets.samples import LabelledSet
from fundus.models.predictor import Predictor, centre_inside

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """The detector's result for one picture."""

    set: str
    id: str
    confidence: float
    found: bool
    """Whether it found a disc."""
    right: bool | None
    """Whether the centre of its ROI is inside the experts' disc; None without an outline."""


def look(labelled: LabelledSet, predictor: Predictor) -> list[Answer]:
    """Run the detector on each frame of a set; ConfigurationError if a file cannot be read."""
    answers = []
    for number, sample in enumerate(labelled.samples, start=1):
        found = predictor.detect(sample.read_image())
        mask = sample.read_mask() if sample.structures else None
        right = None if mask is None else centre_inside(mask, found.roi)
        answers.append(
            Answer(labelled.name, sample.id, found.confidence, found.roi is not None, right)
        )
        if number % 50 == 0 or number == len(labelled.samples):
            log.info("%s: %d of %d pictures", labelled.name, number, len(labelled.samples))
    return answers


def summarise(answers: Sequence[Answer]) -> dict[str, Any]:
    """The row of one set, for JSON: counts, and the share of right ROIs with its 95 % interval."""
    labelled = [answer.right for answer in answers if answer.right is not None]
    return {
        "set": answers[0].set,
        "pictures": len(answers),
        "found": sum(answer.found for answer in answers),
        "no_disc": sum(not answer.found for answer in answers),
        "labelled": len(labelled),
        "centre_in_disc": sum(labelled) if labelled else None,
        "share": asdict(scores.summarise_mean([float(right) for right in labelled])),
        "mean_confidence": float(np.mean([answer.confidence for answer in answers])),
    }


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a text table; a dash if nothing is labelled."""
    head = ["set", "pictures", "no disc", "centre in disc", "share", "mean confidence"]
    lines = [head]
    for row in rows:
        share = row["share"]
        has_interval = share["low"] is not None
        between = f" [{share['low']:.3f}, {share['high']:.3f}]" if has_interval else ""
        lines.append(
            [
                row["set"],
                str(row["pictures"]),
                str(row["no_disc"]),
                f"{row['centre_in_disc']} of {row['labelled']}" if row["labelled"] else "-",
                f"{share['value']:.3f}{between}" if row["labelled"] else "-",
                f"{row['mean_confidence']:.3f}",
            ]
        )
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
