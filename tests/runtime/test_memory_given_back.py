"""Free memory between used memory goes back to the system."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from collectors.config.load import from_mapping
from collectors.runtime import engine
from collectors.testing.clock import ManualEnv

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


def test_a_run_gives_memory_back_every_half_minute(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(engine, "trim_heap", lambda: given.append(1))
    source = {"type": "host", "every": "1h"}
    config = from_mapping(
        {"sources": [source], "storage": [{"type": "memory"}]}, folder=tmp_path, name="test"
    )

    async def main():
        env, notes = ManualEnv(), 0
        running = engine.Engine(config, env=env)
        work = asyncio.ensure_future(running.run())
        while len(given) < 2 and notes < 10_000:
            await env.advance(engine.NOTE_SECONDS)
            await asyncio.to_thread(int)
            notes += 1
        running.stop()
        await work
        return notes

    assert asyncio.run(main()) >= 2 * 30 / engine.NOTE_SECONDS
    assert len(given) == 2
