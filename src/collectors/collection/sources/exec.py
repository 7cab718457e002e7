"""The output of a command: run once, on a schedule, or running all the time.

    source:
      type: exec
      command: [journalctl, --follow, --output=json]
      format: ndjson

Records are handed on as soon as the command writes them; the command's end ends the reading, and with `every` or
`cron` it is run again. The command is started without a shell, its input is empty, and it is ended together with
everything that it started: SIGTERM, and SIGKILL after a grace.

Delivery: exactly once from the spool on; what a command has written cannot be asked for again. A command that fails half-way is run
again, with whatever it writes then. A last record that a failing command left without a newline is set aside.
Position: none.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from pydantic import model_validator

from collectors.collection.base import ByteSourceConfig, Source
from collectors.collection.sources._arrived import receive_what_is_there
from collectors.collection.sources._cutting import Cutter, Piece
from collectors.errors import TransientError
from collectors.models import CollectedData, Position
from collectors.programs.command import Command, Run, split
from collectors.settings import Duration, LocalPath

__all__ = ["COMPONENT", "ExecConfig", "ExecSource"]


class ExecConfig(ByteSourceConfig):
    """Settings of the exec source."""

    command: str | list[str]
    """The command with its arguments, best as a list; a text is split as a shell would, with quotes."""
    shell: bool = False
    """Have `/bin/sh` run the command, a text, with pipes and variables. Never put values from outside into it."""
    env: dict[str, str] = {}
    """Environment variables for the command, beside those of this process."""
    cwd: LocalPath | None = None
    """The folder in which the command runs; that of this process when left out."""
    timeout: Duration | None = None
    """End the command, as failed, when it runs for longer."""
    grace: Duration = 5.0
    """Wait so long between SIGTERM and SIGKILL when the command has to end."""
    ok_codes: list[int] = [0]
    """Exit codes that mean success."""

    @property
    def words(self) -> list[str]:
        """The command as it is started."""
        if self.shell:
            return ["/bin/sh", "-c", str(self.command)]
        return split(self.command, "set `shell: true`, or give the command as a list of words")

    def as_command(self) -> Command:
        """Return what is run."""
        return Command(self.words, self.env, self.cwd, self.timeout, self.grace)

    @model_validator(mode="after")
    def _check(self) -> ExecConfig:
        if self.shell and not isinstance(self.command, str):
            raise ValueError("command: with `shell: true` the command is one text, not a list")
        split(self.words)
        return self


class ExecSource(Source[ExecConfig]):
    """Runs the command and hands on what it writes."""

    def __init__(self, config: ExecConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        spec = self.format()
        self.data_format = spec if isinstance(spec, str) else str(spec.get("type"))
        self._run: Run | None = None
        self._cutter = Cutter(self.framing, self.config.max_record)

    def needs_spool(self) -> bool:
        """Return True: a command cannot be asked again for what it has written."""
        return True

    def format(self) -> str | dict[str, Any]:
        """Return the codec of the settings, else one JSON object a line."""
        return self.config.format or "ndjson"

    async def open(self) -> None:
        """Check that there is such a command."""
        self.config.as_command().check()
        stack = await self.enter(contextlib.AsyncExitStack())
        stack.push_async_callback(self._stop)

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        """Start the command, unless it still runs since the last time, and yield its records up to its end."""
        if self._run is None:
            self._run = await Run.start(self.config.as_command())
            self._cutter = Cutter(self.framing, self.config.max_record)
        run, cutter = self._run, self._cutter
        size: int | None = None
        try:
            while True:
                for chunk in self._chunks():
                    yield chunk
                if run.code is not None:
                    break
                await self.linger(size)
                size = await self._receive(run)
        except TransientError:
            await self._stop()
            raise
        if self._succeeded(run):
            self._run = None
            return
        if cutter.end > cutter.offset:
            yield self._chunk(cutter.tear(f"{run.failure()}; the record is not whole"))
        self._run = None
        raise TransientError(run.failure())

    async def rest(self) -> AsyncIterator[CollectedData]:
        """Yield what the command has written by now."""
        if (run := self._run) is None:
            return
        chunks = [*self._chunks()]

        async def receive() -> int | None:
            size = await self._receive(run)
            chunks.extend(self._chunks())
            return size

        with contextlib.suppress(TransientError):
            await receive_what_is_there(receive)
        for chunk in chunks:
            yield chunk

    def _chunks(self) -> Iterator[CollectedData]:
        while (piece := self._cutter.take()) is not None:
            yield self._chunk(piece)

    async def _receive(self, run: Run) -> int | None:
        """Take over what the command has written, waiting for it; return its size, None at the end."""
        data = await run.read(min(self.config.chunk_size, self.config.max_record))
        if data:
            self._cutter.feed(data)
            return len(data)
        if self._succeeded(run):
            self._cutter.finish()
        return None

    def _succeeded(self, run: Run) -> bool:
        return run.code in self.config.ok_codes

    def _chunk(self, piece: Piece) -> CollectedData:
        offset = piece.start - piece.lead
        if piece.reason is not None:
            return self.refuse(piece.raw, None, piece.reason, offset=offset)
        return self.chunk(piece.raw, None, offset=offset)

    async def _stop(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            await run.stop()


COMPONENT = ExecSource
