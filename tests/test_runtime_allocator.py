import subprocess
import sys

FAULTS = """
import resource
import numpy as np
from fundus.runtime.allocator import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pictures = [np.ones(20 << 20, np.uint8) for _ in range(3)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if KEEP:
    keep_memory()
faults()
print(faults())
"""


def test_freed_pictures_leave_their_memory_to_the_next_ones():
    default, kept = (
        int(subprocess.check_output([sys.executable, "-c", f"KEEP = {keep}{FAULTS}"], text=True))
        for keep in (False, True)
    )
    assert kept < 100 < default
