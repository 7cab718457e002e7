"""`collectors query`: look at what a pipeline has stored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["command"]

EPILOG = """Example: collectors query readings.yaml --where "temperature>30" --where "status=ok" --sort -temperature --limit 5"""
_OPERATORS = ("!=", "<=", ">=", "=", "<", ">", "~")


def command(
    pipeline: Annotated[Path, typer.Argument(help="The pipeline file.", show_default=False)],
    storage: Annotated[str | None, typer.Option(help="Which storage, by its id; default: the first.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="column OPERATOR value, with = != < <= > >= or ~ (like); may be given several times."
        ),
    ] = None,
    sort: Annotated[str | None, typer.Option(help="A column; with a leading - descending.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many rows.", min=0)] = 20,
    offset: Annotated[int, typer.Option(help="Skip this many rows.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a row.")] = False,
) -> None:
    """Look at what a pipeline has stored."""
    import asyncio

    from collectors.config.load import load
    from collectors.errors import ConfigurationError
    from collectors.models import QueryCriteria

    config = load(pipeline)
    name = storage or next(iter(config.backends))
    if name not in config.backends:
        raise ConfigurationError(
            f"no storage '{name}' in {pipeline}; there are: {', '.join(config.backends)}"
        )
    filters: dict[str, Any] = {}
    for condition in where or []:
        column, operator, value = parse_condition(condition)
        filters.setdefault(column, {})[operator] = value
    criteria = QueryCriteria(filters, sort, limit, offset)
    rows = asyncio.run(_query(config.backends[name].make(), criteria))
    print_rows(rows, as_json=as_json)


def parse_condition(text: str) -> tuple[str, str, Any]:
    """Return column, operator and value of `temperature>=30`. Raises ConfigurationError."""
    from collectors.errors import ConfigurationError

    places = [
        (text.find(operator), -len(operator), operator) for operator in _OPERATORS if operator in text[1:]
    ]
    if not places:
        raise ConfigurationError(
            f"--where '{text}': expected column, operator, value, for example temperature>=30"
        )
    place, _, operator = min(places)
    column, value = text[:place].strip(), text[place + len(operator) :].strip()
    return column, "like" if operator == "~" else operator, _value(value)


def _value(text: str) -> Any:
    """Return a number, true, false or null as what it is; anything else, and what is in quotes, as text."""
    import json

    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, (dict, list, str)) else value


async def _query(backend: Any, criteria: Any) -> list[dict[str, Any]]:
    await backend.connect()
    try:
        rows: list[dict[str, Any]] = await backend.query(criteria)
    finally:
        await backend.disconnect()
    return rows


def print_rows(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print rows as a table, or one JSON object a row."""
    import msgspec
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if as_json:
        for row in rows:
            typer.echo(msgspec.json.encode(row, enc_hook=str).decode())
        return
    console = Console()
    if not rows:
        console.print("no rows")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for name in columns:
        numeric = all(isinstance(row.get(name), (int, float, type(None))) for row in rows)
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    console.print(table)
    console.print(Text(f"{len(rows)} row{'s' if len(rows) != 1 else ''}", style="dim"))


def _cell(value: Any) -> Any:
    from datetime import datetime

    from rich.text import Text

    if value is None:
        return Text("–", style="dim")
    if isinstance(value, datetime):
        return Text(value.isoformat(sep=" ", timespec="seconds"))
    if isinstance(value, float):
        return Text(f"{value:.6g}" if abs(value) < 1e6 else f"{value:.1f}")
    return Text(str(value))
