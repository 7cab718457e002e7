"""What the world looks like to the runtime."""

from __future__ import annotations

import subprocess
import sys

SMALL = "from collectors.runtime.env import Env; print(Env().peak_memory())"
LARGE = f"""
import subprocess, sys
kept = bytearray(b"x") * (400 * 2**20)
subprocess.run([sys.executable, "-c", {SMALL!r}], check=True)
"""


def test_the_peak_is_that_of_this_process_not_of_the_one_that_started_it():
    done = subprocess.run([sys.executable, "-c", LARGE], check=True, capture_output=True, text=True)
    assert 2**20 < int(done.stdout) < 200 * 2**20
