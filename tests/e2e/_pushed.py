"""A source whose sender is a file of numbers: it sends again what it was not told is kept. For test_kill_spool.py."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from collectors.collection.base import Source, SourceConfig


class PushedConfig(SourceConfig):
    folder: str
    count: int = 120
    waiting: int = 10


class Pushed(Source[PushedConfig]):
    """Sends the numbers up to `count` that the file `kept` does not have, a few at a time, and notes what is kept."""

    def needs_spool(self):
        return True

    async def open(self):
        self.kept = Path(self.config.folder, "kept")
        self.kept.touch()
        self.answered = asyncio.Event()
        self.waiting = {}

    async def read(self, since):
        told = {int(line) for line in self.kept.read_text().split()}
        sent = Path(self.config.folder, "sent")
        for number in range(self.config.count):
            if number in told:
                continue
            while len(self.waiting) >= self.config.waiting:
                self.answered.clear()
                await self.answered.wait()
            with sent.open("a") as file:
                file.write(f"{number}\n")
            self.waiting[number] = number
            yield self.chunk(b'{"id": %d}\n' % number, {"number": number})
        while self.waiting:
            self.answered.clear()
            await self.answered.wait()

    async def commit(self, position):
        kept = [number for number in self.waiting if number <= position["number"]]
        descriptor = os.open(self.kept, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, "".join(f"{number}\n" for number in kept).encode())
        os.close(descriptor)
        for number in kept:
            del self.waiting[number]
        self.answered.set()

    def turn_away(self, position, reason):
        raise AssertionError(f"the disk is not full: {reason}")
