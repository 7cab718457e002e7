"""Free memory between used memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import psutil
from collectors.runtime.memory import give_memory_back, trim_heap

give_memory_back()
size = lambda: psutil.Process().memory_info().rss
blocks = [bytearray(2**16) for _ in range(2000)]
for block in blocks:
    block[::4096] = b"x" * 16
del blocks[:-1]
before = size()
trim_heap()
print(before - size())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other allocators")
def test_a_used_block_at_the_end_keeps_none_of_those_before_it():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100 * 2**20
