"""`collectors guarantee`: how safely each source's records reach each storage, and why; before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collectors.runtime.guarantee import Guarantee
    from collectors.terminal import Console

__all__ = ["command"]

EPILOG = """Example: collectors guarantee readings.yaml --require exactly-once

Exit codes: 0 known (and as good as required), 1 less than required, 2 bad configuration."""

Required = Literal["exactly-once", "exactly-once-from-hand-over", "exactly-once-from-spool", "at-least-once"]


def command(
    pipeline: Annotated[Path, typer.Argument(help="The pipeline file.", show_default=False)],
    require: Annotated[
        Required | None,
        typer.Option(
            help="Exit with 1 when a storage gets less. at-least-once: nothing may be lost. "
            "The others: nothing may be doubled, nor lost from there on.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show how safely each source's records reach each storage, and why; opens and connects nothing."""
    import json

    from collectors.config.load import load
    from collectors.runtime.guarantee import Level, guarantees
    from collectors.terminal import Console

    levels: dict[str, Level] = {
        "exactly-once": Level.EXACTLY_ONCE,
        "exactly-once-from-hand-over": Level.FROM_HAND_OVER,
        "exactly-once-from-spool": Level.FROM_SPOOL,
        "at-least-once": Level.AT_LEAST_ONCE,
    }
    config = load(pipeline)
    edges = guarantees(config)
    below = [edge for edge in edges if require is not None and not edge.meets(levels[require])]
    if as_json:
        told = {"pipeline": config.name, "required": require, "met": not below}
        typer.echo(json.dumps({**told, "edges": [edge.as_dict() for edge in edges]}))
    else:
        console = Console()
        for edge in edges:
            _print(edge, console, below=edge in below)
        if below:
            names = ", ".join(f"{edge.source} → {edge.backend}" for edge in below)
            console.print(f"less than {require}: {names}", style="red", highlight=False, soft_wrap=True)
    raise typer.Exit(1 if below else 0)


def _print(edge: Guarantee, console: Console, *, below: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    style = "red" if below else "yellow" if edge.may_lose or edge.may_double else "green"
    head = Text.assemble((f"{edge.source} → {edge.backend}", "bold"), "  ", (edge.level.value, style))
    lines = [
        ("but", edge.but),
        ("why", "; ".join(edge.why)),
        ("dead letters", edge.letters),
        ("power cut", edge.power_cut),
        ("disk full", edge.disk_full),
        ("second process", edge.second_process),
        ("better with", edge.better),
    ]
    if not console.is_terminal:
        console.print(head, soft_wrap=True)
        for label, text in lines:
            if text:
                console.print(Text(f"  {label}: {text}"), soft_wrap=True)
        return
    head.append(f"  {edge.where}", style="dim")
    console.print(head)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, text in lines:
        if text:
            table.add_row(f"  {label}", Text(text, style=style if label == "but" else ""))
    console.print(table)
    console.print()
