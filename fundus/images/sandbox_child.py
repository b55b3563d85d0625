"""The process in which the sandbox decodes: bytes in, pictures or a refusal out, until the end.

Started by `sandbox.Decoder`, never by hand. It imports what decoding needs and nothing else: 60 ms
and 30 MB, and pydicom's 180 ms and 40 MB with its first DICOM object, measured.
"""

import os
import resource
import signal
import socket
import sys
from dataclasses import asdict

from fundus.images import framing
from fundus.images.content import Picture
from fundus.images.decode import Refused
from fundus.images.picture import contents

GRACE_S = 5
"""Seconds of the processor after the parent's own bound until the kernel ends a child."""


def main() -> None:
    link = socket.socket(fileno=int(sys.argv[1]))
    memory_bytes = int(sys.argv[2])
    _bound(memory_bytes)
    framing.send(link, {"ready": True}, [])
    try:
        while True:
            _serve(link, memory_bytes)
    except (EOFError, ConnectionError):
        return  # the parent is gone, or has no more


def _serve(link: socket.socket, memory_bytes: int) -> None:
    """One request. A function of its own: what it held is freed before the next one is awaited."""
    request = framing.receive_head(link)
    data = bytes(framing.receive(link, request["size"]))
    # A timer of the kernel's, with its default action: it ends even a reader that hangs in C, when
    # the parent has died meanwhile.
    signal.setitimer(signal.ITIMER_PROF, request["seconds"] + GRACE_S)
    head, body = _answer(data, request, memory_bytes)
    framing.send(link, head, body)
    signal.setitimer(signal.ITIMER_PROF, 0)


def _bound(memory_bytes: int) -> None:
    """Limits that only a new process gets rid of; silence for readers that print."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it writes no files
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)


def _answer(data: bytes, request: dict, memory_bytes: int) -> tuple[dict, list[bytes | memoryview]]:
    key = request["subject_key"]
    try:
        found = contents(
            data,
            max_pixels=request["max_pixels"],
            subject_key=None if key is None else bytes.fromhex(key),
            keep_header=request["keep_header"],
        )
        heads = [framing.head_of(picture) for picture in found.pictures]
    except Refused as refused:
        return {"status": refused.status, "reason": refused.reason}, []
    except MemoryError:
        reason = f"decoding needs more memory than it may take ({memory_bytes >> 20} MiB)"
        return {"status": "too_large", "reason": reason}, []
    except Exception as error:  # readers of broken bytes raise anything; the type's name is no data
        reason = f"decoding failed in a way that no reader should ({type(error).__name__})"
        return {"status": "crashed", "reason": reason}, []
    head = {"status": "ok", "pictures": heads, "lost": [asdict(one) for one in found.lost]}
    return head, _bodies(found.pictures)


def _bodies(found: list[Picture]) -> list[bytes | memoryview]:
    bodies: list[bytes | memoryview] = []
    for picture in found:
        bodies.append(picture.pixels.reshape(-1).data)
        if picture.header is not None:
            bodies.append(picture.header)
    return bodies


if __name__ == "__main__":
    main()
