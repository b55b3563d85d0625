import os
import subprocess
import sys

from fundus.runtime.allocator import SETTINGS

FAULTS = """
import resource
import numpy as np

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pictures = [np.ones(20 << 20, np.uint8) for _ in range(3)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


def test_freed_pictures_leave_their_memory_to_the_next_ones():
    bare = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    default, kept = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS], env=environment, text=True))
        for environment in (bare, bare | SETTINGS)
    )
    assert kept < 100 < default
