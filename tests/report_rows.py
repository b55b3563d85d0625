"""Rows as screening writes them, made from drawn eyes with their true masks: no network, no Ray."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from fundus.anatomy.biomarkers import measure
from fundus.anatomy.labels import disc_of
from fundus.anatomy.pairs import Pair
from fundus.archive.entries import of_path
from fundus.datasets.synthetic import clinic, draw
from fundus.field import roi
from fundus.ledger import row
from fundus.report import adaptation

RUN, EARLIER = "20270131T220000Z-abcdef", "20270130T220000Z-abcdef"


def drawn_rows(folder: Path, count: int, *, risk: bool = True) -> list[dict]:
    """Measured rows of `count` drawn eyes with pictures in the folder, two eyes per subject."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_drawn(folder, number, risk) for number in range(count)]


def _drawn(folder: Path, number: int, risk: bool) -> dict:
    frame = draw(clinic(), number)
    path = folder / f"eye-{number:03d}.jpg"
    cv2.imwrite(str(path), frame.image[..., ::-1])
    rows, columns = np.nonzero(disc_of(frame.mask))
    size = 1.6 * float(np.ptp(rows) + 1)
    where = roi.around(float(columns.mean()), float(rows.mean()), size)
    mask = roi.crop_mask(frame.mask, where, 128)
    found = measure(mask, frame.laterality)
    chance = round(1 / (1 + np.exp(-30 * (found.vcdr - 0.45))), 4)
    entry = of_path(str(path).encode())
    return {
        "uri": entry.uri,
        "etag": entry.etag,
        "status": "ok",
        "width": frame.image.shape[1],
        "height": frame.image.shape[0],
        "subject": f"{number // 2:064x}",
        "laterality": "OD" if number % 2 else "OS",
        "laterality_source": "dicom",
        "quality": 0.5 + number % 5 / 10,
        "disc_confidence": 0.9,
        "roi_x": where.x,
        "roi_y": where.y,
        "roi_size": where.size,
        "vcdr_sd": 0.02 + number % 7 / 100,
        "flags": ["poor_quality"] if number % 5 == 0 else [],
        "risk": chance if risk else None,
        "referable": chance >= 0.5 if risk else None,
        "mask_png": cv2.imencode(".png", mask)[1].tobytes(),
        **vars(found),
    }


def crop_rows(folder: Path, count: int) -> list[dict]:
    """Rows without a risk of `count` flat disc crops, 64 pixels wide, vCDR 0.25 to 0.85."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_flat(folder, number, number / (count - 1)) for number in range(count)]


def _flat(folder: Path, number: int, share: float) -> dict:
    distance = np.hypot(*(np.mgrid[:64, :64] + 0.5 - 32))
    mask = (distance < 20).astype(np.uint8) + (distance < 5 + 12 * share)
    path = folder / f"crop-{number:02d}.png"
    cv2.imwrite(str(path), np.repeat(100 * mask[..., None], 3, axis=2))
    entry = of_path(str(path).encode())
    return {
        "uri": entry.uri,
        "etag": entry.etag,
        "status": "ok",
        "width": 64,
        "height": 64,
        "roi_x": 0.0,
        "roi_y": 0.0,
        "roi_size": 64.0,
        "vcdr_sd": 0.03,
        "mask_png": cv2.imencode(".png", mask)[1].tobytes(),
        **vars(measure(mask)),
    }


def adaptation_of(mask: np.ndarray) -> adaptation.Adaptation:
    """A refused adaptation of two eyes, one of them shown with this mask before and after."""
    check = {"name": "mean vCDR", "source_only": 0.5, "least": 0.48, "most": 0.52, "passed": False}
    return adaptation.Adaptation(
        run="adapted-1",
        published=False,
        bundle="b" * 64,
        target="target: 2 of 2 pictures used",
        checks=[check | {"adapted": float("nan")}],
        history=[{"epoch": 1, "loss_seg_src": 0.3, "val_disc": 0.9}],
        vcdr=np.array([[0.5, 0.6], [np.nan, 0.4]]),
        pairs=[Pair("file:///archive/doe.jpg", mask, mask, (0.5, 0.6), np.zeros((9, 9, 3), "u1"))],
    )


def failed_row(uri: str, status: str, error: str) -> dict:
    return {"uri": uri, "etag": "1", "status": status, "error": error}


def table(rows: list[dict], run_id: str = RUN, measuring: str = "c" * 64) -> pa.Table:
    """Rows as a table of one run."""
    names = {name for one in rows for name in one}
    columns = {name: [one.get(name) for one in rows] for name in names}
    return row.table(columns, run_id, "b" * 64, "frames, gradability refuse", measuring)


def reading(rows: pa.Table) -> Callable[..., pa.Table]:
    """Return a replacement of `fundus.ledger.table.read` that reads these rows from memory."""

    def read(place: str, columns: Any = None, version: Any = None, where: Any = None) -> pa.Table:
        found = rows if where is None else rows.filter(where)
        return found.select(columns) if columns else found

    return read
