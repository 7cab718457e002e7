"""`collectors schema-history`: with which columns each table of a pipeline was made, and what became of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collectors.chunks import Drift
    from collectors.config.model import PipelineConfig

__all__ = ["command"]

EPILOG = """Example: collectors schema-history readings.yaml

A version of a table is what it was made with, or what one commit has changed in it."""


def command(
    pipeline: Annotated[Path, typer.Argument(help="The pipeline file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show with which columns each table was made, how they changed, with which rows, and what was left out."""
    import asyncio

    import msgspec
    from msgspec.structs import asdict

    from collectors.config.load import load

    found = asyncio.run(_histories(load(pipeline)))
    if as_json:
        for backend, drifts in found.items():
            for version, drift in _versions(drifts):
                line = {"storage": backend, "version": version, **asdict(drift)}
                typer.echo(msgspec.json.encode(line).decode())
        return
    if not found:
        typer.echo("no storage of this pipeline keeps the columns of its tables")
    for backend, drifts in found.items():
        _print(backend, drifts)


async def _histories(config: PipelineConfig) -> dict[str, list[Drift]]:
    """Return what each storage has written down about the tables of this pipeline."""
    from collectors.storage.base import Backend, KeepsSchema

    found: dict[str, list[Drift]] = {}
    for name, component in config.backends.items():
        backend: Backend[Any] = component.make()
        if isinstance(backend, KeepsSchema):
            await backend.connect()
            try:
                drifts = await backend.call(backend.schema_history)
            finally:
                await backend.disconnect()
            tables = {drift.table for drift in drifts if drift.location.startswith(f"{config.name}/")}
            found[name] = [drift for drift in drifts if drift.table in tables]
    return found


def _versions(drifts: list[Drift]) -> list[tuple[int, Drift]]:
    """Return each drift with the version that the table had behind it."""
    versions: dict[str, int] = {}
    last: dict[str, str] = {}
    numbered = []
    for drift in drifts:
        if drift.action != "left out" and last.get(drift.table) != drift.location:
            versions[drift.table] = versions.get(drift.table, 0) + 1
            last[drift.table] = drift.location
        numbered.append((versions.get(drift.table, 0), drift))
    return numbered


def _print(backend: str, drifts: list[Drift]) -> None:
    from rich.table import Table
    from rich.text import Text

    from collectors.terminal import Console

    console = Console()
    console.rule(Text(f"storage {backend}", style="bold"), align="left")
    if not drifts:
        console.print("no table was made and no column has changed yet")
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("table", "version", "when (UTC)", "column", "was", "rows bring", "", "from"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "version" else "left")
    styles = {"made": "", "added": "green", "widened": "yellow", "left out": "red"}
    for version, drift in _versions(drifts):
        table.add_row(
            *(Text(drift.table), f"{version}", f"{drift.at:%Y-%m-%d %H:%M:%S}", Text(drift.column)),
            *(Text(drift.existing or "–"), Text(drift.brought)),
            Text(drift.action, style=styles.get(drift.action, "")),
            Text(drift.location),
        )
    console.print(table)
    for _, drift in _versions(drifts):
        if drift.samples:
            console.print(Text(f"{drift.table}.{drift.column}, first with: {drift.samples[0]}", style="dim"))
