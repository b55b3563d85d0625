"""Messages between the sandbox and its child: a JSON head and raw bytes, which cannot run code.

A message is the length of the head (4 bytes, big endian), the head (UTF-8 JSON) and the body, whose
length follows from the head.
"""

import json
import socket
import struct
from collections.abc import Callable, Sequence

import numpy as np

from fundus.images.content import REMARKS, Picture
from fundus.images.working_frame import FACTORS

Wait = Callable[[], None]
"""Returns once there is something to read from the link; TimeoutError if that takes too long."""
MOST_HEAD = 1 << 20
"""Bytes of a head, enough for thousands of frames. A longer one is not from our child."""


def send(link: socket.socket, head: dict, body: Sequence[bytes | memoryview]) -> None:
    """Send one message."""
    text = json.dumps(head).encode()
    link.sendall(struct.pack(">I", len(text)) + text)
    for part in body:
        link.sendall(part)


def receive_head(link: socket.socket, wait: Wait | None = None) -> dict:
    """Receive a head; EOFError if the other side has ended, ValueError if the head is invalid."""
    (length,) = struct.unpack(">I", receive(link, 4, wait))
    if length > MOST_HEAD:
        raise ValueError("the head is too long")
    head = json.loads(bytes(receive(link, length, wait)))
    if not isinstance(head, dict):
        raise ValueError("the head is no object")
    return head


def receive(link: socket.socket, size: int, wait: Wait | None = None) -> bytearray:
    """Receive exactly `size` bytes, waiting for each part; EOFError if the other side has ended."""
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        if wait is not None:
            wait()
        count = link.recv_into(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return data


def head_of(picture: Picture) -> dict:
    """A picture without its bytes, as values for JSON."""
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
        "shrink": picture.shrink,
        "original": picture.original,
    }


def picture_of(link: socket.socket, head: dict, pixels_left: int, wait: Wait) -> Picture:
    """Receive the bytes of the picture of a head.

    Raises:
        ValueError, KeyError, TypeError: the head is invalid, or has more than `pixels_left` pixels.
        EOFError: the other side has ended.
    """
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
    shrink, original = int(head["shrink"]), head["original"]
    if shrink not in (1, *FACTORS) or (original is None) != (shrink == 1):
        raise ValueError("no working frame")
    if original is not None:
        original = (int(original[0]), int(original[1]))
        if (height, width) != tuple(-(-side // shrink) for side in original):
            raise ValueError("no size of a working frame")
    pixels = np.frombuffer(receive(link, 3 * height * width, wait), np.uint8)
    header = None
    if head["header"] is not None:
        if not 0 <= head["header"] <= MOST_HEAD:
            raise ValueError("no size of a header")
        header = bytes(receive(link, head["header"], wait))
    pixels = pixels.reshape(height, width, 3)
    return Picture(
        pixels, frame, laterality, spacing, subject, maker, model, header, flags, shrink, original
    )
