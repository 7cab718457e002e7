"""`collectors run`: run a pipeline until its sources end, or until Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]

EPILOG = """Example: collectors run readings.yaml --for 10s

Exit codes: 0 done and balanced (records set aside are reported), 1 failed or not balanced,
2 bad configuration, 3 more was set aside than `stop_above` allows, 75 another process has taken the pipeline over."""


def command(
    pipeline: Annotated[Path, typer.Argument(help="The pipeline file.", show_default=False)],
    limit: Annotated[
        str | None, typer.Option("--for", help="Stop after this time, for example 10s.", metavar="DURATION")
    ] = None,
    drain: Annotated[str, typer.Option(help="Time for storing what was read, after a stop.")] = "30s",
    give_up: Annotated[
        str | None,
        typer.Option(
            "--give-up-after",
            help="How long to put up with a source or storage that is away. "
            "Default: 60s when no source goes on by itself and none is filling its spool, else for ever.",
            metavar="DURATION",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress; only problems and the exit code.")
    ] = False,
) -> None:
    """Run a pipeline until its sources end, or until Ctrl-C."""
    from collectors.cli import _running

    raise typer.Exit(_running.run(pipeline, limit, drain, give_up, as_json=as_json, quiet=quiet))
