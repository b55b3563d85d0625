"""The suspects' pictures, read again from the archive: rows carry masks, not pictures."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from fundus.images import roi
from fundus.images.decode import Refused
from fundus.images.roi import Roi
from fundus.images.sandbox import Decoder
from fundus.storage.entries import Entry
from fundus.storage.fetch import FetchFailed, Retry, fetch_many
from fundus.storage.uris import scheme_of

HASTY = Retry(tries=3, deadline_s=30.0)
"""A picture that storage does not give soon is drawn without: the report shall not wait for it."""
JPEG_QUALITY = 82


def originals(
    rows: Sequence[Mapping[str, Any]], sources: Mapping[str, str] | None = None
) -> Iterator[np.ndarray | None]:
    """Each row's whole picture, HWC uint8 RGB; None where it cannot be had any more.

    An object that has changed since it was screened counts as gone: its etag is asked for. sources:
    where the bytes of a URI lie, by URI, for rows whose URIs are pseudonyms.
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
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", crop[..., ::-1], options)[1].tobytes()


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as a data: URI, which a page can show without any request."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
