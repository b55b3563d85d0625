"""The stage that writes DICOM Segmentations and Structured Reports for DICOM inputs."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from fundus.dicom_out.source import file_name
from fundus.field import roi
from fundus.field.roi import Roi
from fundus.ledger import row
from fundus.ledger.runs import Run
from fundus.storage.places import open_place

NOT_WRITTEN = "no_dicom_out"
"""Flag of rows for which no DICOM object could be built on the file's header."""


@dataclass(frozen=True)
class WriteObjects:
    """Rows with `header` -> the same rows without it; writes objects for measured DICOM pictures.

    Both objects are named after their own UIDs, which follow from the row's identity: a row that is
    computed again writes the same bytes again. They are written before their row.
    """

    uri: str
    run: Run

    def __call__(self, rows: pa.Table) -> pa.Table:
        place = open_place(self.uri)
        flags = []
        for one in rows.to_pylist():
            flags.append(one["flags"])
            if one["header"] and one["mask_png"]:
                try:
                    for name, content in _objects(one, self.run.bundle):
                        place.put(name, content)
                except ValueError:
                    flags[-1] = [*(flags[-1] or ()), NOT_WRITTEN]
        rows = rows.drop_columns(["header"])
        at = rows.schema.get_field_index("flags")
        return rows.set_column(at, rows.field(at), pa.array(flags, rows.field(at).type))


def _objects(one: dict[str, Any], bundle: str) -> list[tuple[str, bytes]]:
    """(name, content) of the objects of one row; ValueError if its header does not suffice."""
    # Half a second, which a run without DICOM objects need not spend.
    from fundus.dicom_out.seg import segmentation
    from fundus.dicom_out.sr import report

    mask = cv2.imdecode(np.frombuffer(one["mask_png"], np.uint8), cv2.IMREAD_UNCHANGED)
    where = Roi(one["roi_x"], one["roi_y"], one["roi_size"])
    assert mask is not None
    whole = roi.restore(mask, where, one["height"], one["width"])
    header, frame = one["header"], one["frame"]
    identity = "\n".join(one[name] for name in row.IDENTITY)
    name = partial(file_name, header, identity=identity, frame=frame)
    about = {"bundle": bundle, "identity": identity, "frame": frame}
    objects = [(name("seg"), segmentation(header, whole, **about))]
    if one["vcdr"] is not None:
        made = report(header, one, laterality=one["laterality"], **about)
        objects.append((name("sr"), made))
    return objects
