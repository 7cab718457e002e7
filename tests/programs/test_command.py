"""Commands that are run: whatever they do, and whenever they are stopped, nothing of them stays and nobody waits for ever."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from collectors.programs.command import Command, Run
from collectors.testing.faults import Census, leaks

PATIENCE = 10.0


def run(scenario: Any) -> None:
    """Run a scenario, in time, and see that nothing stays."""

    async def main() -> None:
        before = Census.take()
        async with asyncio.timeout(PATIENCE):
            await scenario()
        assert await leaks(before) == []

    asyncio.run(main())


def python(text: str, grace: float = 0.1) -> Command:
    return Command([sys.executable, "-S", "-c", text], grace=grace)


async def output(run: Run) -> bytes:
    found = b""
    while data := await run.read(2**16):
        found += data
    return found


@pytest.mark.parametrize("steps", range(6))
def test_one_that_is_cancelled_while_it_starts_is_ended_with_all_that_it_started(
    tmp_path: Path, steps: int
) -> None:
    """At each step of the way: left to itself, asyncio would wait for the child of a command that it has killed."""
    text = f"sleep 600 & echo $! > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/child; wait"

    async def scenario() -> None:
        others = set(psutil.Process().children())
        starting = asyncio.ensure_future(Run.start(Command(["sh", "-c", text]), takes_input=True))
        while not set(psutil.Process().children()) - others:
            await asyncio.sleep(0)
        while not (tmp_path / "child").exists():
            time.sleep(0.01)
        for _ in range(steps):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        if not starting.cancelled():
            await starting.result().stop()

    try:
        run(scenario)
        assert not is_alive(tmp_path / "child")
    finally:
        if is_alive(tmp_path / "child"):
            psutil.Process(int((tmp_path / "child").read_text())).kill()


def is_alive(child: Path) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(int(child.read_text())).status() != psutil.STATUS_ZOMBIE
    return False


def test_one_that_is_cancelled_while_it_is_stopped_can_be_stopped_again() -> None:
    async def scenario() -> None:
        deaf = python(
            "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(1, b'1\\n'); signal.pause()",
            grace=600,
        )
        command = await Run.start(deaf)
        assert await command.read(100) == b"1\n"
        stopping = asyncio.ensure_future(command.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        await command.stop()
        assert await output(command) == b""
        assert command.code == -9

    run(scenario)


@pytest.mark.parametrize("held", ["stdin=0", "stdout=1, stderr=2", "stderr=2"])
def test_what_it_has_started_apart_is_not_waited_for(tmp_path: Path, held: str) -> None:
    """It is in no group of ours, and may hold the pipes for as long as it likes."""
    free = "".join(
        f", {name}=subprocess.DEVNULL" for name in ("stdin", "stdout", "stderr") if name not in held
    )
    text = f"""
import subprocess
print(subprocess.Popen(["sleep", "600"], start_new_session=True, {held}{free}).pid, flush=True)
"""

    async def scenario() -> None:
        command = await Run.start(python(text), takes_input=True)
        writing = asyncio.ensure_future(command.write(b"x" * 2**22))
        apart = psutil.Process(int(await command.read(100)))
        try:
            if held == "stderr=2":
                assert not (await output(command)).strip()
                assert command.code == 0
            await command.stop()
            await writing
        finally:
            apart.kill()

    run(scenario)


def test_output_that_nobody_reads_does_not_hold_up_a_stop() -> None:
    async def scenario() -> None:
        command = await Run.start(python("import sys\nwhile True: sys.stdout.write('x' * 2**16)", grace=600))
        assert await command.read(1) == b"x"
        await command.stop()

    run(scenario)
