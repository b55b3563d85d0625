"""Decoding in a child process with limits on memory and time, where it can do no harm."""

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

from fundus.decoding import framing
from fundus.images.content import Contents, Lost, Picture
from fundus.images.refusal import MAX_PIXELS, Refused

REFUSALS = ("decode_failed", "unsupported", "too_large", "crashed")
"""Statuses of the child's answers besides "ok"."""
CHILD = "fundus.decoding.sandbox_child"
ROOT = Path(__file__).resolve().parents[2]
START_S = 120
"""Seconds that the child may take to start; it takes 0.1 on an idle machine."""
PATIENCE = 10
"""Seconds of wall-clock time per second of CPU time: on a busy machine decoding takes longer."""
ASLEEP_S = 10.0
"""Seconds that the child may sleep. Decoding computes or waits for the CPU; asleep, it hangs."""


class Decoder:
    """`picture.contents` in a child process, which is reused, and replaced if it dies or hangs.

    The child starts with the first object. It has no environment (so no credentials) and no
    standard streams, and writes no file. It ends with this process, however that ends: at once if
    it is idle, else within the timeout and 5 s of CPU time. Threads may share a decoder; they take
    turns. Copies that are sent to other processes start children of their own.

    Args:
        timeout_s: seconds of CPU time per object. The limit of wall-clock time is PATIENCE times as
            long; only an overloaded machine reaches it. A sleeping child is ended after ASLEEP_S.
        memory_bytes: address space of the child, which itself needs about 120 MB; 120 million
            pixels fit into the default.
        max_pixels: per object, in all its frames together.
        least_side: pixels that the shorter side of a picture keeps if it is reduced to a working
            frame (fundus.images.working_frame); None for the whole.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 30.0,
        memory_bytes: int = 3 << 30,
        max_pixels: int = MAX_PIXELS,
        least_side: int | None = None,
    ) -> None:
        if not 0 < timeout_s < math.inf:
            raise ValueError(f"the timeout must be a number of seconds above 0, not {timeout_s}")
        if memory_bytes < 256 << 20:
            raise ValueError(f"a decoder needs at least 256 MiB, not {memory_bytes >> 20}")
        self.timeout_s = timeout_s
        self.memory_bytes = memory_bytes
        self.max_pixels = max_pixels
        self.least_side = least_side
        self._turn = threading.Lock()
        self._child: _Child | None = None

    def __reduce__(self) -> tuple:
        arguments = ("timeout_s", "memory_bytes", "max_pixels", "least_side")
        return partial(Decoder, **{name: getattr(self, name) for name in arguments}), ()

    def __call__(
        self, data: bytes, *, subject_key: bytes | None = None, keep_header: bool = False
    ) -> list[Picture]:
        """The pictures in `data`, as of `contents`, without the lost frames."""
        found = self.contents(data, subject_key=subject_key, keep_header=keep_header)
        return found.pictures

    def contents(
        self, data: bytes, *, subject_key: bytes | None = None, keep_header: bool = False
    ) -> Contents:
        """The frames in `data`, as of `picture.contents`.

        Raises:
            Refused: as in `picture.contents`, and with two more statuses: `timed_out`, and
                `crashed` if the child ended (the reason names the signal). Too much memory is
                `too_large` if the reader reports it, and `crashed` if the reader dies of it.
            RuntimeError: no child can be started.
        """
        request = {
            "size": len(data),
            "seconds": self.timeout_s,
            "max_pixels": self.max_pixels,
            "least_side": self.least_side,
            "subject_key": None if subject_key is None else subject_key.hex(),
            "keep_header": keep_header,
        }
        with self._turn:
            used = self._child is not None
            try:
                return self._ask(request, data)
            except Refused as refused:
                # A child that has decoded before may have leaked or been corrupted. An object's
                # result must depend on the object alone, so a fresh child decides.
                if not used or refused.status not in ("crashed", "too_large"):
                    raise
                if refused.status == "too_large" and "memory" not in refused.reason:
                    raise
                self.close()
                return self._ask(request, data)

    def close(self) -> None:
        """End the child; the next call starts another."""
        if self._child:
            self._child.end()
            self._child = None

    def _ask(self, request: dict, data: bytes) -> Contents:
        if self._child is None:
            self._child = _Child(self.memory_bytes)
        link, wait = self._child.link, self._child.watch(self.timeout_s)
        try:
            link.settimeout(PATIENCE * self.timeout_s)
            framing.send(link, request, [data])
            return self._contents(framing.receive_head(link, wait), wait)
        except TimeoutError:
            self.close()
            limits = f"{self.timeout_s:g} s of the processor, {ASLEEP_S:g} s asleep"
            limits += f" or {PATIENCE * self.timeout_s:g} s of the clock"
            raise Refused("timed_out", f"decoding took too long (over {limits})") from None
        except (EOFError, OSError):
            how = self._child.end()
            self._child = None
            raise Refused("crashed", f"decoding ended its process ({how})") from None
        except (ValueError, KeyError, TypeError):
            self.close()
            raise Refused("crashed", "decoding ended its process (it answered nonsense)") from None

    def _contents(self, answer: dict, wait: framing.Wait) -> Contents:
        """Check and convert the answer of the child, which has read a stranger's bytes."""
        assert self._child
        if answer["status"] in REFUSALS:
            raise Refused(answer["status"], str(answer["reason"])[:500])
        if answer["status"] != "ok":
            raise ValueError("no status")
        found: list[Picture] = []
        left = self.max_pixels
        for head in answer["pictures"]:
            found.append(framing.picture_of(self._child.link, head, left, wait))
            left -= found[-1].pixels.shape[0] * found[-1].pixels.shape[1]
        lost = [_lost(one) for one in answer["lost"]]
        frames = sorted([one.frame for one in found] + [one.frame for one in lost])
        if not found or frames != list(range(1, len(frames) + 1)):
            raise ValueError("frames are missing")
        return Contents(found, lost)


def _lost(head: dict) -> Lost:
    """A lost frame of the answer; ValueError, KeyError or TypeError if it is invalid."""
    if head["status"] not in REFUSALS:
        raise ValueError("no status")
    return Lost(int(head["frame"]), head["status"], str(head["reason"])[:500])


class _Child:
    """A running `sandbox_child` and the socket to it."""

    def __init__(self, memory_bytes: int) -> None:
        self.link, other = socket.socketpair()
        # One thread, because OpenBLAS reserves memory per core. One arena, because glibc reserves
        # memory per thread. The path is this process's: Ray unpacks packages anywhere.
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
            self.link.settimeout(START_S)
            framing.receive_head(self.link)
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the decoding process does not start ({self.end()})") from error

    def watch(self, timeout_s: float) -> framing.Wait:
        """A function that waits for the child's answer to one request, from now on.

        It raises TimeoutError once the child has used `timeout_s` of CPU time or PATIENCE times as
        much wall-clock time, or has slept for ASLEEP_S.
        """
        before, _ = self._state()
        deadline = time.monotonic() + PATIENCE * timeout_s
        look_s = min(1.0, timeout_s / 4, ASLEEP_S / 4)

        def wait() -> None:
            spent, awake = before, time.monotonic()
            while not select.select([self.link], [], [], look_s)[0]:
                now = time.monotonic()
                last, (spent, asleep) = spent, self._state()
                if not asleep or spent > last:
                    awake = now
                if now - awake > ASLEEP_S or spent - before > timeout_s or now > deadline:
                    raise TimeoutError
            if time.monotonic() > deadline:  # it sends, but too slowly
                raise TimeoutError

        return wait

    def _state(self) -> tuple[float, bool]:
        """Seconds of CPU time that the child has used, and whether all its threads sleep."""
        spent, states = 0.0, set()
        try:
            for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
                fields = (thread / "stat").read_text().rpartition(")")[2].split()
                states.add(fields[0])
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            spent = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:  # the child or one of its threads has ended; the next look tells which
            pass
        return spent, states == {"S"}


def _end(process: subprocess.Popen, link: socket.socket) -> str:
    """End the child, if it has not ended; return its signal or exit code."""
    link.close()
    try:
        code = process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
