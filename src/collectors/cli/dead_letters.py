"""`collectors dead-letters`: which records were set aside, and why; sending them again, giving them up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collectors.chunks import DeadLetter
    from collectors.config.model import PipelineConfig
    from collectors.runtime.dead_letters import Box
    from collectors.terminal import Console

__all__ = ["app"]

app = typer.Typer(
    help="Which records were set aside, and why; sending them again, giving them up.",
    no_args_is_help=True,
    epilog="Example: collectors dead-letters list readings.yaml --reasons",
)
PipelineFile = Annotated[Path, typer.Argument(help="The pipeline file.", show_default=False)]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids that `list` shows.", show_default=False)]
Source = Annotated[str | None, typer.Option(help="Only those of this source.")]
Step = Annotated[str | None, typer.Option(help="Only those of this step, for example decode or cast.")]
Reason = Annotated[str | None, typer.Option(help="Only those with this text in their reason.")]
Since = Annotated[
    str | None,
    typer.Option(help="Only those set aside since then: 2h, or 2026-01-31T12:00.", metavar="TIME"),
]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", epilog="Example: collectors dead-letters list readings.yaml --reasons")
def list_command(
    pipeline: PipelineFile,
    source: Source = None,
    step: Step = None,
    reason: Reason = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(help="At most this many, the newest.", min=1)] = 20,
    reasons: Annotated[
        bool, typer.Option("--reasons", help="Count them by step and reason instead.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List the records that were set aside, the newest last; also while the pipeline runs."""
    from collectors.cli._rows import print_rows
    from collectors.terminal import printable

    _, box = _look(pipeline)
    letters = _choose(box, None, source, step, reason, since)
    if reasons:
        rows = _counted(letters)
        print_rows(rows[:limit], as_json=as_json) if rows or as_json else typer.echo("no dead letters")
    elif as_json:
        print_rows([_as_dict(letter, box) for letter in letters[-limit:]], as_json=True)
    elif not letters:
        typer.echo("no dead letters")
    else:
        print_rows([_summary(letter, box) for letter in letters[-limit:]], as_json=False)
        if len(letters) > limit:
            typer.echo(f"{len(letters) - limit:,} older ones are not shown; --limit shows more")
    if not as_json and (box.replayed or box.discarded):
        total = len(box.letters) + box.replayed + box.discarded
        typer.echo(
            f"{total:,} in all = {len(box.letters):,} here + {box.replayed:,} replayed + {box.discarded:,} discarded"
        )
        for at, why, count in box.discards:
            typer.echo(f"{count:,} discarded at {at[:16]}Z: {printable(why)}")


@app.command("show", epilog="Example: collectors dead-letters show readings.yaml readings:3:decode:17")
def show_command(
    pipeline: PipelineFile,
    letter_id: Annotated[str, typer.Argument(help="The id that `list` shows.", show_default=False)],
    raw: Annotated[bool, typer.Option("--raw", help="Write the record's bytes, nothing else.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one record that was set aside, with everything known about it."""
    import json
    import sys

    from collectors.errors import ConfigurationError
    from collectors.terminal import printable

    _, box = _look(pipeline)
    found = [letter for letter in box.letters if letter.letter_id == letter_id]
    if not found:
        raise ConfigurationError(
            f"no dead letter '{letter_id}'; see: collectors dead-letters list {pipeline}"
        )
    if raw:
        sys.stdout.buffer.write(found[-1].raw)
    elif as_json:
        typer.echo(json.dumps(_as_dict(found[-1], box)))
    else:
        for name, value in _as_dict(found[-1], box).items():
            if value is not None and value != "":
                text = json.dumps(value) if isinstance(value, dict) else printable(str(value))
                typer.echo(f"{name:>10}  {text}")


@app.command("replay", epilog="Example: collectors dead-letters replay readings.yaml --step decode")
def replay_command(
    pipeline: PipelineFile,
    ids: Ids = None,
    every: All = False,
    source: Source = None,
    step: Step = None,
    reason: Reason = None,
    since: Since = None,
    from_start: Annotated[
        bool,
        typer.Option(
            "--from-start",
            help="Send records that a processor refused through all steps, not only from where they were.",
        ),
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send records through the pipeline as it is now; each is stored once, or set aside again.

    Bytes that could not be decoded go to the decoder, records that a processor refused go on behind the step before it,
    rows that a storage refused go to that storage. The pipeline must not run meanwhile.
    """
    import json

    from collectors.runtime.letter_ways import way_of
    from collectors.terminal import Console

    config, box = _look(pipeline)
    console = Console(stderr=True)
    chosen = _chosen(box, ids, source, step, reason, since, every=every)
    letters = chosen if ids else [letter for letter in chosen if letter.whole]
    for letter in letters:
        way_of(config, letter, from_start=from_start)
    if len(letters) < len(chosen):
        text = f"{len(chosen) - len(letters):,} stay: the source had only parts of these records"
        console.print(text, style="yellow", highlight=False)
    if letters:
        _confirm("replay", letters, console, yes=yes)
        _replay(config, letters, pipeline, console, from_start=from_start, as_json=as_json)
    else:
        typer.echo("nothing to replay" if not as_json else json.dumps({"replayed": 0}))


def _replay(
    config: PipelineConfig,
    letters: list[DeadLetter],
    pipeline: Path,
    console: Console,
    *,
    from_start: bool,
    as_json: bool,
) -> None:
    import asyncio
    import json

    from collectors.cli._progress import exit_code, print_result
    from collectors.runtime.replay import Replay

    engine = Replay(
        config,
        [letter.key for letter in letters],
        from_start=from_start,
        on_notice=lambda text: console.print(text, style="yellow", highlight=False, soft_wrap=True),
    )
    report = asyncio.run(engine.run())
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        print_result(report, console, str(pipeline))
    raise typer.Exit(exit_code(report))


@app.command(
    "discard",
    epilog="Example: collectors dead-letters discard readings.yaml --step decode --why 'test data'",
)
def discard_command(
    pipeline: PipelineFile,
    why: Annotated[str, typer.Option(help="Why they are not needed; it is remembered.", show_default=False)],
    ids: Ids = None,
    every: All = False,
    source: Source = None,
    step: Step = None,
    reason: Reason = None,
    since: Since = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete records that were set aside; how many, when and why is remembered. The pipeline must not run meanwhile."""
    import asyncio
    import json

    from collectors.errors import ConfigurationError
    from collectors.runtime.dead_letters import discard
    from collectors.terminal import Console

    if not why.strip():
        raise ConfigurationError(
            f"--why {why!r}: expected a reason, for example --why 'test data'; it is remembered"
        )
    config, box = _look(pipeline)
    letters = _chosen(box, ids, source, step, reason, since, every=every)
    count = 0
    if letters:
        _confirm("discard", letters, Console(stderr=True), yes=yes)
        count = asyncio.run(discard(config, {letter.key for letter in letters}, why))
    typer.echo(json.dumps({"discarded": count}) if as_json else f"{count:,} discarded")


def _look(pipeline: Path) -> tuple[PipelineConfig, Box]:
    import asyncio

    from collectors.config.load import load
    from collectors.runtime.dead_letters import look

    config = load(pipeline)
    return config, asyncio.run(look(config))


def _chosen(
    box: Box,
    ids: list[str] | None,
    source: str | None,
    step: str | None,
    reason: str | None,
    since: str | None,
    *,
    every: bool,
) -> list[DeadLetter]:
    """Return the letters that a command is about; it has to say which."""
    from collectors.errors import ConfigurationError

    filtered = source or step or reason or since
    if not (ids or filtered or every):
        raise ConfigurationError(
            "say which: ids, --source, --step, --reason or --since; or --all for all of them"
        )
    if ids and (filtered or every):
        raise ConfigurationError("give either ids or options that choose, not both")
    return _choose(box, ids, source, step, reason, since)


def _choose(
    box: Box,
    ids: list[str] | None,
    source: str | None,
    step: str | None,
    reason: str | None,
    since: str | None,
) -> list[DeadLetter]:
    from collectors.errors import ConfigurationError

    earliest = _time(since) if since else None
    unknown = set(ids or []) - {letter.letter_id for letter in box.letters}
    if unknown:
        raise ConfigurationError(f"no dead letter {', '.join(repr(name) for name in sorted(unknown))}")
    return [
        letter
        for letter in box.letters
        if (not ids or letter.letter_id in ids)
        and source in {None, letter.source}
        and step in {None, letter.step, f"{letter.route}/{letter.step}", letter.step.removeprefix("store ")}
        and (reason is None or reason in letter.reason)
        and (earliest is None or letter.created_at >= earliest)
    ]


def _time(text: str) -> Any:
    from datetime import UTC, datetime, timedelta

    from collectors.errors import ConfigurationError
    from collectors.settings import parse_duration

    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        pass
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except ValueError:
        raise ConfigurationError(
            f"--since '{text}': expected 2h, 30m, or a time as 2026-01-31T12:00"
        ) from None


def _confirm(verb: str, letters: list[DeadLetter], console: Console, *, yes: bool) -> None:
    """Ask before anything happens; without a terminal `--yes` is needed."""
    import sys

    from collectors.errors import ConfigurationError

    if yes:
        return
    question = f"{verb} {len(letters):,} record{'s' if len(letters) > 1 else ''}?"
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{question} Nobody is there to answer; say --yes")
    for row in _counted(letters)[:5]:
        console.print(
            f"  {row['records']:,} x {row['source']} {row['step']}: {row['reason']}", highlight=False
        )
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


def _counted(letters: list[DeadLetter]) -> list[dict[str, Any]]:
    from collections import Counter

    counted = Counter((letter.source, _step(letter), letter.reason) for letter in letters)
    return [
        {"source": source, "step": step, "records": count, "reason": reason}
        for (source, step, reason), count in counted.most_common()
    ]


def _step(letter: DeadLetter) -> str:
    return f"{letter.route}/{letter.step}" if letter.route else letter.step


def _summary(letter: DeadLetter, box: Box) -> dict[str, Any]:
    record = letter.raw[:60].decode("utf-8", "backslashreplace")
    return {
        "id": letter.letter_id,
        "tries": letter.attempt if letter.attempt > 1 else None,
        "where": _where(letter),
        "reason": letter.reason,
        "record": record + ("…" if len(letter.raw) > 60 else ""),
        "status": "being replayed" if letter.key in box.replaying else None,
    }


def _where(letter: DeadLetter) -> str:
    position = letter.position or {}
    if "path" in position:
        place = "byte" if letter.step == "decode" else "behind byte"
        return f"{Path(str(position['path'])).name} {place} {position.get('offset', 0):,}"
    return f"chunk {letter.seq}" if letter.attempt == 1 else f"see {letter.origin}"


def _as_dict(letter: DeadLetter, box: Box) -> dict[str, Any]:
    return {
        "id": letter.letter_id,
        "pipeline": letter.pipeline,
        "source": letter.source,
        "route": letter.route,
        "step": letter.step,
        "reason": letter.reason,
        "tries": letter.attempt,
        "first_id": letter.origin or letter.letter_id,
        "position": letter.position,
        "chunk": letter.seq,
        "record": letter.record,
        "run": letter.run,
        "version": letter.version,
        "set_aside": letter.created_at.isoformat(timespec="seconds"),
        "whole": letter.whole,
        "status": "being replayed" if letter.key in box.replaying else "held",
        "raw": letter.raw.decode("utf-8", "backslashreplace"),
    }
