"""The middle hops, in a worker thread: bytes are decoded, then each route's processors change the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, cast

import pyarrow as pa
from msgspec import Struct, field
from msgspec.structs import replace

from collectors.chunks import Counts, DeadLetter, Reading, Rejected
from collectors.codecs.base import Codec, Decoded
from collectors.errors import FatalError
from collectors.models import CollectedData, Position
from collectors.processing.pipeline import Pipeline, StepOutcome
from collectors.runtime.batching import join_bytes
from collectors.runtime.ledger import StepReport

__all__ = ["Item", "Letters", "Part", "Prepared", "Preparer", "Way", "count_step"]

JOINED_BYTES = 4 * 2**20
"""Waiting chunks are joined up to this size to be decoded together."""
LETTER_BYTES = 2048
"""Bytes that a dead letter takes in memory beside its record."""


class Item(Struct):
    """A chunk on its way, with its number and the position before it."""

    seq: int
    since: Position | None
    data: CollectedData
    size: int

    @property
    def reading(self) -> Reading:
        """Where it stands in a reading of everything, where its source says so."""
        return cast("Reading", self.data.metadata.get("reading", ""))


class Part(Struct):
    """What goes to the backends of one route: rows, the letters of its steps, and the counts of both.

    `origins` names, in a replay, the letter that each row comes from.
    """

    table: pa.Table
    letters: list[DeadLetter]
    counts: Counts
    origins: list[DeadLetter] = field(default_factory=list)


class Prepared(Struct):
    """A group of chunks, decoded and processed for every route; `letters` are those of decoding.

    `resolved` are the letters of earlier runs that these are the replay of.
    """

    first_seq: int
    seq: int
    position: Position | None
    schema: bytes | None
    size: int
    read: int
    letters: list[DeadLetter]
    parts: list[Part]
    resolved: list[DeadLetter] = field(default_factory=list)
    takers: int = 0
    reading: Reading = ""

    @property
    def held(self) -> int:
        """How many bytes it keeps in memory."""
        sizes: list[int] = [part.table.get_total_buffer_size() + _held(part.letters) for part in self.parts]
        return _held(self.letters) + max(sizes)


def _held(letters: Sequence[DeadLetter]) -> int:
    return sum(len(letter.raw) for letter in letters) + LETTER_BYTES * len(letters)


class Letters(Struct, frozen=True):
    """Makes dead letters from what a step refused."""

    pipeline: str
    source: str
    run: str
    version: str
    now: Callable[[], datetime]

    def make(
        self,
        rejected: Sequence[Rejected],
        step: str,
        seq: int,
        place: Callable[[Rejected], Position | None],
        **about: Any,
    ) -> list[DeadLetter]:
        """Return one letter a record; `about` are further fields of theirs."""
        created = self.now()
        return [
            DeadLetter(
                pipeline=self.pipeline,
                source=self.source,
                run=self.run,
                seq=seq,
                record=item.record,
                step=step,
                reason=item.reason,
                raw=item.raw,
                position=place(item),
                version=self.version,
                created_at=created,
                **about,
            )
            for item in rejected
        ]

    def again(
        self, rejected: Sequence[Rejected], step: str, seq: int, origins: Sequence[DeadLetter], **about: Any
    ) -> list[DeadLetter]:
        """Return one letter a record that was refused once more; `origins` are the letters that were replayed."""
        return [
            replace(
                letter,
                position=origin.position,
                attempt=origin.attempt + 1,
                origin=origin.origin or origin.letter_id,
            )
            for letter, origin in zip(
                self.make(rejected, step, seq, lambda _: None, **about), origins, strict=True
            )
        ]


class Way:
    """A route through the processors; its name is empty where the source has no other."""

    def __init__(self, name: str, pipeline: Pipeline) -> None:
        self.name = name
        self.pipeline = pipeline
        self.steps = [StepReport(name) for name in pipeline.step_names()]


def _place(item: Rejected, first: Item) -> Position | None:
    """Return where a record is: in which file at which byte, where the chunk says so, else behind what it comes."""
    about = first.data.metadata
    place: Position = {key: about[key] for key in ("path",) if key in about}
    if "offset" in about:
        place["offset"] = about["offset"] + (item.offset or 0)
    return place or first.since


class Preparer(Struct):
    """Decodes and processes; one a flow, used by one thread at a time, since the schema grows from chunk to chunk."""

    codec_for: Callable[[str], Codec[Any]]
    ways: list[Way]
    letters: Letters
    own_format: str
    clock: Callable[[], float]
    schema: pa.Schema | None = None
    set_misfits_aside: bool = False
    """Whether rows without a column that a step needs are set aside: for a source whose senders were told that all is
    well, and must not be able to stop it. Otherwise the settings are taken to be wrong, and nothing is read on."""
    decoding: StepReport = field(default_factory=lambda: StepReport("decode"))
    schema_bytes: bytes | None = None

    def joining(self, first: Item) -> Callable[[Item], bool]:
        """Return what says of each waiting chunk whether it may be decoded together with those before it."""
        data_format, path = first.data.data_format, first.data.metadata.get("path")
        reading = first.reading
        if (
            data_format == "rejected"
            or reading in {"begins", "ends"}
            or not self.codec_for(data_format).joinable
        ):
            return lambda _: False
        size = len(first.data.raw_data)

        def joins(item: Item) -> bool:
            nonlocal size
            size += len(item.data.raw_data)
            same = item.data.data_format == data_format and item.data.metadata.get("path") == path
            return same and item.reading == reading and size <= JOINED_BYTES

        return joins

    def prepare(self, group: list[Item]) -> Prepared:
        """Return the group decoded and processed. Raises what no record can be blamed for."""
        first, last = group[0], group[-1]
        started = self.clock()
        decoded = self._decode(group)
        seconds = self.clock() - started
        if decoded.read != decoded.table.num_rows + len(decoded.rejected):
            raise FatalError(
                f"the {first.data.data_format} decoder counted {decoded.read} records but gave {decoded.table.num_rows} "
                f"rows and refused {len(decoded.rejected)}; nothing of chunk {first.seq} was stored. Please report this"
            )
        base = Counts(read=decoded.read, set_aside=len(decoded.rejected))
        self.decoding.add(decoded.read, decoded.table.num_rows, len(decoded.rejected), seconds)
        letters = self._decode_letters(decoded, first) if decoded.rejected else []
        parts = [self._process(way, decoded.table, base, first) for way in self.ways]
        return Prepared(
            first_seq=first.seq,
            seq=last.seq,
            position=last.data.position,
            schema=self.schema_bytes,
            size=sum(item.size for item in group),
            read=decoded.read,
            letters=letters,
            parts=parts,
            reading=first.reading,
        )

    def _decode(self, group: list[Item]) -> Decoded:
        data = group[0].data
        empty = self.schema.empty_table() if self.schema is not None else pa.table({})
        if data.data_format == "rejected":
            return Decoded(empty, 1, [Rejected(data.raw_data, str(data.metadata["reason"]), 0)])
        raw = join_bytes([item.data.raw_data for item in group if item.data.raw_data])
        if not raw:  # these only move the position
            return Decoded(empty, 0)
        return self._known(self.codec_for(data.data_format).decode(raw, self.schema))

    def _known(self, decoded: Decoded) -> Decoded:
        """Go on with the schema of what was decoded."""
        if self.schema is None or not decoded.table.schema.equals(self.schema):
            self.schema = decoded.table.schema.remove_metadata()
            self.schema_bytes = self.schema.serialize().to_pybytes()
        return decoded

    def _decode_letters(self, decoded: Decoded, first: Item) -> list[DeadLetter]:
        data = first.data
        whole = data.data_format != "rejected"
        return self.letters.make(
            decoded.rejected,
            "decode",
            first.seq,
            lambda item: _place(item, first),
            head=data.raw_data[: self.codec_for(data.data_format).preamble(data.raw_data)] if whole else b"",
            data_format=data.data_format if whole and data.data_format != self.own_format else "",
            whole=whole,
        )

    def _process(self, way: Way, table: pa.Table, base: Counts, first: Item) -> Part:
        if not table.num_columns:  # so far every record was refused, and nobody knows what columns there are
            return Part(table, [], base)
        applied = way.pipeline.apply(table, set_misfits_aside=self.set_misfits_aside)
        letters: list[DeadLetter] = []
        counts = base
        passed = ""
        for report, outcome in zip(way.steps, applied.steps, strict=True):
            counts += count_step(report, outcome)
            letters += self.letters.make(
                outcome.rejected,
                outcome.name,
                first.seq,
                lambda item: _place(item, first),
                route=way.name,
                passed=passed,
            )
            passed = outcome.name
        return Part(applied.table, letters, counts)

    def restore(self, schema: bytes | None) -> None:
        """Go on with the schema that a checkpoint kept."""
        self.schema_bytes = schema
        self.schema = None if schema is None else pa.ipc.read_schema(pa.py_buffer(schema))


def count_step(report: StepReport, outcome: StepOutcome) -> Counts:
    """Add what a step did to its report, and return what that means for the records on their way."""
    refused = len(outcome.rejected)
    report.add(outcome.rows_in, outcome.rows_out, refused, outcome.seconds)
    change = outcome.rows_out + refused - outcome.rows_in
    return Counts(added=max(0, change), filtered=max(0, -change), set_aside=refused)
