"""`collectors query`: look at what a pipeline has stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from collectors.settings import Settings

__all__ = ["command"]

EPILOG = """Example: collectors query readings.yaml --where "temperature>30" --where "status=ok" --sort -temperature --limit 5"""
WIDEST_CELL = 40
NOTHING = "–"
_OPERATORS = ("!=", "<=", ">=", "=", "<", ">", "~")


def command(
    pipeline: Annotated[Path, typer.Argument(help="The pipeline file.", show_default=False)],
    storage: Annotated[str | None, typer.Option(help="Which storage, by its id; default: the first.")] = None,
    table: Annotated[
        str | None, typer.Option(help="Which table, where each source has its own; its source's id.")
    ] = None,
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
    from dataclasses import replace

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
    component = config.backends[name]
    if table is not None:
        component = replace(component, settings=_with_table(component.settings, table, name))
    rows = asyncio.run(_query(component.make(), criteria))
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


def _with_table(settings: Settings, table: str, name: str) -> Settings:
    from collectors.errors import ConfigurationError

    if "table" not in type(settings).model_fields:
        raise ConfigurationError(f"--table: the storage '{name}' has no tables")
    return settings.model_copy(update={"table": table})


async def _query(backend: Any, criteria: Any) -> list[dict[str, Any]]:
    await backend.connect()
    try:
        rows: list[dict[str, Any]] = await backend.query(criteria)
    finally:
        await backend.disconnect()
    return rows


def print_rows(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print rows as a table, as one block a row where the table would not fit, or as one JSON object a row.

    Columns that have no value in any of the rows are left out of the table, and that is said.
    """
    import msgspec
    from rich.console import Console
    from rich.text import Text

    if as_json:
        for row in rows:
            typer.echo(msgspec.json.encode(row, enc_hook=str).decode())
        return
    console = Console()
    if not rows:
        console.print("no rows")
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = [name for name in names if any(row.get(name) is not None for row in rows)]
    cells = [[_text(row.get(name)) for name in shown] for row in rows]
    widths = [max(len(name), *(len(row[place]) for row in cells)) for place, name in enumerate(shown)]
    if sum(min(width, WIDEST_CELL) + 2 for width in widths) <= console.width:
        _print_table(rows, shown, cells, console)
    else:
        _print_blocks(shown, cells, console)
    left_out = f"; {len(names) - len(shown)} columns without values are not shown" if shown != names else ""
    console.print(Text(f"{len(rows)} row{'s' if len(rows) != 1 else ''}{left_out}", style="dim"))


def _print_table(
    rows: list[dict[str, Any]], names: list[str], cells: list[list[str]], console: Console
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        numeric = all(isinstance(row.get(name), (int, float, type(None))) for row in rows)
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style="dim" if cell == NOTHING else "") for cell in row))
    console.print(table)


def _print_blocks(names: list[str], cells: list[list[str]], console: Console) -> None:
    from rich.text import Text

    indent = max(len(name) for name in names)
    for row in cells:
        for name, cell in zip(names, row, strict=True):
            if cell != NOTHING:
                console.print(Text.assemble((f"{name:>{indent}}  ", "dim"), cell), soft_wrap=True)
        console.print()


def _text(value: Any) -> str:
    from datetime import datetime

    if value is None:
        return NOTHING
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.1f}"
    return str(value)
