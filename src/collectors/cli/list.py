"""`collectors list`: which sources, processors, storage and formats there are."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import typer

__all__ = ["KindName", "command"]

EPILOG = "Example: collectors list --kind source"

KindName = Literal["source", "processor", "backend", "codec"]


def command(
    kind: Annotated[KindName | None, typer.Option(help="Only this kind.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """List the sources, processors, backends (storage) and codecs (formats) that there are."""
    import json

    from msgspec.structs import asdict

    from collectors import registry

    found = [entry for each in ([kind] if kind else get_args(KindName)) for entry in registry.entries(each)]
    if as_json:
        typer.echo(json.dumps([asdict(entry) for entry in found], indent=2))
        return
    from rich.table import Table

    from collectors.terminal import Console

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("kind", "type", "description", "needs"):
        table.add_column(column, no_wrap=column in {"kind", "type"})
    for entry in found:
        needs = f"pip install 'collectors-io[{entry.extra}]'" if entry.extra else ""
        table.add_row(entry.kind, entry.name, entry.summary, needs)
    console = Console(markup=False)
    console.print(table)
    console.print("collectors describe TYPE shows the settings of one", style="dim")
