"""What python.yaml uses: a source that is a generator, and a processor that is a function of one record."""

from __future__ import annotations

from collections.abc import Iterator


def stations() -> Iterator[dict[str, object]]:
    """Yield one record a station; a real one would ask an API."""
    for number, (name, celsius) in enumerate([("harbour", 11.5), ("hill", 7.0), ("park", 22.5)]):
        yield {"station": number, "name": name, "celsius": celsius}


def with_comfort(record: dict[str, float]) -> dict[str, object] | None:
    """Add a column; returning None would drop the record, raising would set it aside."""
    return {**record, "comfortable": 18 <= record["celsius"] <= 26}
