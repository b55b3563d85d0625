"""Rows as screening writes them, made from drawn eyes with their true masks: no network, no Ray."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from fundus.anatomy.biomarkers import measure
from fundus.anatomy.labels import disc_of
from fundus.datasets.synthetic import clinic, draw
from fundus.images import roi
from fundus.ledger import row
from fundus.storage.entries import of_path

RUN, EARLIER = "20270131T220000Z-abcdef", "20270130T220000Z-abcdef"


def drawn_rows(folder: Path, count: int, *, risk: bool = True) -> list[dict]:
    """Measured rows of `count` drawn eyes whose pictures lie in the folder, two eyes a subject."""
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


def failed_row(uri: str, status: str, error: str) -> dict:
    return {"uri": uri, "etag": "1", "status": status, "error": error}


def table(rows: list[dict], run_id: str = RUN) -> pa.Table:
    """Rows as a table of one run."""
    names = {name for one in rows for name in one}
    columns = {name: [one.get(name) for one in rows] for name in names}
    return row.table(columns, run_id, "b" * 64, "frames, gradability refuse", "c" * 64)
