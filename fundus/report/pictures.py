"""The pictures of the suspects, read again from the archive, because rows contain only masks."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from fundus.archive.entries import Entry
from fundus.archive.fetch import FetchFailed, Retry, fetch_many
from fundus.decoding.sandbox import Decoder
from fundus.field import roi
from fundus.field.roi import Roi
from fundus.images.decode import Refused
from fundus.storage.uris import scheme_of

HASTY = Retry(tries=3, deadline_s=30.0)
"""Few retries: an eye whose picture does not come soon is shown by its mask alone."""
JPEG_QUALITY = 82


def originals(
    rows: Sequence[Mapping[str, Any]], sources: Mapping[str, str] | None = None
) -> Iterator[np.ndarray | None]:
    """Yield the whole picture of each row, HWC uint8 RGB; None if it is no longer available.

    An object that has changed since it was screened counts as gone, by its ETag.

    Args:
        rows: columns `uri`, `etag` and `frame`.
        sources: the URI of the bytes for each pseudonym, if the rows have pseudonyms.
    """
    decode = Decoder()
    entries = [_entry(one, sources or {}) for one in rows]
    try:
        for number, content in fetch_many(entries, 4, retry=HASTY):
            yield _decoded(decode, content, rows[number]["frame"])
    finally:
        decode.close()


def _entry(one: Mapping[str, Any], sources: Mapping[str, str]) -> Entry:
    source = sources.get(one["uri"], one["uri"])
    unreachable = ("", "") if scheme_of(source) else ("read_failed", "a pseudonym, not a URI")
    return Entry(source, one["etag"], 0, *unreachable)


def _decoded(decode: Decoder, content: bytes | FetchFailed, frame: int) -> np.ndarray | None:
    if isinstance(content, FetchFailed):
        return None
    try:
        frames = decode(content)
    except Refused:
        return None
    return frames[frame - 1].pixels if frame <= len(frames) else None


def roi_jpeg(picture: np.ndarray, one: Mapping[str, Any], side: int) -> bytes:
    """The row's ROI of its picture as a JPEG of side x side pixels."""
    where = Roi(one["roi_x"], one["roi_y"], one["roi_size"])
    crop = roi.crop(picture, where, side)
    return jpeg(crop)


def jpeg(picture: np.ndarray) -> bytes:
    """HWC uint8 RGB as a JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", picture[..., ::-1], options)[1].tobytes()


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as a data: URI, which a page can show without any request."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
