"""What should be stored, what is, and the difference; knows nothing of how it got there.

Rows are compared as sets with repetition, backend by backend, and so are dead letters. Numbers, times and bytes are
compared by their JSON form, so that a column's type does not matter.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from collectors.config.model import PipelineConfig
from collectors.models import QueryCriteria
from collectors.runtime.dead_letters import read_letters

__all__ = ["Contents", "Difference", "changing_columns", "compare", "read_contents", "write_contents"]

LETTERS = "dead letters"
_ALL = QueryCriteria({}, None, None, None)
_encoder = msgspec.json.Encoder(enc_hook=str, order="sorted")

Contents = dict[str, Counter[bytes]]
"""The rows of each backend, and the dead letters of all, in their JSON form."""


class Difference(Struct):
    """What is wrong with one store; the lists hold the rows with how often they are missing or too many."""

    expected: int = 0
    found: int = 0
    lost: Counter[bytes] = field(default_factory=Counter)
    doubled: Counter[bytes] = field(default_factory=Counter)
    unknown: Counter[bytes] = field(default_factory=Counter)


async def write_contents(config: PipelineConfig, path: Path) -> dict[str, Any]:
    """Write what is stored to a file, for `read_contents`; done in a child."""
    with path.open("wb") as file:
        for name, component in config.backends.items():
            for settings in _tables(config, name, component.settings):
                backend = component.cls(settings)
                await backend.connect()
                for row in await backend.query(_ALL):
                    file.write(name.encode() + b"\t" + _canonical(row) + b"\n")
                await backend.disconnect()
        for letter in await read_letters(config):
            row = {"source": letter.source, "step": letter.step, "raw": letter.raw}
            file.write(LETTERS.encode() + b"\t" + _canonical(row) + b"\n")
    return {}


def read_contents(path: Path, names: list[str], without: dict[str, set[str]]) -> Contents:
    """Read what `write_contents` wrote, without some columns."""
    contents: Contents = {name: Counter() for name in [*names, LETTERS]}
    for line in path.read_bytes().splitlines():
        name, _, row = line.partition(b"\t")
        left_out = without.get(name.decode())
        if left_out:
            kept = {
                column: value for column, value in msgspec.json.decode(row).items() if column not in left_out
            }
            row = _encoder.encode(kept)
        contents[name.decode()][row] += 1
    return contents


def changing_columns(one: Contents, other: Contents) -> dict[str, set[str]]:
    """Return the columns whose values differ between two contents that should be the same."""
    changing = {}
    for name, rows in one.items():
        if rows != other[name]:
            left, right = _columns(rows), _columns(other[name])
            found = {column for column in {*left, *right} if left.get(column) != right.get(column)}
            changing[name] = found
    return changing


def compare(found: Contents, least: Contents, most: Contents) -> dict[str, Difference]:
    """Return for each store what is missing of `least`, what is more than in `most`, and what is in neither."""
    differences = {}
    for name, rows in found.items():
        too_many = rows - most[name]
        differences[name] = Difference(
            expected=least[name].total(),
            found=rows.total(),
            lost=least[name] - rows,
            doubled=Counter({row: count for row, count in too_many.items() if row in most[name]}),
            unknown=Counter({row: count for row, count in too_many.items() if row not in most[name]}),
        )
    return differences


def _columns(rows: Counter[bytes]) -> dict[str, Counter[bytes]]:
    columns: dict[str, Counter[bytes]] = {}
    for row, count in rows.items():
        for column, value in msgspec.json.decode(row).items():
            columns.setdefault(column, Counter())[_encoder.encode(value)] += count
    return columns


def _tables(config: PipelineConfig, name: str, settings: Any) -> list[Any]:
    """Return the settings to read each table of a backend with: one for each source where the name says so."""
    if "{source}" not in str(getattr(settings, "table", "")):
        return [settings]
    sources = {source for route in config.routes if name in route.backends for source in route.sources}
    return [
        settings.model_copy(update={"table": settings.table.replace("{source}", source)})
        for source in sorted(sources)
    ]


def _canonical(row: dict[str, Any]) -> bytes:
    """Return a row as JSON: null is as good as no column, and 20.0 as good as 20."""
    return _encoder.encode(
        {
            column: int(value) if isinstance(value, float) and value.is_integer() else value
            for column, value in row.items()
            if value is not None
        }
    )
