"""Finds the record that ends the process, and sets it aside alone.

A flow that made no progress over three deaths of the process has its chunks prepared in another one (`sandbox`). When
that dies too, the chunk is halved, and halved again, until the culprits are known; they become dead letters, the rest
of the chunk goes on. Until the end of the run every chunk of the flow goes this way.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
from msgspec.structs import replace

from collectors.errors import FatalError
from collectors.runtime.deaths import DEATHS
from collectors.runtime.preparing import Item, Part, Prepared, Preparer
from collectors.runtime.sandbox import Answer, Request, Start, receive, send

__all__ = ["IsolatedPreparer"]

_MOST_DEATHS = 400
"""So many deaths in one chunk: then what is not known to be good is set aside as a whole."""


class _TooManyDeathsError(Exception):
    pass


class IsolatedPreparer(Preparer):
    """Prepares as its base does, in the sandbox of this pipeline file. `close` ends that process."""

    pipeline: Path | None = None
    _sandbox: subprocess.Popen[bytes] | None = None
    _deaths: int = 0
    _how: str = ""

    @classmethod
    def around(cls, preparer: Preparer, pipeline: Path) -> IsolatedPreparer:
        """Return one in the place of another."""
        isolated = cls(
            preparer.codec_for, preparer.ways, preparer.letters, preparer.own_format, preparer.clock
        )
        isolated.set_misfits_aside = preparer.set_misfits_aside
        isolated.decoding = preparer.decoding
        isolated.restore(preparer.schema_bytes)
        isolated.pipeline = pipeline
        return isolated

    def joining(self, first: Item) -> Callable[[Item], bool]:
        """Prepare one chunk at a time."""
        return lambda _: False

    def prepare(self, group: list[Item]) -> Prepared:
        """Return the chunk without the records that end a process; those are in the letters."""
        [item] = group
        data = item.data
        request = Request(
            data.raw_data, data.data_format, data.metadata, item.seq, item.since, self.schema_bytes
        )
        self._deaths = 0
        answer = self._ask(request)
        if answer is None:
            request = self._without_culprits(request)
            self._deaths = 0
            answer = self._ask(request) or self._ask(self._refused_whole(request))
        if answer is None or answer.error is not None:
            raise FatalError(answer.error if answer and answer.error else f"the sandbox {self._how}")
        return self._prepared(item, answer)

    def close(self) -> None:
        """End the process; safe twice."""
        process, self._sandbox = self._sandbox, None
        if process is not None:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            process.wait()

    def _without_culprits(self, request: Request) -> Request:
        try:
            whole = self._ask(replace(request, last=0))
            if whole is None:
                return self._without_bytes(request)
            culprits = self._find_rows(request, 0, whole.rows)
        except _TooManyDeathsError:
            return self._refused_whole(request)
        return replace(request, refused_rows={row: self._reason() for row in culprits})

    def _find_rows(self, request: Request, first: int, last: int) -> list[int]:
        """Return the rows from `first` up to `last` that end the process; it is known that some do."""
        if last - first == 1:
            return [first]
        middle = (first + last) // 2
        return [
            row
            for start, stop in ((first, middle), (middle, last))
            if self._ask(replace(request, first=start, last=stop)) is None
            for row in self._find_rows(request, start, stop)
        ]

    def _without_bytes(self, request: Request) -> Request:
        """Do the same where decoding ends the process: with the records as they lie in the bytes."""
        codec = self.codec_for(request.data_format)
        if not codec.joinable:
            return self._refused_whole(request)
        good: list[bytes] = []
        bad: list[bytes] = []

        def sort(raw: bytes) -> None:
            if self._ask(replace(request, raw=raw, last=0)) is not None:
                good.append(raw)
                return
            middle = raw.rfind(b"\n", 0, len(raw) // 2) + 1 or raw.find(b"\n") + 1
            if middle in {0, len(raw)}:
                bad.append(raw)
            else:
                sort(raw[:middle])
                sort(raw[middle:])

        sort(request.raw)
        rest = replace(
            request, raw=b"".join(good), refused=[(raw.rstrip(b"\n"), self._reason()) for raw in bad]
        )
        return rest if self._ask(rest) is not None else self._without_culprits(rest)

    def _refused_whole(self, request: Request) -> Request:
        reason = f"{self._reason()}; which of its records does that could not be found out"
        return replace(request, raw=request.raw, data_format="rejected", metadata={"reason": reason})

    def _reason(self) -> str:
        return f"the process that worked on this record {self._how}, more than {DEATHS} times"

    def _ask(self, request: Request) -> Answer | None:
        """Return the sandbox's answer, None when its worker died over it."""
        process = self._sandbox or self._start()
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        try:
            send(process.stdin.fileno(), request)
            data = receive(process.stdout.fileno())
        except BrokenPipeError:
            data = None
        if data is None:
            self.close()
            answer = Answer(died=process.returncode)
        else:
            answer = msgspec.msgpack.decode(data, type=Answer)
        if answer.died is None:
            return answer
        self._deaths += 1
        self._how = _how(answer.died)
        if self._deaths > _MOST_DEATHS:
            raise _TooManyDeathsError
        return None

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "collectors.runtime.sandbox"]
        self._sandbox = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._sandbox.stdin is not None  # noqa: S101
        letters = self.letters
        send(self._sandbox.stdin.fileno(), Start(str(self.pipeline), letters.source, letters.run))
        return self._sandbox

    def _prepared(self, item: Item, answer: Answer) -> Prepared:
        self.restore(answer.schema)
        parts: list[Part] = []
        self.decoding.add(*answer.decoding)
        for part, way in zip(answer.parts, self.ways, strict=True):
            for report, done in zip(way.steps, part.steps, strict=True):
                report.add(*done)
            parts.append(Part(pa.ipc.open_stream(part.table).read_all(), part.letters, part.counts))
        return Prepared(
            first_seq=item.seq,
            seq=item.seq,
            position=item.data.position,
            schema=self.schema_bytes,
            size=item.size,
            read=answer.read,
            letters=answer.letters,
            parts=parts,
            reading=item.reading,
        )


def _how(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
