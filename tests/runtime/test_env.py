"""What the world looks like to the runtime."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys

import pytest

from collectors.runtime.env import Env

SMALL = "from collectors.runtime.env import Env; print(Env().peak_memory())"
LARGE = f"""
import subprocess, sys
kept = bytearray(b"x") * (400 * 2**20)
subprocess.run([sys.executable, "-c", {SMALL!r}], check=True)
"""


def test_the_peak_is_that_of_this_process_not_of_the_one_that_started_it():
    done = subprocess.run([sys.executable, "-c", LARGE], check=True, capture_output=True, text=True)
    assert 2**20 < int(done.stdout) < 200 * 2**20


def test_many_sleep_each_as_long_as_it_wants():
    env = Env()

    async def main():
        loop = asyncio.get_running_loop()

        async def late(seconds):
            began = loop.time()
            await env.sleep(seconds)
            return loop.time() - began - seconds

        waits = [random.random() / 5 for _ in range(500)] + [0, -1]
        for each in await asyncio.gather(*map(late, waits)):
            assert each >= -1e-6  # less than that is early for no clock
        woken = []
        tasks = [asyncio.ensure_future(env.sleep(n / 50)) for n in (3, 1, 2)]
        for number, task in enumerate(tasks):
            task.add_done_callback(lambda _, number=number: woken.append(number))
        await asyncio.wait(tasks)
        assert woken == [1, 2, 0]

    for _ in range(2):  # in one event loop after the other
        asyncio.run(main())


def test_who_sleeps_long_or_was_cancelled_holds_up_nobody():
    env = Env()

    async def main():
        endless = asyncio.ensure_future(env.sleep(1e6))
        await asyncio.sleep(0)
        first, later = asyncio.ensure_future(env.sleep(0.01)), asyncio.ensure_future(env.sleep(0.02))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        async with asyncio.timeout(10):
            await later
            endless.cancel()
            await env.sleep(0.01)
        assert not [each for each in asyncio.get_running_loop()._scheduled if not each.cancelled()]

    asyncio.run(main())
