"""`collectors runs`: what every run of a pipeline did, also of the one that runs now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collectors.runtime.runs import Run
    from collectors.terminal import Console

__all__ = ["app"]

app = typer.Typer(
    help="What every run of a pipeline did, also of the one that runs now.",
    no_args_is_help=True,
    epilog="Example: collectors runs list readings.yaml",
)
PipelineFile = Annotated[Path, typer.Argument(help="The pipeline file.", show_default=False)]
WIDE = 120
"""Columns of a terminal on which whole run ids and dates fit; elsewhere their ends are shown."""
STYLES = {"done": "green", "running": "cyan", "stopped": "green"}


@app.command("list", epilog="Example: collectors runs list readings.yaml --limit 5")
def list_command(
    pipeline: PipelineFile,
    limit: Annotated[int, typer.Option(help="At most this many, the newest.", min=1)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List the runs, the newest last. A run whose process died is `crashed`."""
    import msgspec
    from rich.table import Table
    from rich.text import Text

    from collectors.terminal import Console

    runs = _runs(pipeline)
    if as_json:
        for run in runs[-limit:]:
            typer.echo(msgspec.json.encode(run.as_dict()).decode())
        return
    if not runs:
        typer.echo("no runs")
        return
    console = Console()
    wide = console.width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2 if wide else 1, 0, 0))
    for heading in ("run", "status", "started", "took", "read", "stored", "filtered", "set aside", "peak"):
        table.add_column(
            heading, justify="left" if heading in {"run", "status", "started"} else "right", no_wrap=True
        )
    for run in runs[-limit:]:
        status = run.status if run.kind == "run" else f"{run.kind}: {run.status}"
        row = [run.run, status, *_cells(run)]
        if not wide:
            row[0], row[2] = run.run.rpartition("-")[2], row[2][5:-3]
        table.add_row(row[0], Text(status, style=STYLES.get(run.status, "red")), *row[2:])
    console.print(table)
    if len(runs) > limit:
        typer.echo(f"{len(runs) - limit:,} older ones are not shown; --limit shows more")


@app.command("show", epilog="Example: collectors runs show readings.yaml")
def show_command(
    pipeline: PipelineFile,
    run_id: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="The id that `list` shows, or its end; default: the newest."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show one run: where its records went, source by source and step by step."""
    import msgspec

    from collectors.errors import ConfigurationError
    from collectors.terminal import Console

    runs = [run for run in _runs(pipeline) if run_id is None or run.run.endswith(run_id)]
    if not runs:
        raise ConfigurationError(
            f"no run '{run_id}'; see: collectors runs list {pipeline}" if run_id else "there was no run yet"
        )
    if run_id is not None and len(runs) > 1:
        several = ", ".join(run.run for run in runs[:5])
        raise ConfigurationError(f"'{run_id}' is the end of more than one run: {several}; give more of it")
    if as_json:
        typer.echo(msgspec.json.encode(runs[-1].as_dict()).decode())
    else:
        _print(runs[-1], Console())


def _runs(pipeline: Path) -> list[Run]:
    import asyncio

    from collectors.config.load import load
    from collectors.runtime.runs import read_runs

    return asyncio.run(read_runs(load(pipeline)))


def _cells(run: Run) -> list[str]:
    from collectors.cli._progress import file_size

    flows = run.report["flows"]
    totals = [
        sum(max((edge[name] for edge in flow["storage"]), default=0) for flow in flows)
        for name in ("read", "stored", "filtered", "set_aside")
    ]
    took = (run.ended_at or run.seen_at) - run.started_at
    return [
        f"{run.started_at.astimezone():%Y-%m-%d %H:%M:%S}",
        _duration(took.total_seconds()),
        *(f"{total:,}" for total in totals),
        file_size(run.report["peak_memory_bytes"]),
    ]


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _print(run: Run, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    started, took, *_ = _cells(run)
    console.print(
        Text.assemble(
            (run.run, "bold"),
            "  ",
            (run.status, STYLES.get(run.status, "red")),
            f"  {run.kind} of pipeline version {run.version}, started {started}, took {took}",
        ),
        soft_wrap=True,
    )
    if run.reason:
        console.print(Text(run.reason, style="red"), soft_wrap=True)
    for flow in run.report["flows"]:
        console.print()
        console.print(Text.assemble((flow["source"], "bold"), f"  {flow['status']}"))
        for edge in flow["storage"]:
            console.print(Text(f"  → {edge['backend']}  {_equation(edge, flow)}"), soft_wrap=True)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for heading in ("  step", "in", "out", "filtered", "added", "set aside", "seconds"):
            table.add_column(heading, justify="left" if heading == "  step" else "right")
        for step in flow["steps"]:
            counts = (f"{step[name]:,}" for name in ("in", "out", "filtered", "added", "set_aside"))
            table.add_row(f"  {step['step']}", *counts, f"{step['seconds']:.2f}")
        console.print(table)
        if flow["lost_before_source"]:
            line = f"  {flow['lost_before_source']:,} records were lost before they could be read"
            console.print(Text(line, style="yellow"))
        for reason in flow["reasons"]:
            line = f"  set aside {reason['records']:,} x {reason['step']}: {reason['reason']}"
            console.print(Text(line, style="yellow"), soft_wrap=True)


def _equation(edge: dict[str, Any], flow: dict[str, Any]) -> str:
    parts = [
        f"stored {edge['stored']:,}",
        f"filtered {edge['filtered']:,}",
        f"set aside {edge['set_aside']:,}",
    ]
    if edge["stored_before"]:
        parts.append(f"stored before {edge['stored_before']:,}")
    read = max(flow["read"], edge["read"] + edge["stored_before"])
    waiting = read - edge["read"] - edge["stored_before"]
    if waiting:
        parts.append(f"in flight {waiting:,}")
    added = f" + added {edge['added']:,}" if edge["added"] else ""
    return f"read {read:,}{added} = {' + '.join(parts)}"
