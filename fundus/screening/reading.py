"""Fetching, decoding and assessing gradability, without torch."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from fundus.archive.entries import Entry
from fundus.archive.fetch import FetchFailed, fetch_many, retries
from fundus.decoding.sandbox import Decoder
from fundus.field import fields, quality
from fundus.field.fov import exposure
from fundus.field.quality import LOOK
from fundus.images.content import Lost, Picture
from fundus.images.decode import Refused
from fundus.ledger import row
from fundus.runtime import metrics
from fundus.screening.attempts import MOST, REASON, Watch
from fundus.screening.columns import Batch, tensors

BLANK = Picture(np.zeros((1, 1, 3), np.uint8))
"""The picture of a row without one: Ray's tensor columns cannot store empty arrays."""
ENTRY = ("source", "etag", "size", "status", "error")
"""The columns of an `Entry`, in the order of its fields."""
AT_ONCE = 8
"""Objects that one reader fetches at the same time."""
OBJECTS_TOGETHER = 8
"""Objects whose attempts are noted by one call."""
FRAMES_TOGETHER = 8
"""Pictures that are collected before they are passed on; a working frame takes 2 to 4 MB."""
TASK_S, OBJECT_S, MEGABYTE_S = 60.0, 0.3, 0.3
"""Longest duration of a reading task, because a spot instance gets two minutes' notice; estimated
core seconds per object and per megabyte. A JPEG of 0.6 MB and 3.6 megapixels took 0.6 s on a busy
core."""


def tasks(todo: pa.Table, most: int) -> list[pa.Table]:
    """Split listed objects into reading tasks, in their order.

    A task has at most `most` objects and takes at most about `TASK_S`, unless it is a single object
    that takes longer.
    """
    seconds = OBJECT_S + MEGABYTE_S * todo["size"].to_numpy() / 1e6
    starts, spent = [0], 0.0
    for i, one in enumerate(seconds.tolist()):
        spent += one
        if i - starts[-1] == most or (spent > TASK_S and i > starts[-1]):
            starts.append(i)
            spent = one
    return [todo.slice(a, b - a) for a, b in pairwise([*starts, todo.num_rows])]


class Read:
    """source, uri, etag, size, status, error -> one row per picture: fetched, decoded and graded.

    Adds frame, frames, width, height (of the original), image (HWC uint8 RGB, upright, a working
    frame), shrink (original pixels per pixel of `image`), field (a `FieldOfView` in pixels of
    `image`; None for disc crops and if nothing is exposed), quality (0 to 1), poor, the columns of
    `LOOK`, and from the file: laterality, spacing_mm, subject, manufacturer, model, header. Entries
    that the inventory refused keep their status. Only failures of single objects are caught here.

    Args:
        gradability: "refuse", "advise" or "off", see `Screening.gradability`.
        precropped: the pictures are disc crops already.
        keep_header: fill `header` with the DICOM header, which names the patient.
        subject_key: key of the HMAC of the patient id; None for no `subject`.
        least_side: pixels that the shorter side of a working frame keeps; None for whole pictures.
        attempts: of `attempts.shared`; an object that has ended two processes is not tried again.
    """

    def __init__(
        self,
        gradability: str,
        *,
        precropped: bool,
        keep_header: bool,
        subject_key: bytes | None,
        least_side: int | None = None,
        attempts: Any = None,
    ) -> None:
        self.gradability, self.precropped = gradability, precropped
        self.decode = Decoder(least_side=least_side)
        self.keep_header, self.subject_key = keep_header, subject_key
        self.watch = Watch(attempts, "Read") if attempts else None

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """Pass on a few pictures at a time, while others of the batch are fetched."""
        entries = [Entry(*one) for one in zip(*(batch[name] for name in ENTRY), strict=True)]
        rows: list[dict[str, Any]] = []
        before = retries()
        for i, pictures in self._tried(entries, fetch_many(entries, AT_ONCE)):
            known = {"uri": batch["uri"][i], "etag": batch["etag"][i]}
            rows += [known | one for one in pictures]
            if len(rows) >= FRAMES_TOGETHER:
                yield self._passed_on(rows)
                rows = []
        if rows:
            yield self._passed_on(rows)
        metrics.count_retries("fetch", retries() - before)

    def _tried(
        self, entries: list[Entry], fetched: Iterator[tuple[int, bytes | FetchFailed]]
    ) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """The number and the pictures of each object, unless it has ended too many processes.

        If one of a few objects has ended a process, each of them is tried alone.
        """
        if not self.watch:
            yield from ((i, self._pictures(content)) for i, content in fetched)
            return
        every = [f"{entry.uri} {entry.etag}" for entry in entries]
        for start in range(0, len(every), OBJECTS_TOGETHER):
            names = every[start : start + OBJECTS_TOGETHER]
            together = not any(self.watch.begin(names, most=1))
            for name, (i, content) in zip(names, fetched, strict=False):
                if together:
                    yield i, self._pictures(content)
                elif self.watch.begin([name])[0] >= MOST:
                    yield i, [_columns_of_lost(Lost(1, "crashed", REASON))]
                else:
                    found = self._pictures(content)
                    self.watch.end([name])
                    yield i, found
            if together:
                self.watch.end_with_next(names)

    def _pictures(self, content: bytes | FetchFailed) -> list[dict[str, Any]]:
        """The columns of each picture of an object, or of one failure if it has no picture."""
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
        seen = None if self.precropped else exposure(picture.pixels)
        if seen and fields.are_two(picture.pixels, seen):
            return {"status": "unsupported", "error": fields.REASON}
        field = {"field": seen.field if seen else None}
        if self.gradability == "off":
            return field
        found = quality.assess(
            picture.pixels, seen=seen, crop=self.precropped, shrink=picture.shrink
        )
        graded: dict[str, Any] = field | {"quality": found.score, "poor": found.poor}
        graded |= {column: found.measures.get(name, np.nan) for column, name in LOOK.items()}
        if found.reason and (found.hopeless or self.gradability == "refuse"):
            graded |= {"status": "ungradable", "error": found.reason}
        return graded


def _columns_of_lost(one: Lost, frames: int = 1) -> dict:
    """The columns of a row without pixels."""
    failure = {"status": one.status, "error": one.reason, "frame": one.frame}
    return _columns_of_picture(BLANK, frames) | failure | {"width": 0, "height": 0}


def _columns_of_picture(one: Picture, frames: int = 1) -> dict:
    """The columns of a row whose status is "ok"."""
    return {
        "status": row.OK,
        "error": "",
        "frame": one.frame,
        "frames": frames,
        "height": one.size[0],
        "width": one.size[1],
        "shrink": one.shrink,
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
        "field": None,
    }


def _as_columns(rows: list[dict]) -> Batch:
    """Rows as columns; texts, bytes and pictures become object columns."""
    columns = {name: [one[name] for one in rows] for name in rows[0]}
    images = tensors(columns.pop("image"))
    return {
        name: np.array(values, object if isinstance(values[0], str | bytes) else None)
        for name, values in columns.items()
    } | {"image": images}
