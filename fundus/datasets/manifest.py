"""Pictures without a public layout: a plain manifest, or a folder of unlabelled files."""

import csv
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from fundus.anatomy.labels import from_plain
from fundus.datasets.samples import Sample, existing
from fundus.errors import ConfigurationError

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".ppm", ".webp")

STRUCTURES: dict[str, tuple[str, ...]] = {
    "disc+cup": ("disc", "cup"),
    "disc": ("disc",),
    "none": (),
    "": (),
}
"""The values of the column `annotation`."""

GLAUCOMA = {
    "1": True, "true": True, "yes": True,
    "0": False, "false": False, "no": False,
    "": None,
}  # fmt: skip


def read_manifest(path: Path, **wanted: str) -> list[Sample]:
    """Read a CSV or Parquet table with one row per picture; paths start at the table's folder.

    Columns: image; and, all optional, mask (8-bit lossless, 0 background, 1 rim, 2 cup; the disc
    alone as 0 and 1), id (default: the path of the image), set (default: the table's name),
    glaucoma (1, 0, yes, no, true, false or empty), split, annotation ("disc+cup", "disc", "none";
    without that column every mask is "disc+cup"), laterality (OD, OS or empty), subject (the
    person, so that no person is both learned from and validated on).

    Args:
        path: the table.
        wanted: column=value; only rows that have all these values are read.

    Raises:
        ConfigurationError: an unknown column or value; the message names the table and the row.
        MissingFile: a file of a row is missing.
    """
    return [_sample(path, number, row) for number, row in _wanted(path, wanted)]


def named(path: Path, **wanted: str) -> set[str]:
    """The names of all pictures and masks in the selected rows of a manifest."""
    rows = [row for _, row in _wanted(path, wanted)]
    return {row[column] for row in rows for column in ("image", "mask") if row.get(column)}


def read_folder(path: Path) -> list[Sample]:
    """Every picture file under a folder, sorted by path: unlabelled samples.

    The extension decides: png, jpg, jpeg, tif, tiff, bmp, ppm, webp, in upper or lower case.
    """
    files = (file for file in existing(path).rglob("*") if file.suffix.lower() in PICTURES)
    return [
        Sample(id=file.relative_to(path).as_posix(), set=path.name, image=file)
        for file in sorted(files)
        if file.is_file()
    ]


def _wanted(path: Path, wanted: Mapping[str, str]) -> list[tuple[int, dict[str, str]]]:
    """The rows with all wanted values, and their numbers from 1."""
    if path.is_dir():
        raise ConfigurationError(
            f"{path} is a folder: give the table in it, such as {path}/manifest.csv"
        )
    rows = _rows(existing(path))
    for column in wanted:
        if rows and column not in rows[0]:
            raise ConfigurationError(f"{path}: no column {column!r}; it has {', '.join(rows[0])}")
    return [
        (number, row)
        for number, row in enumerate(rows, start=1)
        if all(row[column] == value for column, value in wanted.items())
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    if path.suffix == ".parquet":
        table = pq.read_table(path).to_pylist()
        return [{key: _text(value) for key, value in row.items()} for row in table]
    with path.open(newline="", encoding="utf-8-sig") as lines:
        return [{key: value or "" for key, value in row.items()} for row in csv.DictReader(lines)]


def _text(value: object) -> str:
    """A cell as in a CSV; whole floats (of a nullable 0/1 column) as integers."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _sample(path: Path, number: int, row: dict[str, str]) -> Sample:
    folder = path.parent
    image, mask = row.get("image", ""), row.get("mask", "")
    if not image:
        raise ConfigurationError(f"{path}: row {number} names no image")
    annotation = row.get("annotation", "disc+cup" if mask else "none").lower()
    glaucoma = row.get("glaucoma", "").lower()
    laterality = row.get("laterality", "")
    if annotation not in STRUCTURES:
        raise ConfigurationError(f"{path}: row {number} has the unknown annotation {annotation!r}")
    if glaucoma not in GLAUCOMA:
        raise ConfigurationError(
            f"{path}: row {number} has the unknown glaucoma label {glaucoma!r}"
        )
    if laterality not in ("OD", "OS", ""):
        raise ConfigurationError(f"{path}: row {number} has the unknown laterality {laterality!r}")
    structures = STRUCTURES[annotation]
    if bool(structures) != bool(mask):
        raise ConfigurationError(
            f"{path}: row {number} is annotated {annotation!r} with mask {mask!r}"
        )
    return Sample(
        id=row.get("id") or image,
        set=row.get("set") or path.stem,
        image=existing(folder / image),
        masks=(existing(folder / mask),) if mask else (),
        structures=structures,
        glaucoma=GLAUCOMA[glaucoma],
        split=row.get("split", ""),
        laterality=laterality or None,
        subject=row.get("subject", ""),
        convert=partial(from_plain, structures=structures),
    )
