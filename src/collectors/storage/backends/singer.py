"""Rows to a Singer target: any program that takes that protocol, for hundreds of databases, warehouses and services.

    storage:
      type: singer
      command: [/opt/target-postgres/bin/target-postgres]
      target_config: {host: db.example.com, user: loader, password: "not this one"}
      key_properties: [id]

The target is a command of its own, best in a virtual environment of its own, and is started without a shell, with its
first rows. `target_config` is handed to it in a file that only this user can read; what it says on its standard error is
logged from `log_level` on. Each source is a stream of its name. Columns become JSON Schema: times are `date-time` (those
without a zone count as UTC), decimals text with every digit (`x-singer.decimal`), bytes base64; a column that appears, or
changes, is told in a new SCHEMA.

A delivery counts as stored when the target has written its STATE back; until then its rows wait in a temporary file, for
another run of the target if this one fails. Most targets hold rows back, and acknowledge at the end of their input: so a
target is ended, and a new one started for what follows, when `max_age` has passed or `max_bytes` wait, and when a source
has come to its end. One that begins its files anew with each start has to be told names with the time in them.

Delivery: at least once: as good as the target's word. Rows that it had taken and not acknowledged when it, or this
process, died are given to it again; with `key_properties` many targets replace rows with the same key, so that each is
there once. A target that outlives a killed process ends by itself, once it has stored what it had.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self

import pyarrow as pa
from pydantic import AfterValidator, model_validator

from collectors.chunks import ChunkKey
from collectors.enums import ErrorType
from collectors.errors import DataError, FatalError, TransientError
from collectors.programs.command import Command, split
from collectors.programs.log import Level, ProgramLog
from collectors.programs.private_folder import private_folder, write_private
from collectors.programs.secrets import Hidden, SettingsCensor, as_json
from collectors.settings import ByteSize, Duration, LocalPath, OneOrMore
from collectors.storage.backends._singer_schema import properties_of, records_of, schema_line
from collectors.storage.backends._singer_target import Target
from collectors.storage.backends._singer_waiting import Given, Waiting
from collectors.storage.backends._text_file import check_lines
from collectors.storage.base import Backend, BackendConfig, source_of
from collectors.storage.keys import without_key
from collectors.storage.positions import SOURCE

__all__ = ["COMPONENT", "SingerBackend", "SingerConfig"]

logger = logging.getLogger("collectors.singer")

_FOLDER = "collectors-target-"
_USAGE = 2
_SHOWN = 200
_MOST_FLOWS = 10_000
"""So many calls of `store` are remembered."""


def _stream_name(name: str) -> str:
    if not name or not name.isprintable():
        raise ValueError("expected the name of a stream; `{source}` in it stands for the id of the source")
    return name


class SingerConfig(BackendConfig):
    """Settings of the `singer` backend."""

    command: str | list[str]
    """The target with arguments of its own, best as a list; `--config` is added for `target_config`."""
    target_config: Hidden | None = None
    """Settings of the target; a target that reads them from a file of yours has `--config` in the `command`."""
    stream: Annotated[str, AfterValidator(_stream_name)] = SOURCE
    """The stream that rows belong to; targets name tables and files after it. `{source}` in it stands for the id of the
    source."""
    key_properties: OneOrMore[str] = []
    """The columns that tell rows apart. A row without a value there is set aside."""
    max_age: Duration = 300.0
    """Have the target store everything when rows have waited so long for its acknowledgement."""
    max_bytes: ByteSize = 64 * 2**20
    """The same when so much waits, as JSON."""
    log_level: Level = "warning"
    """What is logged of the lines that the target writes on its standard error: at least this level, up to 50 lines an hour."""
    env: dict[str, str] = {}
    """Environment variables for the target, beside those of this process."""
    cwd: LocalPath | None = None
    """The folder in which the target runs; that of this process when left out."""
    timeout: Duration = 1800.0
    """End the target, as failed, when for so long it takes no more rows, or does not end behind the last one."""
    grace: Duration = 5.0
    """Wait so long between SIGTERM and SIGKILL when the target has to end."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        words = split(self.command)
        if self.target_config is not None and any(word.partition("=")[0] == "--config" for word in words):
            raise ValueError(
                "command: '--config' is added for the `target_config`; take one of the two out of the settings"
            )
        if len(set(self.key_properties)) < len(self.key_properties):
            raise ValueError(f"key_properties: there is a column twice: {', '.join(self.key_properties)}")
        return self


class SingerBackend(Backend[SingerConfig]):
    """Keeps a target running while there are rows, and what it has not acknowledged."""

    def __init__(self, config: SingerConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._name = Path(split(self.config.command)[0]).name
        self._censor = SettingsCensor(self.config.target_config)
        self._target: Target | None = None
        self._waiting = Waiting()
        self._taken: dict[str, ChunkKey] = {}
        self._stores: dict[str, ChunkKey] = {}
        self._columns: dict[str, dict[str, dict[str, Any]]] = {}
        self._turn = asyncio.Lock()
        self._stack: contextlib.AsyncExitStack | None = None
        self._files: list[str] = []
        self._rubbish = 0

    async def open(self) -> None:
        """Check that there is such a program, and write what it is to read; it is not started yet."""
        self._files, self._taken, self._stores, self._columns, self._rubbish = [], {}, {}, {}, 0
        self._command().check()
        self._stack = contextlib.AsyncExitStack()
        if self.config.target_config is not None:
            folder = self._stack.enter_context(private_folder(_FOLDER))
            write_private(folder / "config.json", as_json(self.config.target_config))
            self._files = ["--config", str(folder / "config.json")]
        self._log = ProgramLog(
            f"the target '{self._name}'",
            logger.warning,
            self._censor,
            self.config.log_level,
            lambda: datetime.now(UTC),
        )
        self._stack.callback(self._log.close)

    async def close(self) -> None:
        """End the target, and drop what it has not acknowledged."""
        stack, self._stack = self._stack, None
        if self._target is not None and not self._waiting.given:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.config.grace):
                    await self._target.finish()
        await self._drop_target()
        self._waiting.close()
        if stack is not None:
            await stack.aclose()

    async def write(self, table: pa.Table, key: ChunkKey) -> int:
        """Give the rows to the target and return their number; durable when it has acknowledged them."""
        async with self._turn:
            taken = self._taken.get(key.flow) or self._stores.get(key.flow)
            is_new = taken is None or (taken.epoch, taken.seq) < (key.epoch, key.seq)
            if is_new:
                stream = self._stream(key.flow)
                properties, records = await self.call(self._encoded, table, stream)
                columns = self._columns[stream] = {**self._columns.get(stream, {}), **properties}
                self._waiting.forget_before(key)
                schema = schema_line(stream, columns, self.config.key_properties)
                await self.call(self._waiting.add, key, stream, schema, records)
                self._note(key)
            await self._feed()
            if self._waiting.size >= self.config.max_bytes:
                await self._finish()
            return table.num_rows if is_new else 0

    def _note(self, key: ChunkKey) -> None:
        """Remember a write as the last one of its flow; of `store`, which has a flow for each call, the last calls."""
        if key.epoch:
            self._taken[key.flow] = key
            return
        self._stores[key.flow] = key
        if len(self._stores) > _MOST_FLOWS:
            del self._stores[next(iter(self._stores))]

    async def pending(self, flow: str) -> int | None:
        """Return the seq of the first write of a flow that the target has not acknowledged."""
        return min((each.key.seq for each in self._waiting.given if each.key.flow == flow), default=None)

    async def flush(self) -> None:
        """Have the target store everything: its input ends, and a new one takes what follows."""
        async with self._turn:
            if self._waiting.given:
                await self._feed()
                await self._finish()

    def flush_interval(self) -> float:
        """Return `max_age`."""
        return self.config.max_age

    def preview(self, table: pa.Table, flow: str) -> list[str]:
        """Return the stream, and what the target is told of its columns."""
        lines = [f"+ stream {self._stream(flow)}"]
        for name, schema in properties_of(table).items():
            form = f", {schema['format']}" if "format" in schema else ""
            lines.append(f"+ {name} {schema['type'][-1]}{form}")
        return lines + [
            f"! {name}: rows have no such column, and are told apart by it (`key_properties`)"
            for name in self.config.key_properties
            if name not in table.column_names
        ]

    def describe(self) -> str:
        """Return the name of the target."""
        return self._name

    def _stream(self, flow: str) -> str:
        return self.config.stream.replace(SOURCE, source_of(flow).partition("@")[0])

    def _command(self) -> Command:
        config = self.config
        return Command([*split(config.command), *self._files], config.env, config.cwd, None, config.grace)

    def _encoded(self, table: pa.Table, stream: str) -> tuple[dict[str, dict[str, Any]], bytes]:
        """Return the columns and the messages of rows. Raises DataError for those that no target can take."""
        check_lines(table, "ndjson")
        bad = without_key(table, self.config.key_properties)
        if bad:
            row, reason = min(bad.items())
            raise DataError(
                f"{len(bad)} rows have no key; the first is row {row}: {reason}",
                rows={row: reason.replace("`key`", "`key_properties`") for row, reason in bad.items()},
                error_type=ErrorType.STORAGE,
            )
        return properties_of(table), records_of(table, stream)

    async def _feed(self) -> None:
        """Give the target what it has not got yet. Raises TransientError when it fails: it is another one's the next time."""
        if self._target is not None and self._target.lost:
            await self._give_up()
        for each in [given for given in self._waiting.given if not given.number]:
            async with self._watched("take more rows") as limit:
                target = await self._running()
                await self._give(target, each, limit)
            if target.lost:
                await self._give_up()

    async def _running(self) -> Target:
        if self._target is None:
            self._target = await Target.start(
                self._command(),
                hear=self._log.hear,
                stored=self._waiting.acknowledge,
                rubbish=self._note_rubbish,
            )
            await self._target.tell_state()
        return self._target

    async def _give(self, target: Target, given: Given, limit: asyncio.Timeout) -> None:
        if target.schemas.get(given.stream) != given.schema:
            await target.tell(given.schema)
            target.schemas[given.stream] = given.schema
        pieces = self._waiting.pieces(given)
        while (piece := await self.call(next, pieces, None)) is not None:
            await target.tell(piece)
            if target.lost:
                return
            limit.reschedule(asyncio.get_running_loop().time() + self.config.timeout)
        given.number = target.number + 1  # before it can be acknowledged
        await target.tell_state(given.stream)

    async def _finish(self) -> None:
        """End the target's input, and wait for its end: by then it has acknowledged all, or it has failed."""
        target = self._target
        if target is None:
            return
        async with self._watched("end"):
            await target.finish()
        if target.code != 0:
            await self._give_up()
        await self._drop_target()
        if self._waiting.given:
            raise FatalError(
                f"the target '{self._name}' has ended well and not acknowledged what it was given: its standard output has "
                "to have the STATE. Nothing of that counts as stored; look whether it is there, and take another target",
                error_type=ErrorType.STORAGE,
            )

    @contextlib.asynccontextmanager
    async def _watched(self, doing: str) -> AsyncIterator[asyncio.Timeout]:
        """Let a target that takes too long, or that is left in the middle of something, not be used any more."""
        try:
            async with asyncio.timeout(self.config.timeout) as limit:
                yield limit
        except TimeoutError:
            await self._drop_target()
            raise TransientError(
                f"the target '{self._name}' did not {doing} within {self.config.timeout:g} s; it was ended",
                error_type=ErrorType.STORAGE,
            ) from None
        except BaseException:
            await self._drop_target()
            raise

    async def _give_up(self) -> None:
        """Raise what it means that the target has failed; what it has not acknowledged is for another one."""
        target = self._target
        assert target is not None  # noqa: S101  # asked for by those who have one
        await target.stop()
        failure = f"the target {self._censor(target.failure())}"
        await self._drop_target()
        if target.code == _USAGE:
            raise FatalError(
                f"{failure} (exit code 2 means that it does not take its arguments)",
                error_type=ErrorType.STORAGE,
            )
        raise TransientError(failure, error_type=ErrorType.STORAGE)

    async def _drop_target(self) -> None:
        target, self._target = self._target, None
        if target is not None:
            await target.stop()
            self._log.end()
        self._waiting.again()

    def _note_rubbish(self, line: bytes) -> None:
        self._rubbish += 1
        if self._rubbish == 1:
            text = self._censor(line[:_SHOWN].decode(errors="replace"))
            logger.warning(
                "the target '%s' writes what is no STATE of ours on its standard output: %s", self._name, text
            )


COMPONENT = SingerBackend
