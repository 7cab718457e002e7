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

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import model_validator

from collectors.collection.base import ByteSourceConfig, Source
from collectors.collection.sources._cutting import Cutter, Piece
from collectors.errors import ConfigurationError, TransientError
from collectors.models import CollectedData, Position
from collectors.settings import Duration, LocalPath

__all__ = ["COMPONENT", "ExecConfig", "ExecSource"]

Result = TypeVar("Result")
_PIPE_BYTES = 2**20
_LAST_LINES = 5
_LAST_BYTES = 4096


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
        return shlex.split(self.command) if isinstance(self.command, str) else self.command

    @model_validator(mode="after")
    def _check(self) -> ExecConfig:
        if self.shell and not isinstance(self.command, str):
            raise ValueError("command: with `shell: true` the command is one text, not a list")
        try:
            words = self.words
        except ValueError as error:
            raise ValueError(f"command: cannot be split into words: {error}") from error
        if not words or not words[0].strip():
            raise ValueError("command: expected a command, got nothing")
        if isinstance(self.command, str) and not self.shell:
            found = next((word for word in words if re.fullmatch(r"[|;&<>]+|2>&1|\d?>.*", word)), None)
            if found is not None:
                raise ValueError(
                    f"command: '{found}' is for a shell; set `shell: true`, or give the command as a list of words"
                )
        return self


class ExecSource(Source[ExecConfig]):
    """Runs the command and hands on what it writes."""

    def __init__(self, config: ExecConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        spec = self.format()
        self.data_format = spec if isinstance(spec, str) else str(spec.get("type"))
        self._run: _Run | None = None

    def needs_spool(self) -> bool:
        """Return True: a command cannot be asked again for what it has written."""
        return True

    def format(self) -> str | dict[str, Any]:
        """Return the codec of the settings, else one JSON object a line."""
        return self.config.format or "ndjson"

    async def open(self) -> None:
        """Check that there is such a command."""
        _check_program(self.config)
        stack = await self.enter(contextlib.AsyncExitStack())
        stack.push_async_callback(self._stop)

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        """Start the command, unless it still runs since the last time, and yield its records up to its end."""
        if self._run is None:
            self._run = await _Run.start(self.config, Cutter(self.framing, self.config.max_record))
        run = self._run
        try:
            while True:
                while (piece := run.cutter.take()) is not None:
                    yield self._chunk(piece)
                if run.code is not None:
                    break
                await run.feed(min(self.config.chunk_size, self.config.max_record))
        except (asyncio.CancelledError, TransientError):
            await self._stop()
            raise
        if run.code in self.config.ok_codes:
            self._run = None
            return
        if run.cutter.end > run.cutter.offset:
            yield self._chunk(run.cutter.tear(f"{run.failure()}; the record is not whole"))
        self._run = None
        raise TransientError(run.failure())

    def _chunk(self, piece: Piece) -> CollectedData:
        offset = piece.start - piece.lead
        if piece.reason is not None:
            return self.refuse(piece.raw, None, piece.reason, offset=offset)
        return self.chunk(piece.raw, None, offset=offset)

    async def _stop(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            await run.stop()


def _check_program(config: ExecConfig) -> None:
    if config.cwd is not None and not Path(config.cwd).is_dir():
        raise ConfigurationError(f"cwd: there is no folder '{config.cwd}'")
    name = config.words[0]
    path = {**os.environ, **config.env}.get("PATH", os.defpath)
    where = str(Path(config.cwd or ".", name)) if "/" in name else name
    if shutil.which(where, path=path) is None:
        raise ConfigurationError(
            f"command: there is no program '{name}'"
            + (", or it is not executable" if "/" in name else f" (looked in {path})")
        )


class _Run:
    """One run of the command; it leads a process group of its own, so that all it starts can be ended with it."""

    def __init__(self, config: ExecConfig, process: asyncio.subprocess.Process, cutter: Cutter) -> None:
        self.cutter = cutter
        self.code: int | None = None
        self._config = config
        self._process = process
        self._complaints = b""
        self._listening = asyncio.ensure_future(self._listen())
        loop = asyncio.get_running_loop()
        self._deadline = None if config.timeout is None else loop.time() + config.timeout

    @classmethod
    async def start(cls, config: ExecConfig, cutter: Cutter) -> _Run:
        """Start the command. Raises ConfigurationError when it cannot be started."""
        try:
            process = await asyncio.create_subprocess_exec(
                *config.words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, **config.env},
                cwd=config.cwd,
                start_new_session=True,
                limit=_PIPE_BYTES,
            )
        except OSError as error:
            raise ConfigurationError(
                f"command: cannot start '{config.words[0]}': {error.strerror or error}"
            ) from error
        return cls(config, process, cutter)

    async def feed(self, size: int) -> None:
        """Read what the command has written; at its end take its exit code. Raises TransientError when it is late."""
        stdout = cast("asyncio.StreamReader", self._process.stdout)
        data = await self._in_time(stdout.read(size))
        if data:
            self.cutter.feed(data)
            return
        code = await self._in_time(self._process.wait())
        await self.stop()
        self.code = code
        if code in self._config.ok_codes:
            self.cutter.finish()

    async def stop(self) -> None:
        """End the command and all that it has started, and wait for it; safe when it has ended by itself."""
        try:
            if self._process.returncode is None:
                self._signal(signal.SIGTERM)
                await asyncio.wait_for(self._process.wait(), self._config.grace)
        except TimeoutError:
            pass
        finally:
            self._signal(signal.SIGKILL)
        await self._process.wait()
        await self._listening

    def failure(self) -> str:
        """Return how the command ended, with the last that it said."""
        code = cast("int", self.code)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        lines = self._complaints.decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
        return f"'{self._config.words[0]}' {how}" + (f": {' | '.join(lines)}" if lines else "")

    async def _in_time(self, awaitable: Coroutine[Any, Any, Result]) -> Result:
        loop = asyncio.get_running_loop()
        left = None if self._deadline is None else max(0.0, self._deadline - loop.time())
        try:
            return await asyncio.wait_for(awaitable, left)
        except TimeoutError:
            raise TransientError(
                f"'{self._config.words[0]}' did not end within {self._config.timeout:g} s"
            ) from None

    async def _listen(self) -> None:
        """Keep the end of what the command complains about."""
        stderr = cast("asyncio.StreamReader", self._process.stderr)
        while data := await stderr.read(_LAST_BYTES):
            self._complaints = (self._complaints + data)[-_LAST_BYTES:]

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


COMPONENT = ExecSource
