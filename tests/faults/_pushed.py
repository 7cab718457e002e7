"""A source that cannot be read again, with the client that pushes to it: what it was told is kept, it never sends again.

The client keeps a diary outside of the folder under test: one line for each chunk sent, one for each acknowledged. A
source of tests: `type: _pushed:Pushed`.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from collectors.collection.base import ByteSourceConfig, Source
from collectors.settings import LocalPath

RECORDS = 20
"""Lines in a chunk."""


class PushedConfig(ByteSourceConfig):
    path: LocalPath


class Pushed(Source[PushedConfig]):
    data_format = "ndjson"

    def needs_spool(self):
        return True

    def format(self):
        return "ndjson"

    async def read(self, since):
        lines = Path(self.config.path).read_bytes().splitlines(keepends=True)
        diary = Path(self.config.path).with_name("diary")
        _, acknowledged = entries(diary)
        self._diary = os.open(diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for number in range(acknowledged, len(lines) // RECORDS):
            self.write_down(f"sent {number}\n")
            yield self.chunk(b"".join(lines[number * RECORDS : (number + 1) * RECORDS]), {"chunk": number})

    async def commit(self, position):
        self.write_down(f"acknowledged {position['chunk']}\n")

    def write_down(self, line):
        os.write(self._diary, line.encode())


def entries(diary: Path) -> tuple[Counter, int]:
    """Return how often each chunk was sent, and how many were acknowledged."""
    lines = diary.read_text().splitlines() if diary.exists() else []
    sent = Counter(int(line.split()[1]) for line in lines if line.startswith("sent"))
    told = max((int(line.split()[1]) for line in lines if line.startswith("acknowledged")), default=-1)
    return sent, told + 1


COMPONENT = Pushed
