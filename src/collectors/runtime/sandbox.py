"""The process in which chunks are prepared after a record has ended the process three times.

Run as `python -m collectors.runtime.sandbox`. It loads the pipeline, then forks a worker that does the work; when the
worker dies, it says how and forks the next one, which costs milliseconds. Requests come on standard input and answers
go to standard output, each a length of 8 bytes and MessagePack; what processors print goes to standard error.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct, field

from collectors.chunks import Counts, DeadLetter, Rejected
from collectors.codecs.base import Decoded
from collectors.config.load import load
from collectors.models import CollectedData
from collectors.processing.base import row_bytes
from collectors.runtime._spool_frames import write_all
from collectors.runtime.assembly import make_codecs, make_pipeline, make_sources
from collectors.runtime.env import Env
from collectors.runtime.ledger import StepReport
from collectors.runtime.preparing import Item, Letters, Preparer, Way

__all__ = ["Answer", "PartAnswer", "Request", "Start", "receive", "send"]

_LENGTH = struct.Struct("<q")


class Start(Struct):
    """What the sandbox is told first: whose chunks it prepares."""

    pipeline: str
    source: str
    run: str


class Request(Struct):
    """A chunk. Only rows `first` up to `last` of its table are processed; rows and records named as refused are not.

    `refused_rows` maps the number of a row to the reason; `refused` are records that are not in `raw` any more.
    """

    raw: bytes
    data_format: str
    metadata: dict[str, Any]
    seq: int
    since: dict[str, Any] | None
    schema: bytes | None
    first: int = 0
    last: int | None = None
    refused_rows: dict[int, str] = field(default_factory=dict)
    refused: list[tuple[bytes, str]] = field(default_factory=list)


class PartAnswer(Struct):
    """What goes to one route: an Arrow stream, letters, counts; and for each step rows in, out, set aside, seconds."""

    table: bytes
    letters: list[DeadLetter]
    counts: Counts
    steps: list[tuple[int, int, int, float]]


class Answer(Struct):
    """A prepared chunk, of whose table there are `rows` in all; or how the worker died; or the error that was raised."""

    died: int | None = None
    error: str | None = None
    read: int = 0
    rows: int = 0
    schema: bytes | None = None
    letters: list[DeadLetter] = field(default_factory=list)
    decoding: tuple[int, int, int, float] = (0, 0, 0, 0.0)
    parts: list[PartAnswer] = field(default_factory=list)


def send(descriptor: int, message: Any) -> None:
    """Write one message."""
    data = msgspec.msgpack.encode(message)
    write_all(descriptor, [_LENGTH.pack(len(data)), data])


def receive(descriptor: int) -> bytes | None:
    """Read one message; None at the end."""
    head = _read(descriptor, _LENGTH.size)
    return None if head is None else _read(descriptor, _LENGTH.unpack(head)[0])


def _read(descriptor: int, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        piece = os.read(descriptor, min(size - len(data), 2**20))
        if not piece:
            return None
        data += piece
    return bytes(data)


class _Worker(Preparer):
    """Prepares a part of a chunk."""

    request: Request = field(default_factory=lambda: Request(b"", "", {}, 0, None, None))
    rows: int = 0

    def answer(self, request: Request) -> Answer:
        """Do what is asked for. Never raises."""
        self.request = request
        self.restore(request.schema)
        self.decoding = StepReport("decode")
        self.ways = [Way(way.name, way.pipeline) for way in self.ways]
        data = CollectedData(
            "", datetime.now(UTC), request.data_format, "sandbox", request.raw, request.metadata
        )
        try:
            prepared = self.prepare([Item(request.seq, request.since, data, len(request.raw))])
        except Exception as error:  # noqa: BLE001  # told to the other process
            return Answer(error=str(error) or type(error).__name__)
        return Answer(
            read=prepared.read,
            rows=self.rows,
            schema=prepared.schema,
            letters=prepared.letters,
            decoding=_numbers(self.decoding),
            parts=[
                PartAnswer(
                    _stream(part.table), part.letters, part.counts, [_numbers(step) for step in way.steps]
                )
                for part, way in zip(prepared.parts, self.ways, strict=True)
            ],
        )

    def _decode(self, group: list[Item]) -> Decoded:
        """Leave out the culprits, and all that is not asked for."""
        request = self.request
        decoded = super()._decode(group)
        table = decoded.table
        self.rows = table.num_rows
        culprits = [
            Rejected(raw, reason, -1 - number) for number, (raw, reason) in enumerate(request.refused)
        ]
        culprits += [
            Rejected(row_bytes(table, row), reason, -1 - row) for row, reason in request.refused_rows.items()
        ]
        keep = [
            row
            for row in range(request.first, table.num_rows if request.last is None else request.last)
            if row not in request.refused_rows
        ]
        table = table.take(pa.array(keep, pa.int64()))
        rejected = decoded.rejected + culprits
        return Decoded(table, table.num_rows + len(rejected), rejected)

    def _decode_letters(self, decoded: Decoded, first: Item) -> list[DeadLetter]:
        """Make the letters of culprits that were found in the table, too: those hold JSON, whatever the format."""
        count = len(self.request.refused_rows)
        split = len(decoded.rejected) - count
        rest = Decoded(decoded.table, decoded.read - count, decoded.rejected[:split])
        return super()._decode_letters(rest, first) + self.letters.make(
            decoded.rejected[split:],
            "decode",
            first.seq,
            lambda _: first.since,
            data_format="" if self.own_format == "ndjson" else "ndjson",
        )


def _numbers(step: StepReport) -> tuple[int, int, int, float]:
    return step.rows_in, step.rows_out, step.set_aside, step.seconds


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _worker(start: Start) -> _Worker:
    config = load(Path(start.pipeline))
    source = make_sources(config)[start.source]
    letters = Letters(config.name, start.source, start.run, config.version, lambda: datetime.now(UTC))
    routes = [route for route in config.routes if start.source in route.sources]
    ways = [Way(route.label, make_pipeline(route)) for route in routes]
    return _Worker(make_codecs(source), ways, letters, source.data_format, Env().monotonic)


def _serve(worker: _Worker, requests: int, answers: int) -> None:
    while (data := receive(requests)) is not None:
        send(answers, worker.answer(msgspec.msgpack.decode(data, type=Request)))


def _main() -> None:
    requests, answers = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    start = receive(requests)
    if start is None:
        return
    worker = _worker(msgspec.msgpack.decode(start, type=Start))
    with contextlib.suppress(OSError):  # when memory runs out, this process is to go, not the one that stores
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    while True:
        child = os.fork()
        if child == 0:
            _serve(worker, requests, answers)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return
        send(answers, Answer(died=code))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        _main()
    sys.exit(0)
