"""The records of a Singer tap: any program that speaks that protocol, for hundreds of services and databases.

    source:
      type: singer
      command: [/opt/tap-github/bin/tap-github]
      tap_config: {repositories: [singer-io/tap-github], auth_token: "${GITHUB_TOKEN:-}"}
      discover: true
      streams: [issues]

The tap is a command of its own, best in a virtual environment of its own, and is started without a shell. Its settings,
the catalog and the state are handed to it in files that only this user can read, in a temporary folder that is deleted
afterwards. What it says on its standard error is told from `log_level` on.

Give each stream a source of its own, with an `id` and `streams: [name]`: then each has its own columns, position and,
where storages name tables after sources, table, and one that fails leaves the others alone. A source of several streams
gives each record the column `_stream`, by which routes tell them apart; where columns of one name have different types,
the records of one stream are set aside.

Column types are those of the `catalog`, if one is given for the one stream, else those that the records show; `columns`
declares others. Numbers keep every digit that the tap wrote. Set aside are lines that are no messages, and records whose
values do not fit the columns. Messages of unknown types, and ACTIVATE_VERSION, are told once: storages keep the rows of
earlier versions, which `metadata: true` lets a query tell from those that count.

Delivery: at least once; exactly once with a tap that goes on behind its STATE, or gives the same once more in the same
order. What was stored behind the last STATE is left out when it comes again as it was; when something else comes
instead, all of it is stored, and that is told. Of a stream with a key, up to 16 records in front of the STATE are known
again, since many taps begin with the record that their bookmark is from. Whatever else a tap gives again is stored
again: a large table without a bookmark comes whole in each run. What a failing tap wrote behind its last STATE is not
handed on, unless it was more than `chunk_size`: it comes again.
Position: the value of the last STATE that a tap can go on from, the number and an imprint of the records behind it, and
imprints of those in front of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from pydantic import BeforeValidator, model_validator

from collectors.collection.base import LineFraming, Source, SourceConfig
from collectors.collection.sources._cutting import Cutter
from collectors.collection.sources._singer_catalog import Catalog
from collectors.collection.sources._singer_messages import Changed, Mark, Piece, Sorter
from collectors.errors import ConfigurationError, FatalError, TransientError
from collectors.models import CollectedData, Position
from collectors.programs.command import Command, Run, split
from collectors.programs.log import Level, ProgramLog
from collectors.programs.private_folder import private_folder, write_private
from collectors.programs.secrets import Hidden, SettingsCensor, as_json
from collectors.settings import ByteSize, ColumnType, Duration, LocalPath

__all__ = ["COMPONENT", "SingerConfig", "SingerSource"]

_READ_BYTES = 256 * 1024
_CATALOG_BYTES = 64 * 2**20
_USAGE = 2
_REMARKS = 100
_FOLDER = "collectors-tap-"


def _with_metadata(value: Any) -> Any:
    """Return a list of streams as the mapping that it is short for."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: {} for name in value}
    return value


class SingerConfig(SourceConfig):
    """Settings of the singer source."""

    command: str | list[str]
    """The tap with arguments of its own, best as a list; `--config`, `--catalog` and `--state` are added as needed."""
    tap_config: Hidden | None = None
    """Settings of the tap; a tap that reads them from a file of yours has `--config` in the `command`."""
    streams: Annotated[
        dict[str, dict[str, Any]],
        BeforeValidator(_with_metadata, json_schema_input_type=list[str] | dict[str, dict[str, Any]]),
    ] = {}
    """Names of the streams to read; all that the tap gives when left out. As a mapping: name → what to set in the
    stream's metadata of the catalog, for example `{orders: {replication-method: INCREMENTAL, replication-key: id}}`."""
    discover: bool = False
    """Ask the tap for its catalog first, and select `streams` in it, with all their columns."""
    catalog: dict[str, Any] | LocalPath | None = None
    """The catalog, or a JSON file with it; `streams` are selected in it."""
    columns: dict[str, ColumnType] = {}
    """Columns whose type is known beforehand, for example `{price: "decimal(12, 2)", updated_at: timestamp}`."""
    metadata: bool = False
    """Give each record the columns `_sdc_extracted_at` and `_sdc_table_version`, as far as the tap says so."""
    log_level: Level = "warning"
    """What is told of the lines that the tap writes on its standard error: at least this level, up to 50 lines an hour."""
    chunk_size: ByteSize = 4 * 2**20
    """Hand records on in pieces of about this many bytes where no STATE comes before."""
    max_record: ByteSize = 8 * 2**20
    """Set a line of the tap aside when it is longer than this many bytes."""
    env: dict[str, str] = {}
    """Environment variables for the tap, beside those of this process."""
    cwd: LocalPath | None = None
    """The folder in which the tap runs; that of this process when left out."""
    timeout: Duration | None = None
    """End the tap, as failed, when it runs for longer."""
    grace: Duration = 5.0
    """Wait so long between SIGTERM and SIGKILL when the tap has to end."""

    @model_validator(mode="after")
    def _check(self) -> SingerConfig:
        words = split(self.command)
        ours = {
            "--config": self.tap_config is not None,
            "--catalog": self.catalog is not None or self.discover,
            "--state": True,
            "--discover": True,
        }
        for option, is_ours in ours.items():
            if is_ours and any(word.partition("=")[0] == option for word in words):
                raise ValueError(f"command: '{option}' is added by the source; take it out of the command")
        if self.discover and self.catalog is not None:
            raise ValueError("discover: there is a `catalog` already; leave one of the two out")
        return self


class SingerSource(Source[SingerConfig]):
    """Runs the tap and hands on its records."""

    may_repeat = (
        "what the tap gives again when it is started with a STATE of its own, or without one, is stored again"
    )

    def __init__(self, config: SingerConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._clean = SettingsCensor(self.config.tap_config)
        self._files: list[str] = []
        self._names: set[str] = set(self.config.streams)
        self._folder: Path | None = None
        self._told: set[str] = set()
        self._log = ProgramLog(
            "the tap", lambda text: self.tell(text), self._clean, self.config.log_level, lambda: self.now()
        )

    def format(self) -> str | dict[str, Any]:
        """Return lines of JSON, with the types of the catalog and of `columns`."""
        types: dict[str, str] = {}
        catalog = self._given_catalog()
        if catalog is not None and len(self.config.streams) == 1:
            types = catalog.columns(next(iter(self.config.streams)))
        if self.config.metadata:
            types |= {"_sdc_extracted_at": "timestamp", "_sdc_table_version": "int"}
        types |= self.config.columns
        return {"type": "ndjson", "columns": types} if types else "ndjson"

    async def open(self) -> None:
        """Check that there is such a program, write what it is to read, and ask it for its catalog if need be."""
        self._command([]).check()
        self._folder = await self.enter(private_folder(_FOLDER))
        await self.enter(contextlib.closing(self._log))
        self._files = []
        if self.config.tap_config is not None:
            self._files += self._file("config", as_json(self.config.tap_config))
        catalog = await self._discovered() if self.config.discover else self._given_catalog()
        if catalog is not None:
            if self.config.discover or self.config.streams:
                catalog.select(self.config.streams)
            self._names = catalog.names_of(self.config.streams)
            self._files += self._file("catalog", catalog.encode())

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        """Run the tap from the last STATE, and yield its records up to its end."""
        mark = Mark.of(since)
        try:
            async with contextlib.aclosing(self._run(mark)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        except Changed:
            self.tell(
                f"the tap does not repeat the {mark.records} records that it gave behind its last STATE; what it gives "
                "now is stored, of which some may be there already"
            )
        async with contextlib.aclosing(self._run(Mark(mark.state, last=mark.last))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _run(self, since: Mark) -> AsyncGenerator[CollectedData, None]:
        sorter = Sorter(
            since,
            self.config.chunk_size,
            self._tell_once,
            streams=self._names,
            label=len(self.config.streams) != 1,
            metadata=self.config.metadata,
        )
        cutter = Cutter(LineFraming(), self.config.max_record)
        state = self._file("state", since.state.encode()) if since.state is not None else []
        run = await Run.start(self._command([*self._files, *state]), self._log.hear)
        try:
            while data := await run.read(min(_READ_BYTES, self.config.max_record)):
                cutter.feed(data)
                for chunk in self._chunks(sorter, cutter):
                    yield chunk
            self._check_end(run)
            cutter.finish()
            for chunk in self._chunks(sorter, cutter):
                yield chunk
            for piece in sorter.finish():
                yield self._chunk(piece, sorter)
        finally:
            await run.stop()
            self._log.end()

    def _chunks(self, sorter: Sorter, cutter: Cutter) -> Iterator[CollectedData]:
        while (found := cutter.take()) is not None:
            if found.reason is not None:
                sorter.refuse(found.raw, f"the tap wrote a line that is too long: {found.reason}")
            else:
                for line in found.raw.split(b"\n"):
                    sorter.feed(line)
            for piece in sorter.take():
                yield self._chunk(piece, sorter)

    def _chunk(self, piece: Piece, sorter: Sorter) -> CollectedData:
        position = piece.mark.position()
        if piece.reason is not None:
            text = piece.raw.decode(errors="surrogateescape")
            raw = self._clean.secrets(text).encode(errors="surrogateescape")
            return self.refuse(raw, position, piece.reason)
        return self.chunk(piece.raw, position, key_properties=dict(sorter.keys))

    def _check_end(self, run: Run) -> None:
        if run.code == 0:
            return
        failure = self._clean(run.failure())
        if run.code == _USAGE:
            raise FatalError(f"{failure} (exit code 2 means that the tap does not take its arguments)")
        raise TransientError(failure)

    async def _discovered(self) -> Catalog:
        run = await Run.start(self._command([*self._files, "--discover"]), self._log.hear)
        text = bytearray()
        try:
            while data := await run.read(_READ_BYTES):
                text += data
                if len(text) > _CATALOG_BYTES:
                    raise ConfigurationError(
                        f"discover: the tap's catalog is longer than {_CATALOG_BYTES // 2**20} MiB; "
                        "write one by hand and give it as `catalog`"
                    )
            self._check_end(run)
        finally:
            await run.stop()
            self._log.end()
        return Catalog.read(bytes(text), "the tap's answer to --discover")

    def _given_catalog(self) -> Catalog | None:
        given = self.config.catalog
        if given is None:
            return None
        if not isinstance(given, str):
            return Catalog(msgspec.json.decode(msgspec.json.encode(given)), "catalog")
        try:
            text = Path(given).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"catalog: cannot read '{given}': {error.strerror or error}") from None
        return Catalog.read(text, f"catalog '{given}'")

    def _command(self, more: list[str]) -> Command:
        config = self.config
        return Command([*split(config.command), *more], config.env, config.cwd, config.timeout, config.grace)

    def _file(self, name: str, content: bytes) -> list[str]:
        """Write a file for the tap; return the arguments that hand it over."""
        if self._folder is None:
            raise TransientError(f"{self.get_source_id()}: not connected; call connect() first")
        path = self._folder / f"{name}.json"
        write_private(path, content)
        return [f"--{name}", str(path)]

    def _tell_once(self, name: str, text: str) -> None:
        if name not in self._told and len(self._told) < _REMARKS:
            self._told.add(name)
            self.tell(self._clean(text))


COMPONENT = SingerSource
