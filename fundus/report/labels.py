"""Turn exported verdicts into a manifest: labels for calibration, pictures for training."""

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.compute as pc

from fundus.errors import ConfigurationError
from fundus.ledger import table
from fundus.notebook.results import mask_of
from fundus.report.pictures import originals
from fundus.storage.places import Place

AGREE, DISAGREE, UNGRADABLE = VERDICTS = ("agree", "disagree", "ungradable")
SUSPECT, CALLS = "suspect", ("suspect", "not suspect")
NEEDED = ("uri", "frame", "run_id", "call", "verdict", "outline", "note")
COLUMNS = ("image", "mask", "annotation", "id", "set", "glaucoma", "laterality", "note")


@dataclass(frozen=True)
class Made:
    """The labelled set that was made from a file of verdicts."""

    manifest: Path
    counts: Mapping[str, int]
    """Number of verdicts by word; `gone`: those whose picture or row is no longer available."""
    masks: int

    @property
    def sentence(self) -> str:
        """For a terminal."""
        counted = ", ".join(f"{count} {word}" for word, count in self.counts.items())
        return f"{counted or 'no verdict'}; {self.masks} with a mask: {self.manifest}"


def write(
    place: Place, verdicts: Path, folder: Path, sources: Mapping[str, str] | None = None
) -> Made:
    """Write `manifest.csv`, `images/` and `masks/` into a folder, for `manifest:` sets.

    The label is the grader's: `glaucoma` is 1 if the grader calls the eye a suspect, by agreeing
    with the page or by contradicting it, and else 0. Eyes called ungradable are left out. The mask
    of the page is included if the grader agreed and did not call the outline wrong. Pictures are
    written whole, as PNG. They are pictures of patients.

    Args:
        place: the results of the report.
        verdicts: the CSV file that the report exported.
        folder: created if it does not exist.
        sources: the URI of the bytes for each pseudonym, if the rows have pseudonyms.

    Raises:
        ConfigurationError: the file is not an export of a report, or has an unknown word.
    """
    entries = _read(verdicts)
    rows = {(one["uri"], one["frame"]): one for one in _rows(place, entries)}
    counts = Counter(one["verdict"] for one in entries)
    wanted = [one for one in entries if one["verdict"] in (AGREE, DISAGREE)]
    known = [one for one in wanted if (one["uri"], int(one["frame"])) in rows]
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    found = [rows[one["uri"], int(one["frame"])] for one in known]
    lines = [
        _sample(folder, number, verdict, row, picture)
        for number, (verdict, row, picture) in enumerate(
            zip(known, found, originals(found, sources), strict=True), start=1
        )
        if picture is not None
    ]
    counts["gone"] = len(wanted) - len(lines)
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)
    return Made(manifest, +counts, sum(bool(line["mask"]) for line in lines))


def _read(verdicts: Path) -> list[dict[str, str]]:
    """Read and check the lines with a verdict."""
    with verdicts.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = set(NEEDED) - set(reader.fieldnames or ())
        if missing:
            raise ConfigurationError(
                f"{verdicts} has no column {min(missing)}: give a file that a report exported"
            )
        lines = [one for one in reader if one["verdict"]]
    for number, one in enumerate(lines, start=1):
        for column, words in (("verdict", VERDICTS), ("call", CALLS)):
            if one[column] not in words:
                raise ConfigurationError(
                    f"{verdicts}: verdict {number} has the unknown {column} {one[column]!r};"
                    f" known are {', '.join(words)}"
                )
        if not one["frame"].isdigit():
            raise ConfigurationError(f"{verdicts}: verdict {number} names no frame")
    return lines


def _rows(place: Place, entries: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The rows that the verdicts refer to; a picture that was screened again has another row."""
    uris, runs = ({one[name] for one in entries} for name in ("uri", "run_id"))
    where = pc.field("uri").isin(sorted(uris)) & pc.field("run_id").isin(sorted(runs))
    return table.read(place.uri, where=where).to_pylist()


def _sample(
    folder: Path,
    number: int,
    verdict: Mapping[str, str],
    row: Mapping[str, Any],
    picture: np.ndarray,
) -> dict[str, Any]:
    """Write one picture and its mask; its line of the manifest."""
    image = f"images/{number:05d}.png"
    _put(folder / image, picture[..., ::-1])
    agreed = verdict["verdict"] == AGREE
    mask = ""
    if agreed and not verdict["outline"] and row["mask_png"] is not None:
        mask = f"masks/{number:05d}.png"
        _put(folder / mask, mask_of(row, in_frame=True))
    return {
        "image": image,
        "mask": mask,
        "annotation": "disc+cup" if mask else "none",
        "id": f"{verdict['uri']}#{verdict['frame']}",
        "set": "verdicts",
        "glaucoma": int((verdict["call"] == SUSPECT) == agreed),
        "laterality": row["laterality"] or "",
        "note": verdict["note"],
    }


def _put(file: Path, pixels: np.ndarray) -> None:
    file.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
