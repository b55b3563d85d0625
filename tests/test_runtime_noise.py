"""Ray's two harmless messages are dropped from stderr, and nothing else is."""

import io
import subprocess
import sys

from fundus.runtime.noise import WithoutCleaner

NOISY = """
import os, sys
from fundus.runtime.noise import hidden

core = b"core_worker.cc:2465: Actor with class name: 'A' and ID: '0' has arguments and max_restarts"
with hidden():
    os.write(2, b"[2026-11-29 E 1 1] " + core + b" > 0. If they are lost\\n")
    os.write(2, b"raylet died\\n")
    print("from Python", file=sys.stderr)
    print("(PlacementGroupCleaner pid=7) Traceback", file=sys.stderr)
print("afterwards", file=sys.stderr)
os.write(2, b"[2026-11-29 E 1 1] " + core + b" > 0.\\n")
if len(sys.argv) > 1:
    with hidden():
        os.write(2, b"check failed\\n")
        os.abort()
"""


def stderr(*words: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", NOISY, *words], capture_output=True, text=True)
    return sorted(done.stderr.splitlines())


def test_only_the_two_messages_are_dropped_and_only_in_the_block() -> None:
    lines = stderr()
    assert [line for line in lines if "core_worker" not in line] == [
        "afterwards",
        "from Python",
        "raylet died",
    ]
    assert sum("core_worker" in line for line in lines) == 1, "after the block it passes"


def test_the_last_output_of_a_driver_that_crashes_is_shown() -> None:
    assert "check failed" in stderr("crash")


def test_the_line_break_of_a_dropped_line_is_dropped_too() -> None:
    shown = io.StringIO()
    quiet = WithoutCleaner(shown)
    print("\x1b[36m(PlacementGroupCleaner pid=7)\x1b[0m Traceback", file=quiet)
    print("epoch 1/2", file=quiet)
    assert shown.getvalue() == "epoch 1/2\n"
