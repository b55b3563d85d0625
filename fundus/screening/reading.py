"""The stage that fetches, decodes and grades. No torch: its processes hold pictures alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fundus.images import fields, quality
from fundus.images.content import Lost, Picture
from fundus.images.decode import Refused
from fundus.images.quality import LOOK
from fundus.images.sandbox import Decoder
from fundus.ledger import row
from fundus.runtime import metrics
from fundus.screening.columns import Batch, tensors
from fundus.storage.entries import Entry
from fundus.storage.fetch import FetchFailed, fetch_many, retries

BLANK = Picture(np.zeros((1, 1, 3), np.uint8))
"""The picture of a row that has none. Ray's tensor columns do not hold arrays without elements."""
ENTRY = ("source", "etag", "size", "status", "error")
"""The columns that make an `Entry`, in its order."""
AT_ONCE = 8
"""Objects that one reader fetches at the same time."""
FRAMES_TOGETHER = 4
"""Pictures that are held before they go on; a frame of 12 megapixels takes 36 MB."""


class Read:
    """source, uri, etag, size, status, error -> a row a picture: fetched, decoded and graded.

    + frame, frames, width, height, image (HWC uint8 RGB, upright), quality (0 to 1), poor, the
    columns of `LOOK`, and what the file says of the picture: laterality, spacing_mm, subject,
    manufacturer, model, header. Entries that the inventory refused keep its status. Nothing but a
    bad object is caught here.
    """

    def __init__(
        self, gradability: str, *, precropped: bool, keep_header: bool, subject_key: bytes | None
    ) -> None:
        self.gradability, self.precropped, self.decode = gradability, precropped, Decoder()
        self.keep_header, self.subject_key = keep_header, subject_key

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """A few pictures at a time go on while the others of the batch are fetched."""
        entries = [Entry(*one) for one in zip(*(batch[name] for name in ENTRY), strict=True)]
        rows: list[dict[str, Any]] = []
        before = retries()
        for i, content in fetch_many(entries, AT_ONCE):
            known = {"uri": batch["uri"][i], "etag": batch["etag"][i]}
            rows += [known | one for one in self._pictures(content)]
            if len(rows) >= FRAMES_TOGETHER:
                yield self._passed_on(rows)
                rows = []
        if rows:
            yield self._passed_on(rows)
        metrics.count_retries("fetch", retries() - before)

    def _pictures(self, content: bytes | FetchFailed) -> list[dict[str, Any]]:
        """A row's columns for each picture of an object; one that says why where there is none."""
        try:
            if isinstance(content, FetchFailed):
                raise content
            found = self.decode.contents(
                content, subject_key=self.subject_key, keep_header=self.keep_header
            )
        except (FetchFailed, Refused) as refusal:
            return [_columns_of_lost(Lost(1, refusal.status, refusal.reason))]
        rows = [_columns_of_picture(one, found.frames) | self._grade(one) for one in found.pictures]
        return rows + [_columns_of_lost(one, found.frames) for one in found.lost]

    def _passed_on(self, rows: list[dict[str, Any]]) -> Batch:
        metrics.count_pictures("read", len(rows))
        return _as_columns(rows)

    def _grade(self, picture: Picture) -> dict[str, Any]:
        if not self.precropped and fields.are_two(picture.pixels):
            return {"status": "unsupported", "error": fields.REASON}
        if self.gradability == "off":
            return {}
        found = quality.assess(picture.pixels, crop=self.precropped)
        graded: dict[str, Any] = {"quality": found.score, "poor": found.poor}
        graded |= {column: found.measures.get(name, np.nan) for column, name in LOOK.items()}
        if found.reason and (found.hopeless or self.gradability == "refuse"):
            graded |= {"status": "ungradable", "error": found.reason}
        return graded


def _columns_of_lost(one: Lost, frames: int = 1) -> dict:
    """A row's columns where there are no pixels."""
    said = {"status": one.status, "error": one.reason, "frame": one.frame}
    return _columns_of_picture(BLANK, frames) | said | {"width": 0, "height": 0}


def _columns_of_picture(one: Picture, frames: int = 1) -> dict:
    """A row's columns as long as nothing is wrong with it."""
    return {
        "status": row.OK,
        "error": "",
        "frame": one.frame,
        "frames": frames,
        "height": one.pixels.shape[0],
        "width": one.pixels.shape[1],
        "laterality": one.laterality or "",
        "spacing_mm": one.pixel_spacing[0] if one.pixel_spacing else np.nan,
        "subject": one.subject or "",
        "header": one.header or b"",
        "manufacturer": one.manufacturer or "",
        "model": one.model or "",
        "flags": " ".join(one.flags),
        "quality": np.nan,
        **dict.fromkeys(LOOK, np.nan),
        "poor": False,
        "image": one.pixels,
    }


def _as_columns(rows: list[dict]) -> Batch:
    """Rows as columns: text and bytes as objects, pictures of several shapes too."""
    columns = {name: [one[name] for one in rows] for name in rows[0]}
    images = tensors(columns.pop("image"))
    return {
        name: np.array(values, object if isinstance(values[0], str | bytes) else None)
        for name, values in columns.items()
    } | {"image": images}
