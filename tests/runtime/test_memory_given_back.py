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
from collectors.runtime.memory import give_memory_back, has_much_free, trim_heap

give_memory_back()
much = [has_much_free()]
size = lambda: psutil.Process().memory_info().rss
blocks = [bytearray(2**16) for _ in range(2000)]
for block in blocks:
    block[::4096] = b"x" * 16
much.append(has_much_free())
del blocks[:-1]
much.append(has_much_free())
before = size()
trim_heap()
print(before - size(), *much)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other allocators")
def test_a_used_block_at_the_end_keeps_none_of_those_before_it():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    given, *much = done.stdout.split()
    assert int(given) > 100 * 2**20
    assert much in (["False", "False", "True"], ["False"] * 3)  # glibc before 2.33 does not tell


@pytest.mark.parametrize(("much", "seconds"), [(False, 30), (True, engine.NOTE_SECONDS)])
def test_a_run_gives_memory_back_every_half_minute_or_when_much_is_free(tmp_path, monkeypatch, much, seconds):
    given = []
    monkeypatch.setattr(engine, "has_much_free", lambda: much)
    monkeypatch.setattr(engine, "trim_heap", lambda: given.append(1))
    source = {"type": "host", "every": "1h"}
    config = from_mapping(
        {"sources": [source], "storage": [{"type": "memory"}]}, folder=tmp_path, name="test"
    )

    async def main():
        env, notes = ManualEnv(), 0
        running = engine.Engine(config, env=env)
        work = asyncio.ensure_future(running.run())
        while len(given) < 2 and notes < 200_000:
            await env.advance(engine.NOTE_SECONDS)
            await asyncio.to_thread(int)
            notes += 1
        running.stop()
        await work
        return notes

    notes = asyncio.run(main())
    assert notes >= 2 * seconds / engine.NOTE_SECONDS
    assert len(given) == 2
