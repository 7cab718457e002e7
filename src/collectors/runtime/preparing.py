"""The middle hops, in a worker thread: bytes are decoded, then each route's processors change the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from collectors.chunks import Counts, DeadLetter, Rejected
from collectors.codecs.base import Codec, Decoded
from collectors.errors import FatalError
from collectors.models import CollectedData, Position
from collectors.processing.pipeline import Pipeline
from collectors.runtime.batching import join_bytes
from collectors.runtime.ledger import StepReport

__all__ = ["Item", "Letters", "Part", "Prepared", "Preparer"]

RAW_LIMIT = 64 * 1024


@dataclass(slots=True)
class Item:
    """A chunk on its way, with its number and the position before it."""

    seq: int
    since: Position | None
    data: CollectedData
    size: int


@dataclass(slots=True)
class Part:
    """What goes to the backends of one route: rows, the letters of its steps, and the counts of both."""

    table: pa.Table
    letters: list[DeadLetter]
    counts: Counts


@dataclass(slots=True)
class Prepared:
    """A group of chunks, decoded and processed for every route; `letters` are those of decoding."""

    first_seq: int
    seq: int
    position: Position | None
    schema: bytes | None
    size: int
    read: int
    letters: list[DeadLetter]
    parts: list[Part]
    takers: int = 0


@dataclass(frozen=True, slots=True)
class Letters:
    """Makes dead letters from what a step refused."""

    pipeline: str
    source: str
    run: str
    version: str
    now: Callable[[], datetime]

    def make(
        self,
        rejected: list[Rejected],
        step: str,
        seq: int,
        position: Position | None,
        metadata: dict[str, Any],
    ) -> list[DeadLetter]:
        """Return one letter a record; where the chunk says which file it is from, the position does too."""
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
                raw=item.raw[:RAW_LIMIT],
                position=_place(item, position, metadata),
                version=self.version,
                created_at=created,
            )
            for item in rejected
        ]


def _place(item: Rejected, position: Position | None, metadata: dict[str, Any]) -> Position | None:
    if "path" not in metadata:
        return position
    place: Position = {"path": metadata["path"]}
    if "offset" in metadata:
        place["offset"] = metadata["offset"] + (item.offset or 0)
    return place


@dataclass(slots=True)
class Preparer:
    """Decodes and processes; one a flow, used by one thread at a time, since the schema grows from chunk to chunk."""

    codec_for: Callable[[str], Codec[Any]]
    routes: list[Pipeline]
    letters: Letters
    schema: pa.Schema | None
    steps: list[list[StepReport]] = field(default_factory=list)
    _schema_bytes: bytes | None = None

    def joins(self, group: list[Item], item: Item) -> bool:
        """Return whether a waiting chunk may be decoded together with the group before it."""
        first = group[0].data
        return (
            item.data.data_format == first.data_format
            and first.data_format != "rejected"
            and item.data.metadata.get("path") == first.metadata.get("path")
            and sum(member.size for member in group) + item.size <= 4 * 2**20
            and self.codec_for(first.data_format).joinable
        )

    def prepare(self, group: list[Item]) -> Prepared:
        """Return the group decoded and processed. Raises what no record can be blamed for."""
        first, last = group[0], group[-1]
        decoded = self._decode(group)
        if decoded.read != decoded.table.num_rows + len(decoded.rejected):
            raise FatalError(
                f"the {first.data.data_format} decoder counted {decoded.read} records but gave {decoded.table.num_rows} "
                f"rows and refused {len(decoded.rejected)}; nothing of chunk {first.seq} was stored. Please report this"
            )
        letters = self.letters.make(decoded.rejected, "decode", first.seq, first.since, first.data.metadata)
        base = Counts(read=decoded.read, set_aside=len(decoded.rejected))
        parts = [self._process(number, decoded.table, base, first) for number in range(len(self.routes))]
        return Prepared(
            first_seq=first.seq,
            seq=last.seq,
            position=last.data.position,
            schema=self._schema_bytes,
            size=sum(item.size for item in group),
            read=decoded.read,
            letters=letters,
            parts=parts,
        )

    def _decode(self, group: list[Item]) -> Decoded:
        data = group[0].data
        if data.data_format == "rejected":
            empty = self.schema.empty_table() if self.schema is not None else pa.table({})
            return Decoded(empty, 1, [Rejected(data.raw_data, str(data.metadata["reason"]), 0)])
        codec = self.codec_for(data.data_format)
        decoded = codec.decode(join_bytes([item.data.raw_data for item in group]), self.schema)
        if self.schema is None or not decoded.table.schema.equals(self.schema):
            self.schema = decoded.table.schema.remove_metadata()
            self._schema_bytes = self.schema.serialize().to_pybytes()
        return decoded

    def _process(self, number: int, table: pa.Table, base: Counts, first: Item) -> Part:
        applied = self.routes[number].apply(table)
        letters: list[DeadLetter] = []
        counts = base
        for report, outcome in zip(self.steps[number], applied.steps, strict=True):
            refused = len(outcome.rejected)
            change = outcome.rows_out + refused - outcome.rows_in
            counts += Counts(added=max(0, change), filtered=max(0, -change), set_aside=refused)
            report.rows_in += outcome.rows_in
            report.rows_out += outcome.rows_out
            report.set_aside += refused
            report.seconds += outcome.seconds
            letters += self.letters.make(outcome.rejected, outcome.name, first.seq, first.since, {})
        return Part(applied.table, letters, counts)

    def restore(self, schema: bytes | None) -> None:
        """Go on with the schema that a checkpoint kept."""
        self._schema_bytes = schema
        self.schema = None if schema is None else pa.ipc.read_schema(pa.py_buffer(schema))
