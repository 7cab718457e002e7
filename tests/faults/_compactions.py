"""Run as a script by test_compaction.py: forks a compaction of a folder for each request, with the shim preloaded.

A request is a line of JSON on stdin: `folder`, and `kill`, the point at which it is killed, or `journal`, a file. The
answer is one on stdout: how many points it passed, or that it was killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

from collectors.storage.backends import _parquet_compaction
from collectors.storage.backends.parquet import ParquetBackend

SHIM = ctypes.CDLL(None)
EVERY, SIGNAL = 31, 1


def live(request: dict) -> None:
    journal = -1
    if "journal" in request:
        journal = os.open(request["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    kill = request.get("kill", 0)
    backend = ParquetBackend(path=request["folder"])
    backend.open()
    SHIM.shim_arm(
        request["folder"].encode(), EVERY, SIGNAL if kill else 0, kill, kill, signal.SIGKILL, journal
    )
    backend.compact("contract", 2**20, lambda _: None, dry_run=False)
    print(json.dumps({"passed": SHIM.shim_passed()}), flush=True)


def main() -> None:
    assert _parquet_compaction
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                live(json.loads(line))
            except BaseException:
                os.abort()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({"killed": os.WTERMSIG(status)}), flush=True)


main()
