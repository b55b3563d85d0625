"""What passes between the sandbox and its child: a JSON head and raw bytes. Nothing can run code.

A message is 4 bytes big endian, the head's length; the head, UTF-8 JSON; the body, of the length
that the head lets its reader work out.
"""

import json
import socket
import struct
import time
from collections.abc import Sequence

import numpy as np

from fundus.images.content import REMARKS, Picture

MOST_HEAD = 1 << 20
"""Bytes: thousands of frames' heads. A longer one is none of ours."""


def send(link: socket.socket, head: dict, body: Sequence[bytes | memoryview]) -> None:
    text = json.dumps(head).encode()
    link.sendall(struct.pack(">I", len(text)) + text)
    for part in body:
        link.sendall(part)


def receive_head(link: socket.socket, deadline: float | None = None) -> dict:
    """Raises EOFError where the other side is gone, ValueError where it is none of ours."""
    (length,) = struct.unpack(">I", receive(link, 4, deadline))
    if length > MOST_HEAD:
        raise ValueError("the head is too long")
    head = json.loads(bytes(receive(link, length, deadline)))
    if not isinstance(head, dict):
        raise ValueError("the head is no object")
    return head


def receive(link: socket.socket, size: int, deadline: float | None = None) -> bytearray:
    """Exactly `size` bytes. Past the `deadline` (of time.monotonic) TimeoutError is raised."""
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        if deadline is not None:
            link.settimeout(max(0.001, deadline - time.monotonic()))
        count = link.recv_into(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return data


def head_of(picture: Picture) -> dict:
    """All of a picture but its bytes, as JSON takes it."""
    height, width, channels = picture.pixels.shape
    if channels != 3 or picture.pixels.dtype != np.uint8:
        raise ValueError("no picture: its body would have another length than its head says")
    return {
        "height": height,
        "width": width,
        "frame": picture.frame,
        "laterality": picture.laterality,
        "pixel_spacing": picture.pixel_spacing,
        "subject": picture.subject,
        "manufacturer": picture.manufacturer,
        "model": picture.model,
        "header": None if picture.header is None else len(picture.header),
        "flags": picture.flags,
    }


def picture_of(link: socket.socket, head: dict, pixels_left: int, deadline: float) -> Picture:
    """The picture whose head this is, its bytes read from the link. ValueError, KeyError, TypeError
    where the head is none of ours or promises more than `pixels_left`."""
    height, width, frame = (int(head[name]) for name in ("height", "width", "frame"))
    if min(height, width, frame) < 1 or height * width > pixels_left:
        raise ValueError("no size of a picture")
    laterality, spacing, subject = (head[n] for n in ("laterality", "pixel_spacing", "subject"))
    if laterality not in ("OD", "OS", None):
        raise ValueError("no laterality")
    if spacing is not None:
        rows, columns = spacing
        spacing = (float(rows), float(columns))
    if subject is not None and len(bytes.fromhex(subject)) != 32:
        raise ValueError("no HMAC")
    maker, model = (
        None if head[n] is None else str(head[n])[:64] for n in ("manufacturer", "model")
    )
    flags = tuple(head["flags"])
    if not set(flags) <= set(REMARKS):
        raise ValueError("no flags")
    pixels = np.frombuffer(receive(link, 3 * height * width, deadline), np.uint8)
    header = None
    if head["header"] is not None:
        if not 0 <= head["header"] <= MOST_HEAD:
            raise ValueError("no size of a header")
        header = bytes(receive(link, head["header"], deadline))
    pixels = pixels.reshape(height, width, 3)
    return Picture(pixels, frame, laterality, spacing, subject, maker, model, header, flags)
