"""A log that is appended to, rotated in every way, and followed by a source that is restarted: against a model.

The model knows which lines must come exactly once. A line may be missed only where nobody can have it: its file was
deleted unread while no source had it open, or was renamed out of the pattern before a first line of it was read and
no source had it open.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from collectors.collection.sources.file import FileSource


class Rotator(RuleBasedStateMachine):
    """One log file and a follower; each line is a number of its own."""

    @initialize(wide=st.booleans(), chunk_size=st.sampled_from([16, 64, 4096]))
    def start(self, wide, chunk_size):
        self.folder = Path(tempfile.mkdtemp())
        self.log = self.folder / "app.log"
        self.pattern = str(self.folder / ("app.log*" if wide else "app.log"))
        self.wide = wide
        self.chunk_size = chunk_size
        self.number = 0
        self.rotated = 0
        self.partial = b""
        self.due: set[bytes] = set()
        self.held: dict[bytes, int] = {}  # only the open file has them: line → rounds until it is read
        self.got: Counter[bytes] = Counter()
        self.position = None
        self.loop = asyncio.new_event_loop()
        self.source = self.connected()
        # what the writer has written to the file that is the log now, and how much of it was looked at
        self.unread: list[bytes] = []
        self.read_some = False
        self.open_in_source = False

    def connected(self):
        source = FileSource(path=self.pattern, format="lines", follow=True, chunk_size=self.chunk_size)
        self.loop.run_until_complete(source.connect())
        self.open_in_source = False
        return source

    def next_line(self):
        self.number += 1
        return b"line-%06d" % self.number

    def write(self, data):
        with self.log.open("ab") as file:
            file.write(data)

    @rule(count=st.integers(1, 4))
    def append(self, count):
        for _ in range(count):
            line = self.partial or self.next_line()
            self.write((b"" if self.partial else line) + b"\n")
            self.partial = b""
            self.unread.append(line)

    @precondition(lambda self: not self.partial)
    @rule()
    def begin_a_line(self):
        self.partial = self.next_line()
        self.write(self.partial)

    @rule()
    def poll(self):
        for chunk in self.loop.run_until_complete(self.drain()):
            for line in chunk.raw_data.splitlines():
                self.got[line] += 1
            self.position = json.loads(json.dumps(chunk.position))
        if self.log.exists():
            self.open_in_source = True
            self.read_some = self.read_some or bool(self.unread)
        self.due.update(self.unread)
        self.unread = []
        self.held = {line: rounds - self.log.exists() for line, rounds in self.held.items()}
        self.due.update(line for line, rounds in self.held.items() if rounds <= 0)

    async def drain(self):
        return [chunk async for chunk in self.source.stream(self.position)]

    @rule()
    def restart(self):
        self.loop.run_until_complete(self.source.disconnect())
        self.source = self.connected()
        self.held = {}

    def let_go(self, *, lines_found, last_found):
        """The log leaves its name: what was not read yet still comes if the source can find it."""
        if lines_found:
            self.due.update(self.unread)
        elif self.open_in_source:
            self.held.update(dict.fromkeys(self.unread, 1))
        if self.partial and last_found:
            self.due.add(self.partial)
        elif self.partial and self.open_in_source:
            self.held[self.partial] = 3
        self.unread, self.partial = [], b""
        self.read_some = self.open_in_source = False

    @precondition(lambda self: self.log.exists())
    @rule()
    def rename(self):
        self.rotated += 1
        self.log.rename(self.folder / f"app.log.{self.rotated}")
        self.let_go(lines_found=self.wide or self.read_some, last_found=self.read_some)

    @precondition(lambda self: self.log.exists())
    @rule()
    def unlink(self):
        self.log.unlink()
        self.let_go(lines_found=False, last_found=False)

    @precondition(lambda self: not self.log.exists())
    @rule()
    def create(self):
        self.log.touch()

    @precondition(lambda self: self.log.exists() and not self.partial and not self.wide)
    @rule()
    def copy_and_truncate(self):
        self.rotated += 1
        shutil.copyfile(self.log, self.folder / f"app.log.{self.rotated}")
        os.truncate(self.log, 0)
        was_open, self.open_in_source = self.open_in_source, False
        self.let_go(lines_found=self.read_some, last_found=self.read_some)
        self.open_in_source = was_open

    @invariant()
    def nothing_comes_twice(self):
        assert not [line for line, count in getattr(self, "got", {}).items() if count > 1]

    def teardown(self):
        if not hasattr(self, "source"):
            return
        for _ in range(4):
            self.append(1)
            self.poll()
        self.loop.run_until_complete(self.source.disconnect())
        self.loop.close()
        shutil.rmtree(self.folder)
        missing = self.due - set(self.got)
        assert not missing, f"lost {sorted(missing)}"
        assert max(self.got.values()) == 1


OPERATIONS = {
    "append": lambda log: log.append(2),
    "begin": lambda log: log.partial or log.begin_a_line(),
    "poll": lambda log: log.poll(),
    "restart": lambda log: log.restart(),
    "rename": lambda log: log.log.exists() and log.rename(),
    "unlink": lambda log: log.log.exists() and log.unlink(),
    "truncate": lambda log: log.log.exists() and not log.partial and not log.wide and log.copy_and_truncate(),
}


def run_script(operations, *, wide, chunk_size=64):
    log = Rotator()
    log.start(wide, chunk_size)
    try:
        for operation in operations:
            OPERATIONS[operation](log)
    finally:
        log.teardown()


@pytest.mark.parametrize("wide", [False, True])
def test_every_three_things_that_can_happen_to_a_log_that_is_being_read(wide):
    for operations in itertools.product(OPERATIONS, repeat=3):
        try:
            run_script(["append", "poll", *operations], wide=wide)
        except AssertionError as error:
            raise AssertionError(f"append, poll, {', '.join(operations)}: {error}") from error


@pytest.mark.parametrize(
    "script",
    [
        "begin poll unlink append poll truncate poll rename poll",
        "begin poll unlink append poll truncate restart poll rename poll",
        "append poll truncate poll append poll truncate poll rename poll",
        "append poll rename append rename append rename poll restart poll",
        "append begin poll rename append poll poll rename poll poll poll",
    ],
)
def test_what_went_wrong_once(script):
    run_script(script.split(), wide=False)


Rotator.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestRotation = Rotator.TestCase
