"""A dead letter as a row of a table: what every SQL store of letters has in common."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from collectors.chunks import DeadLetter

__all__ = ["LETTER_COLUMNS", "letter_values", "read_letter"]

LETTER_COLUMNS = (
    "letter_id",
    "pipeline",
    "source",
    "run",
    "seq",
    "record",
    "step",
    "reason",
    "raw",
    "position",
    "version",
    "created_at",
    "route",
    "attempt",
    "origin",
    "head",
    "data_format",
    "whole",
    "passed",
)
"""The columns in the order of `letter_values`: text, but integer `seq`, `record`, `attempt`, `whole`, binary `raw`, `head`."""


def letter_values(letter: DeadLetter) -> tuple[Any, ...]:
    """Return the letter as the values of its columns."""
    position = None if letter.position is None else msgspec.json.encode(letter.position).decode()
    return (
        letter.letter_id,
        letter.pipeline,
        letter.source,
        letter.run,
        letter.seq,
        letter.record,
        letter.step,
        letter.reason.encode("utf-8", "backslashreplace").decode(),
        letter.raw,
        position,
        letter.version,
        letter.created_at.isoformat(),
        letter.route,
        letter.attempt,
        letter.origin,
        letter.head,
        letter.data_format,
        int(letter.whole),
        letter.passed,
    )


def read_letter(values: Sequence[Any]) -> DeadLetter:
    """Return the letter that has these values in its columns."""
    row = dict(zip(LETTER_COLUMNS, values, strict=True))
    del row["letter_id"]  # it follows from the others
    position = None if row["position"] is None else msgspec.json.decode(row["position"], type=dict)
    return DeadLetter(
        **row
        | {
            "raw": bytes(row["raw"]),
            "head": bytes(row["head"]),
            "position": position,
            "created_at": datetime.fromisoformat(row["created_at"]),
            "whole": bool(row["whole"]),
        }
    )
