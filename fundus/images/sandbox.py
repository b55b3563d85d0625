"""Decoding where it can do no harm: in a child process with bounds on memory and time."""

import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from functools import partial
from pathlib import Path

from fundus.images import framing
from fundus.images.content import Contents, Lost, Picture
from fundus.images.refusal import MAX_PIXELS, Refused

REFUSALS = ("decode_failed", "unsupported", "too_large", "crashed")
"""What the child may answer besides pictures."""
CHILD = "fundus.images.sandbox_child"
ROOT = Path(__file__).resolve().parents[2]
START_S = 120
"""Seconds that the child may take to start; 0.1 when the machine is idle."""
PATIENCE = 10
"""Seconds of the clock for each of the processor's: a busy machine is not the picture's fault."""


class Decoder:
    """`picture.contents` in a child process that is kept, and replaced when it dies or hangs.

    timeout_s: seconds of the processor for one object; PATIENCE times as many of the clock.
    memory_bytes: address space of the child, about 120 MB of it its own; 120 million pixels fit
    into the default. The child is started with the first object. It has no environment (so no
    credentials), no standard streams, writes no file and ends when this process ends, however it
    ends: at once when idle, else within the timeout and 5 s of the processor. Safe to share between
    threads, which then take turns. Copies sent to other processes start children of their own.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 30.0,
        memory_bytes: int = 3 << 30,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if not 0 < timeout_s < math.inf:
            raise ValueError(f"the timeout is a number of seconds above zero, not {timeout_s}")
        if memory_bytes < 256 << 20:
            raise ValueError(f"a decoder needs 256 MiB at least, not {memory_bytes >> 20}")
        self.timeout_s = timeout_s
        self.memory_bytes = memory_bytes
        self.max_pixels = max_pixels
        self._turn = threading.Lock()
        self._child: _Child | None = None

    def __reduce__(self) -> tuple:
        arguments = ("timeout_s", "memory_bytes", "max_pixels")
        return partial(Decoder, **{name: getattr(self, name) for name in arguments}), ()

    def __call__(
        self, data: bytes, *, subject_key: bytes | None = None, keep_header: bool = False
    ) -> list[Picture]:
        """The pictures in `data`, as `contents` gives them, without the frames that are lost."""
        found = self.contents(data, subject_key=subject_key, keep_header=keep_header)
        return found.pictures

    def contents(
        self, data: bytes, *, subject_key: bytes | None = None, keep_header: bool = False
    ) -> Contents:
        """The frames in `data`, as `picture.contents` gives them. Raises Refused.

        Beyond the statuses of `picture.contents`: timed_out; crashed, where the child ended (the
        reason names the signal). Too much memory is too_large where the reader says so, and crashed
        where it dies of it. RuntimeError where no child can be started at all.
        """
        request = {
            "size": len(data),
            "seconds": self.timeout_s,
            "max_pixels": self.max_pixels,
            "subject_key": None if subject_key is None else subject_key.hex(),
            "keep_header": keep_header,
        }
        with self._turn:
            used = self._child is not None
            try:
                return self._ask(request, data)
            except Refused as refused:
                # A child that has decoded before may have leaked or been corrupted. What an object
                # gets shall depend on the object alone, so a fresh child has the last word.
                if not used or refused.status not in ("crashed", "too_large"):
                    raise
                if refused.status == "too_large" and "memory" not in refused.reason:
                    raise
                self.close()
                return self._ask(request, data)

    def close(self) -> None:
        """End the child. The next call starts another."""
        if self._child:
            self._child.end()
            self._child = None

    def _ask(self, request: dict, data: bytes) -> Contents:
        if self._child is None:
            self._child = _Child(self.memory_bytes)
        deadline = time.monotonic() + PATIENCE * self.timeout_s
        link = self._child.link
        try:
            link.settimeout(PATIENCE * self.timeout_s)
            framing.send(link, request, [data])
            self._child.wait(self.timeout_s, deadline)
            answer = framing.receive_head(link, deadline)
            return self._contents(answer, deadline)
        except TimeoutError:
            self.close()
            limits = f"{self.timeout_s:g} s of the processor or {PATIENCE} times that of the clock"
            raise Refused("timed_out", f"decoding took too long (over {limits})") from None
        except (EOFError, OSError):
            how = self._child.end()
            self._child = None
            raise Refused("crashed", f"decoding ended its process ({how})") from None
        except (ValueError, KeyError, TypeError):
            self.close()
            raise Refused("crashed", "decoding ended its process (it answered nonsense)") from None

    def _contents(self, answer: dict, deadline: float) -> Contents:
        """The child has read a stranger's bytes: its answer is checked like theirs."""
        assert self._child
        if answer["status"] in REFUSALS:
            raise Refused(answer["status"], str(answer["reason"])[:500])
        if answer["status"] != "ok":
            raise ValueError("no status")
        found: list[Picture] = []
        left = self.max_pixels
        for head in answer["pictures"]:
            found.append(framing.picture_of(self._child.link, head, left, deadline))
            left -= found[-1].pixels.shape[0] * found[-1].pixels.shape[1]
        lost = [_lost(one) for one in answer["lost"]]
        frames = sorted([one.frame for one in found] + [one.frame for one in lost])
        if not found or frames != list(range(1, len(frames) + 1)):
            raise ValueError("frames are missing")
        return Contents(found, lost)


def _lost(head: dict) -> Lost:
    """ValueError, KeyError, TypeError where it is none of ours."""
    if head["status"] not in REFUSALS:
        raise ValueError("no status")
    return Lost(int(head["frame"]), head["status"], str(head["reason"])[:500])


class _Child:
    """A running `sandbox_child` and the socket to it."""

    def __init__(self, memory_bytes: int) -> None:
        self.link, other = socket.socketpair()
        # One thread: OpenBLAS reserves memory for every core. One arena: glibc does for every
        # thread. The path is this process's own: Ray unpacks packages anywhere.
        environment = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
        }
        with other:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", CHILD, str(other.fileno()), str(memory_bytes)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                env=environment,
            )
        self.end = weakref.finalize(self, _end, self.process, self.link)
        try:
            framing.receive_head(self.link, time.monotonic() + START_S)
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the decoding process does not start ({self.end()})") from error

    def wait(self, timeout_s: float, deadline: float) -> None:
        """Until there is an answer. TimeoutError once the child has spent timeout_s on it."""
        before = self._processor_s()
        while not select.select([self.link], [], [], min(1.0, timeout_s / 4))[0]:
            if self._processor_s() - before > timeout_s or time.monotonic() > deadline:
                raise TimeoutError

    def _processor_s(self) -> float:
        """Seconds of the processor that the child has used; 0 once it has ended."""
        try:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        except OSError:
            return 0.0
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _end(process: subprocess.Popen, link: socket.socket) -> str:
    """End the child and say how it had ended before, if it had."""
    link.close()
    try:
        code = process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
