"""Backends for the tests of memory and long runs: one that takes its time, one that notes when rows came."""

from __future__ import annotations

import time
from pathlib import Path

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
