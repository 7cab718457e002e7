"""How commands show rows: as a table, as blocks where a table would not fit, or as JSON for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collectors.terminal import Console

__all__ = ["print_rows"]

WIDEST_CELL = 40
NOTHING = "–"


def print_rows(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print rows as a table, as one block a row where the table would not fit, or as one JSON object a row.

    Columns that have no value in any of the rows are left out of the table, and that is said.
    """
    import msgspec
    from rich.text import Text

    from collectors.terminal import Console

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
    empty = len(names) - len(shown)
    columns = "1 column without values is" if empty == 1 else f"{empty} columns without values are"
    left_out = f"; {columns} not shown" if empty else ""
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
