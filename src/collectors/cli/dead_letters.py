"""`collectors dead-letters`: which records were set aside, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collectors.chunks import DeadLetter

__all__ = ["app"]

app = typer.Typer(
    help="Which records were set aside, and why.",
    no_args_is_help=True,
    epilog="Example: collectors dead-letters list readings.yaml --reasons",
)
PipelineFile = Annotated[Path, typer.Argument(help="The pipeline file.", show_default=False)]


@app.command("list", epilog="Example: collectors dead-letters list readings.yaml --reasons")
def list_command(
    pipeline: PipelineFile,
    limit: Annotated[int, typer.Option(help="At most this many, the newest.", min=1)] = 20,
    reasons: Annotated[
        bool, typer.Option("--reasons", help="Count them by step and reason instead.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List the records that were set aside, the newest last."""
    from collections import Counter

    letters = _letters(pipeline)
    if reasons:
        counted = Counter((letter.source, letter.step, letter.reason) for letter in letters)
        rows = [
            {"source": source, "step": step, "records": count, "reason": reason}
            for (source, step, reason), count in counted.most_common(limit)
        ]
        _print(rows, as_json=as_json)
        return
    shown = letters[-limit:]
    if as_json:
        _print([_as_dict(letter) for letter in shown], as_json=True)
        return
    _print([_summary(letter) for letter in shown], as_json=False)
    if len(shown) < len(letters):
        typer.echo(f"{len(letters) - len(shown):,} older ones are not shown; --limit shows more")


@app.command("show", epilog="Example: collectors dead-letters show readings.yaml readings:3:decode:17")
def show_command(
    pipeline: PipelineFile,
    letter_id: Annotated[str, typer.Argument(help="The id that `list` shows.", show_default=False)],
    raw: Annotated[bool, typer.Option("--raw", help="Write the record's bytes, nothing else.")] = False,
) -> None:
    """Show one record that was set aside, with everything known about it."""
    import sys

    from collectors.errors import ConfigurationError

    found = [letter for letter in _letters(pipeline) if letter.letter_id == letter_id]
    if not found:
        raise ConfigurationError(
            f"no dead letter '{letter_id}'; see: collectors dead-letters list {pipeline}"
        )
    if raw:
        sys.stdout.buffer.write(found[-1].raw)
        return
    for name, value in _as_dict(found[-1]).items():
        typer.echo(f"{name:>10}  {value}")


def _letters(pipeline: Path) -> list[DeadLetter]:
    import asyncio

    from collectors.config.load import load
    from collectors.runtime.dead_letters import read_letters

    return asyncio.run(read_letters(load(pipeline)))


def _summary(letter: DeadLetter) -> dict[str, Any]:
    record = letter.raw[:60].decode("utf-8", "backslashreplace")
    return {
        "id": letter.letter_id,
        "where": _where(letter),
        "reason": letter.reason,
        "record": record + ("…" if len(letter.raw) > 60 else ""),
    }


def _where(letter: DeadLetter) -> str:
    position = letter.position or {}
    if "path" in position:
        return f"{Path(str(position['path'])).name} byte {position.get('offset', 0):,}"
    return f"chunk {letter.seq}"


def _as_dict(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.letter_id,
        "pipeline": letter.pipeline,
        "source": letter.source,
        "step": letter.step,
        "reason": letter.reason,
        "position": letter.position,
        "chunk": letter.seq,
        "record": letter.record,
        "run": letter.run,
        "version": letter.version,
        "set_aside": letter.created_at.isoformat(timespec="seconds"),
        "raw": letter.raw.decode("utf-8", "backslashreplace"),
    }


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    from collectors.cli._rows import print_rows

    if rows or as_json:
        print_rows(rows, as_json=as_json)
    else:
        typer.echo("no dead letters")
