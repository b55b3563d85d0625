"""The child process in which the sandbox decodes: bytes in, pictures or a refusal out.

`sandbox.Decoder` starts it. It imports only what decoding needs: that takes 60 ms and 30 MB, and
with the first DICOM object another 180 ms and 40 MB for pydicom.
"""

import os
import resource
import signal
import socket
import sys
from dataclasses import asdict

from fundus.decoding import framing
from fundus.decoding.picture import contents
from fundus.images.content import Picture
from fundus.images.decode import Refused

GRACE_S = 5
"""Seconds of CPU time after the parent's own limit until the kernel ends a child."""


def main() -> None:
    """Serve requests until the parent ends."""
    link = socket.socket(fileno=int(sys.argv[1]))
    memory_bytes = int(sys.argv[2])
    _bound(memory_bytes)
    framing.send(link, {"ready": True}, [])
    try:
        while True:
            _serve(link, memory_bytes)
    except (EOFError, ConnectionError):
        return  # the parent has ended, or has closed the link


def _serve(link: socket.socket, memory_bytes: int) -> None:
    """Serve one request. As a separate function it frees its memory before the next request."""
    request = framing.receive_head(link)
    data = bytes(framing.receive(link, request["size"]))
    # A kernel timer with its default action: if the parent has died, it ends even a reader that
    # hangs in C.
    signal.setitimer(signal.ITIMER_PROF, request["seconds"] + GRACE_S)
    head, body = _answer(data, request, memory_bytes)
    framing.send(link, head, body)
    signal.setitimer(signal.ITIMER_PROF, 0)


def _bound(memory_bytes: int) -> None:
    """Set limits that this process cannot lift; silence readers that print."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it writes no files
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
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
            least_side=request["least_side"],
        )
        heads = [framing.head_of(picture) for picture in found.pictures]
    except Refused as refused:
        return {"status": refused.status, "reason": refused.reason}, []
    except MemoryError:
        reason = f"decoding needs more memory than it may take ({memory_bytes >> 20} MiB)"
        return {"status": "too_large", "reason": reason}, []
    except Exception as error:  # readers may raise anything; only the type's name is passed on
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
