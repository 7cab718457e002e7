"""`collectors check`: connect to both ends, read a sample, show what would be stored; write nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collectors.runtime.sampling import Sample
    from collectors.terminal import Console

__all__ = ["command"]

EPILOG = """Example: collectors check readings.yaml

Exit codes: 0 the pipeline can run, 1 something is in the way of a run, 2 bad configuration."""


def command(
    pipeline: Annotated[Path, typer.Argument(help="The pipeline file.", show_default=False)],
    rows: Annotated[int, typer.Option(help="How many rows of the sample to show.", min=0)] = 5,
    timeout: Annotated[str, typer.Option(help="How long to wait for a source's first records.")] = "10s",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Connect to both ends, read a sample, show the schema that would be stored; write nothing."""
    import asyncio
    import json

    from collectors.config.load import load
    from collectors.errors import ConfigurationError
    from collectors.runtime.sampling import sample
    from collectors.settings import parse_duration
    from collectors.terminal import Console

    try:
        seconds = parse_duration(timeout)
    except ValueError as error:
        raise ConfigurationError(f"--timeout: {error}") from error
    samples = asyncio.run(sample(load(pipeline), seconds))
    if as_json:
        typer.echo(json.dumps([_as_dict(item) for item in samples]))
    else:
        console = Console()
        for item in samples:
            _print(item, console, rows)
    failed = [item for item in samples if item.problem]
    raise typer.Exit(0 if not failed else 2 if all(item.misconfigured for item in failed) else 1)


def _as_dict(item: Sample) -> dict[str, Any]:
    return {
        "source": item.source,
        "problem": item.problem,
        "note": item.note,
        "read": item.read,
        "set_aside": [{"step": step, "reason": reason} for step, reason in item.refused],
        "storage": [
            {
                "backend": preview.backend,
                "where": preview.where,
                "changes": preview.lines,
                "problem": preview.problem,
            }
            for preview in item.previews
        ],
    }


def _print(item: Sample, console: Console, rows: int) -> None:
    from rich.text import Text

    from collectors.cli._rows import print_rows

    console.rule(Text(f"source {item.source}", style="bold"), align="left")
    if item.read is not None:
        console.print(f"sample: {item.read:,} records read, {len(item.refused):,} of them would be set aside")
    for step, reason in item.refused[:3]:
        console.print(Text(f"  {step}: {reason}", style="yellow"), soft_wrap=True)
    for preview in item.previews:
        console.print(Text.assemble((f"→ {preview.backend}", "bold"), f"  {preview.where}"))
        for line in preview.lines:
            style = {"+": "green", "!": "red"}.get(line[:1], "")
            console.print(Text(f"  {line}", style=style), soft_wrap=True)
        if rows and preview.rows:
            print_rows(preview.rows[:rows], as_json=False)
        if preview.problem:
            console.print(Text(f"  {preview.problem}", style="red"), soft_wrap=True)
    if item.note:
        console.print(Text(item.note, style="yellow"), soft_wrap=True)
    if item.problem:
        if not any(preview.problem for preview in item.previews):
            console.print(Text(item.problem, style="red"), soft_wrap=True)
        console.print(Text("not ready; nothing was written", style="red"))
    else:
        console.print(Text("ready; nothing was written", style="green"))
