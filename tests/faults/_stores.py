"""For the tests of memory and long runs: stores that take their time, that are away; a source that counts."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from collectors.collection.base import Source, SourceConfig
from collectors.errors import TransientError
from collectors.storage.base import Backend, BackendConfig


class SlowConfig(BackendConfig):
    seconds: float = 0.05


class Slow(Backend[SlowConfig]):
    """Takes `seconds` for every commit."""

    def write(self, table, key):
        time.sleep(self.config.seconds)
        return table.num_rows


class TimedConfig(BackendConfig):
    note: str


class Timed(Backend[TimedConfig]):
    """Appends time and number of rows to a file."""

    def write(self, table, key):
        with Path(self.config.note).open("a") as file:
            file.write(f"{time.monotonic()} {table.num_rows}\n")
        return table.num_rows


class AwayConfig(BackendConfig):
    flag: str
    note: str


class Away(Backend[AwayConfig]):
    """Is away as long as the file `flag` is there; notes the first and last number and the count of each commit."""

    def write(self, table, key):
        if Path(self.config.flag).exists():
            raise TransientError("the store is away", retry_after=0.2)
        numbers = table["n"]
        with Path(self.config.note).open("a") as file:
            file.write(f"{numbers[0]} {numbers[-1]} {table.num_rows}\n")
        return table.num_rows


class TicksConfig(SourceConfig):
    rows: int = 1000
    seconds: float = 0.1
    count: int = 2**62
    width: int = 60
    stop: str = ""


class Ticks(Source[TicksConfig]):
    """Counts, cannot replay: a chunk of `rows` numbers every `seconds`, `count` of them, or until the file `stop` is there."""

    def needs_spool(self):
        return True

    async def read(self, since):
        config = self.config
        text = "x" * config.width
        for number in range(config.count):
            first = number * config.rows
            lines = [f'{{"n":{n},"text":"{text}"}}\n' for n in range(first, first + config.rows)]
            yield self.chunk("".join(lines).encode(), {"n": first + config.rows})
            if config.stop and Path(config.stop).exists():
                return
            await asyncio.sleep(config.seconds)
