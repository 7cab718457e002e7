"""A command that is run: without a shell, in a process group of its own, so that all it starts ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from msgspec import Struct, field

from collectors.errors import ConfigurationError, TransientError

__all__ = ["Command", "Run", "split"]

Result = TypeVar("Result")
_PIPE_BYTES = 2**20
_LINGER_SECONDS = 1.0
"""How long the output of a command that has ended is waited for: what it has started apart may hold it for ever."""
_LAST_LINES = 5
_LAST_BYTES = 4096


def split(command: str | list[str], hint: str = "give the command as a list of words") -> list[str]:
    """Return the words of a command; a text is split as a shell would. Raises ValueError for what only a shell can run."""
    try:
        words = shlex.split(command) if isinstance(command, str) else command
    except ValueError as error:
        raise ValueError(f"command: cannot be split into words: {error}") from error
    if not words or not words[0].strip():
        raise ValueError("command: expected a command, got nothing")
    if isinstance(command, str):
        found = next((word for word in words if re.fullmatch(r"[|;&<>]+|2>&1|\d?>.*", word)), None)
        if found is not None:
            raise ValueError(f"command: '{found}' is for a shell; {hint}")
    return words


class Command(Struct, frozen=True):
    """What to run, and how: `env` is beside the environment of this process, `timeout` and `grace` are in seconds."""

    words: Sequence[str]
    env: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None
    timeout: float | None = None
    grace: float = 5.0

    def check(self) -> None:
        """Raise ConfigurationError when there is no such program or folder."""
        if self.cwd is not None and not Path(self.cwd).is_dir():
            raise ConfigurationError(f"cwd: there is no folder '{self.cwd}'")
        name = self.words[0]
        path = {**os.environ, **self.env}.get("PATH", os.defpath)
        where = str(Path(self.cwd or ".", name)) if "/" in name else name
        if shutil.which(where, path=path) is None:
            raise ConfigurationError(
                f"command: there is no program '{name}'"
                + (", or it is not executable" if "/" in name else f" (looked in {path})")
            )


class _Process(asyncio.subprocess.SubprocessStreamProtocol):
    """The streams of a process; also says when it has exited, and when both its outputs have come to their end."""

    def __init__(self) -> None:
        super().__init__(_PIPE_BYTES, asyncio.get_running_loop())
        self.exited = asyncio.Event()
        self.silent = asyncio.Event()
        self._outputs = {1, 2}

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        super().pipe_connection_lost(fd, exc)
        self._outputs.discard(fd)
        if not self._outputs:
            self.silent.set()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()


class Run:
    """One run of a command; `code` is its exit code once `read` has come to the end of its output.

    What it complains about is kept for `failure`, the end of it, and given to `hear` as it comes.
    """

    def __init__(
        self,
        command: Command,
        transport: asyncio.SubprocessTransport,
        process: _Process,
        hear: Callable[[bytes], None] | None,
    ) -> None:
        self.code: int | None = None
        self._command = command
        self._transport = transport
        self._process = process
        self._hear = hear
        self._complaints = b""
        self._listening = asyncio.ensure_future(self._listen())
        loop = asyncio.get_running_loop()
        self._deadline = None if command.timeout is None else loop.time() + command.timeout

    @classmethod
    async def start(
        cls, command: Command, hear: Callable[[bytes], None] | None = None, *, takes_input: bool = False
    ) -> Run:
        """Start the command; unless it `takes_input`, there is none. Raises ConfigurationError when it cannot be started.

        Who is cancelled meanwhile waits until it is started, and ended: asyncio may wait for ever for a start that is
        cancelled half-way.
        """
        starting = asyncio.ensure_future(cls._started(command, hear, takes_input=takes_input))
        try:
            await asyncio.wait([starting])
        except asyncio.CancelledError:
            await asyncio.wait([starting])
            if starting.exception() is None:
                await starting.result().stop()
            raise
        return starting.result()

    @classmethod
    async def _started(
        cls, command: Command, hear: Callable[[bytes], None] | None, *, takes_input: bool
    ) -> Run:
        try:
            transport, process = await asyncio.get_running_loop().subprocess_exec(
                _Process,
                *command.words,
                stdin=asyncio.subprocess.PIPE if takes_input else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, **command.env},
                cwd=command.cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigurationError(
                f"command: cannot start '{command.words[0]}': {error.strerror or error}"
            ) from error
        return cls(command, transport, process, hear)

    async def read(self, size: int) -> bytes:
        """Return what it has written, nothing at its end. Raises TransientError when it is late."""
        stdout = cast("asyncio.StreamReader", self._process.stdout)
        data = await self._in_time(stdout.read(size))
        if not data:
            await self._in_time(self._process.exited.wait())
            await self.stop()
            self.code = self._transport.get_returncode()
        return data

    async def write(self, data: bytes) -> None:
        """Hand it some input; returns when it has taken most of it. One that has ended takes nothing, which is no error."""
        stdin = cast("asyncio.StreamWriter", self._process.stdin)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(data)
            await stdin.drain()

    def end_input(self) -> None:
        """Say that there is no more input."""
        cast("asyncio.StreamWriter", self._process.stdin).close()

    async def stop(self) -> None:
        """End the command and all that it has started, and wait for it; safe twice, and when it has ended by itself."""
        try:
            if not self._process.exited.is_set():
                self._signal(signal.SIGTERM)
                await asyncio.wait_for(self._process.exited.wait(), self._command.grace)
        except TimeoutError:
            pass
        finally:
            self._signal(signal.SIGKILL)
        await self._process.exited.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.silent.wait(), _LINGER_SECONDS)
        stdin = self._process.stdin
        if stdin is not None and stdin.transport.get_write_buffer_size():
            stdin.transport.abort()  # `close` would wait for a reader
        self._transport.close()
        await asyncio.wait(
            [self._listening]
        )  # and not cancelled with who waits, so that this can be called again

    def failure(self) -> str:
        """Return how the command ended, with the last that it said."""
        code = cast("int", self.code)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        lines = self._complaints.decode(errors="replace").splitlines()
        if len(self._complaints) == _LAST_BYTES and len(lines) > 1:
            del lines[0]  # it is cut off in front
        lines = [line for line in lines if line.strip()][-_LAST_LINES:]
        return f"'{self._command.words[0]}' {how}" + (f": {' | '.join(lines)}" if lines else "")

    async def _in_time(self, awaitable: Coroutine[Any, Any, Result]) -> Result:
        loop = asyncio.get_running_loop()
        left = None if self._deadline is None else max(0.0, self._deadline - loop.time())
        try:
            return await asyncio.wait_for(awaitable, left)
        except TimeoutError:
            raise TransientError(
                f"'{self._command.words[0]}' did not end within {self._command.timeout:g} s"
            ) from None

    async def _listen(self) -> None:
        """Keep the end of what the command complains about."""
        stderr = cast("asyncio.StreamReader", self._process.stderr)
        while data := await stderr.read(_LAST_BYTES):
            self._complaints = (self._complaints + data)[-_LAST_BYTES:]
            if self._hear is not None:
                self._hear(data)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._transport.get_pid(), number)
