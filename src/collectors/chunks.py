"""What travels between the layers beside the specification's models: keys, counts, refused records, commits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import pyarrow as pa
from msgspec import Struct, field

from collectors.models import Position

__all__ = [
    "Attempt",
    "Checkpoint",
    "ChunkKey",
    "Counts",
    "DeadLetter",
    "Delivery",
    "Drift",
    "Reading",
    "Rejected",
    "drift_lines",
]

_SHOWN = 100
"""So much of a sample is on the line; `schema-history` has more."""
_SHOWN_COLUMNS = 20

Reading = Literal["", "begins", "within", "ends"]
"""Where a chunk stands in a reading of everything that its source has: that begins here or is whole now, both without rows, or
the rows are of the one that has begun. Empty: nobody has asked for it, or the rows are of no reading."""


class Rejected(Struct, frozen=True):
    """A record that decoding, a processor or a backend refused.

    `raw` is the record as that step saw it: the source's bytes from decoding, one JSON object later on. `record`
    is its number in the table or chunk at hand, from 0; `offset` its first byte in `raw_data`, where known.
    """

    raw: bytes
    reason: str
    record: int
    offset: int | None = None


class ChunkKey(Struct, frozen=True):
    """Names a commit: the flow (`pipeline/source`), the owner's epoch, and the last chunk number in it."""

    flow: str
    epoch: int
    seq: int


class Attempt(Struct, frozen=True):
    """One try to store rows that may have been tried before, by a process that died over it.

    `token` is the same for all tries of the same rows, and of no others: a UUID. A try may have more rows behind those of
    the one before; `ends` are the numbers of rows that each had, in ascending order.
    """

    token: str
    ends: list[int]


class Counts(Struct, frozen=True):
    """How many records came in and what became of them, on the way to one backend.

    `added` is what a processor made beyond its input (one record split into many).
    """

    read: int = 0
    added: int = 0
    stored: int = 0
    filtered: int = 0
    set_aside: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.read + other.read,
            self.added + other.added,
            self.stored + other.stored,
            self.filtered + other.filtered,
            self.set_aside + other.set_aside,
        )

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.read - other.read,
            self.added - other.added,
            self.stored - other.stored,
            self.filtered - other.filtered,
            self.set_aside - other.set_aside,
        )

    @property
    def in_flight(self) -> int:
        """What has been read and is accounted for nowhere yet; 0 at the end of a run, or something is wrong."""
        return self.read + self.added - self.stored - self.filtered - self.set_aside


class DeadLetter(Struct, frozen=True):
    """A record set aside, with everything needed to understand it and to try it again.

    `position` is where its chunk begins in the source; `record` its number in that chunk at that step. `route` is
    empty where the source has one way only. `attempt` counts the tries; from the second on, `seq` counts the chunks of
    replays and `origin` is the id of the letter that was replayed. `head` is what its decoder needs in front of `raw`,
    `data_format` that decoder where it is not the source's own; `whole` is false when the source could hand over only
    a part of the record. `passed` is the step before the one that refused it.
    """

    pipeline: str
    source: str
    run: str
    seq: int
    record: int
    step: str
    reason: str
    raw: bytes
    position: Position | None
    version: str
    created_at: datetime
    route: str = ""
    attempt: int = 1
    origin: str = ""
    head: bytes = b""
    data_format: str = ""
    whole: bool = True
    passed: str = ""

    @property
    def letter_id(self) -> str:
        """The same for the same record of the same chunk at the same step, so that reading it again does not double it."""
        chunk = f"{self.seq}" if self.attempt == 1 else f"r{self.seq}"
        step = f"{self.route}/{self.step}" if self.route else self.step
        return f"{self.source}:{chunk}:{step}:{self.record}"

    @property
    def key(self) -> tuple[str, str]:
        """The id and the run: unlike the id alone, never the same for two letters, whatever was deleted in between."""
        return self.letter_id, self.run


class Checkpoint(Struct, frozen=True):
    """How far a backend has stored a flow: the epoch of its owner, the last chunk, and the position behind it.

    `schema` is the decoder's Arrow schema in its IPC form, so that a restart decodes as the first run did.
    """

    epoch: int
    seq: int = 0
    position: Position | None = None
    schema: bytes | None = None


class Delivery(Struct, frozen=True):
    """What one commit stores: rows, the letters set aside on their way, their counts, and the position behind.

    It covers the chunks `first_seq` to `key.seq`. The backend must refuse it unless its stored seq is
    `first_seq - 1` and its epoch is `key.epoch`. `resolved` are letters of earlier runs that this delivery replays: a
    backend that keeps letters deletes them in the same commit, as far as it has them.
    """

    key: ChunkKey
    first_seq: int
    table: pa.Table
    position: Position | None
    schema: bytes | None
    run: str
    counts: Counts
    dead_letters: list[DeadLetter] = field(default_factory=list)
    resolved: list[DeadLetter] = field(default_factory=list)
    reading: Reading = ""


class Drift(Struct, frozen=True):
    """A difference between the columns of a table and of rows that were to be stored in it, in one column of one commit.

    `existing` is the type that the table had, None where it had no such column; `brought` the one that it got or would
    have needed. `rows` of the commit had a value to which that matters, `samples` are some of them as JSON, without what
    `discard-column` leaves out, `location` (`flow:seq`) is where they came from. `action` says what was done: the column
    was `made` with the table, `added` or `widened`, or `changed` where files keep the types of their rows; values were
    `left out`; rows were `set aside`; the commit was `refused`.
    """

    table: str
    column: str
    existing: str | None
    brought: str
    action: str
    rows: int
    samples: list[str]
    location: str
    at: datetime

    def what(self) -> str:
        """Return the difference, without what was done about it."""
        if self.existing is None:
            return f"column '{self.column}': rows bring it as {self.brought}, and the table does not have it"
        return f"column '{self.column}': rows bring {self.brought}, and the table has {self.existing}"

    def text(self, most: int | None = None) -> str:
        """Return the drift in a line, with so many characters of the first sample, all that there are by default."""
        done = {
            "added": f"new column '{self.column}' of type {self.brought}",
            "widened": f"column '{self.column}' is {self.brought} now, it was {self.existing}",
            "changed": f"column '{self.column}' is {self.brought} now, it was {self.existing}: files have both",
            "left out": f"{self.what()}; left out",
            "set aside": f"{self.what()}; such rows are set aside",
        }.get(self.action, self.what())
        shown = self.samples[0] if self.samples else ""
        if most is not None and len(shown) > most:
            shown = f"{shown[:most]}…"
        return f"table '{self.table}': {done}{f', for example {shown}' if shown else ''} ({self.location})"


def drift_lines(drifts: Sequence[Drift]) -> list[str]:
    """Return what one commit has found, for people: columns that were added to one table together are one line."""
    added: dict[tuple[str, str], list[Drift]] = {}
    for drift in drifts:
        if drift.action == "added":
            added.setdefault((drift.table, drift.location), []).append(drift)
    together = {place: found for place, found in added.items() if len(found) > 1}
    lines = [
        f"table '{table}': {len(found)} new columns: "
        + ", ".join(f"'{drift.column}' {drift.brought}" for drift in found[:_SHOWN_COLUMNS])
        + (f" and {len(found) - _SHOWN_COLUMNS} more" if len(found) > _SHOWN_COLUMNS else "")
        + f" ({location})"
        for (table, location), found in together.items()
    ]
    alone = [
        drift for drift in drifts if drift.action != "added" or (drift.table, drift.location) not in together
    ]
    return lines + [drift.text(_SHOWN) for drift in alone]
