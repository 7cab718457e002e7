"""`collectors demo`: this machine's metrics and a log file of it, for ten seconds, into SQLite and Parquet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec.structs import replace

if TYPE_CHECKING:
    from collectors.config.model import PipelineConfig
    from collectors.terminal import Console

__all__ = ["command"]

EPILOG = "Example: collectors demo --for 30s --folder try-it"

LOGS = (
    ("/var/log/dpkg.log", "{type: lines, pattern: dpkg}"),
    ("/var/log/syslog", "{type: lines, pattern: syslog}"),
    ("/var/log/messages", "{type: lines, pattern: syslog}"),
    ("/var/log/system.log", "lines"),
    ("/var/log/install.log", "lines"),
    ("/var/log/alternatives.log", "lines"),
    ("/var/log/bootstrap.log", "lines"),
)

PIPELINE = """\
# Made by `collectors demo`. Run it again with: collectors run {file}
name: demo
sources:
  - {{type: host, id: machine, every: 1s, metrics: [cpu, memory, disk, network]}}
{log_source}storage:
  - {{type: sqlite, path: demo.db}}  # a table for each source
  - {{type: parquet, path: metrics}}
pipelines:
  metrics: {{from: machine, to: [sqlite, parquet]}}
{log_route}"""
LOG_SOURCE = "  - {{type: file, id: log, path: {path}, format: {format}, follow: true}}\n"
LOG_ROUTE = "  log: {from: log, to: sqlite}\n"


def command(
    seconds: Annotated[str, typer.Option("--for", help="How long to collect.", metavar="DURATION")] = "10s",
    folder: Annotated[Path, typer.Option(help="Where the pipeline file and the data go.")] = Path(
        "demo-output"
    ),
) -> None:
    """Collect this machine's metrics and follow one of its log files, into SQLite and Parquet."""
    import asyncio
    import shlex

    from rich.text import Text

    from collectors.cli._program import program
    from collectors.cli._progress import Progress, exit_code, run_with_progress
    from collectors.config.load import load
    from collectors.runtime.engine import Engine
    from collectors.settings import parse_duration
    from collectors.terminal import Console

    console = Console()
    file = folder / "demo.yaml"
    _write(file)
    config = load(file)
    console.print(Text(file.read_text(encoding="utf-8"), style="dim"))
    shown: list[Progress] = []
    engine = Engine(config, limit=parse_duration(seconds), on_notice=lambda text: shown[0].notice(text))
    shown.append(Progress(engine, console))
    report = asyncio.run(run_with_progress(engine, shown[0]))
    shown[0].result(report, str(file))
    asyncio.run(_show(config, console))
    console.print(Text("\nNext:", style="bold"))
    for command in (f"query {shlex.quote(str(file))}", f"run {shlex.quote(str(file))}", "new"):
        console.print(Text(f"  {program()} {command}", style="bold"), soft_wrap=True)
    raise typer.Exit(exit_code(report))


def _write(file: Path) -> None:
    from collectors.errors import ConfigurationError

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_pipeline(file), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{file}: cannot be written: {error.strerror}; choose a folder that you may write, with --folder"
        ) from error


def _pipeline(file: Path) -> str:
    found = next(
        ((path, form) for path, form in LOGS if os.access(path, os.R_OK) and Path(path).is_file()), None
    )
    log_source = LOG_SOURCE.format(path=found[0], format=found[1]) if found else ""
    return PIPELINE.format(file=file, log_source=log_source, log_route=LOG_ROUTE if found else "")


async def _show(config: PipelineConfig, console: Console) -> None:
    """Query a few rows back from each storage."""
    from collectors.cli._rows import print_rows
    from collectors.models import QueryCriteria

    newest_cpu = QueryCriteria({"kind": "cpu"}, "-time", 3, None)
    questions = [("parquet", {}, newest_cpu), ("sqlite", {"table": "machine"}, newest_cpu)]
    if "log" in config.sources:
        questions.append(("sqlite", {"table": "log"}, QueryCriteria({}, None, 3, None)))
    for name, settings, criteria in questions:
        component = config.backends[name]
        backend = replace(component, settings=component.settings.model_copy(update=settings)).make()
        await backend.connect()
        try:
            rows: list[dict[str, Any]] = await backend.query(criteria)
        finally:
            await backend.disconnect()
        console.print(f"\n{settings.get('table', 'machine')}, queried back from {name}:", style="bold")
        print_rows(rows, as_json=False)
