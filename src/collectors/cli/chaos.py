"""`collectors chaos`: kill a copy of a pipeline again and again, and count what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from collectors.chaos.report import Report
    from collectors.terminal import Console

__all__ = ["command"]

EPILOG = """Example: collectors chaos readings.yaml --kills 500

Exit codes: 0 every promise of `collectors guarantee` was kept, 1 one was broken, 2 bad configuration, or nothing that
can be tested."""

LIVE_SECONDS = 0.1
LINE_SECONDS = 5.0


def command(
    pipeline: Annotated[Path, typer.Argument(help="The pipeline file.", show_default=False)],
    kills: Annotated[int, typer.Option(help="How many kills must come about.", min=1)] = 100,
    seed: Annotated[int | None, typer.Option(help="Which kills; a random one when left out.")] = None,
    size: Annotated[str, typer.Option(help="How much of each source to copy.")] = "1 MiB",
    limit: Annotated[
        str | None, typer.Option("--for", help="Stop after this time, for example 60s.", metavar="DURATION")
    ] = None,
    sample: Annotated[
        list[str] | None,
        typer.Option(help="Records in the place of a source, in its format.", metavar="SOURCE=FILE"),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(help="Kill here in every story; given again: there in the next life.", metavar="KILL"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Kill a copy of a pipeline with SIGKILL at every moment that matters, restart it, and compare what is stored.

    The pipeline's own stores, positions and state are not touched; its sources are read once.
    """
    import json
    import random
    from functools import partial

    from collectors.chaos.lives import Kill
    from collectors.chaos.trial import run_trial
    from collectors.config.load import load
    from collectors.settings import parse_duration, parse_size
    from collectors.terminal import Console

    trial = partial(
        run_trial,
        load(pipeline),
        kills=kills,
        seed=random.randrange(10**6) if seed is None else seed,  # noqa: S311  # nothing secret
        size=_parsed("--size", size, parse_size),
        samples=_samples(sample or []),
        seconds=None if limit is None else _parsed("--for", limit, parse_duration),
        at=[_parsed("--at", text, Kill.parse) for text in at or []],
    )
    report = _show(trial, _Progress(Console(stderr=True), quiet=as_json))
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        _print(report, Console(), pipeline)
    raise typer.Exit(0 if report.held else 1)


def _show(trial: Callable[..., Report], progress: _Progress) -> Report:
    """Make the trial in a folder that is gone afterwards, whether it is ended by Ctrl-C or by SIGTERM."""
    import signal
    import tempfile

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, progress.stop)
    with tempfile.TemporaryDirectory(prefix="collectors-chaos-") as folder:
        try:
            return trial(Path(folder), on_progress=progress.show)
        finally:
            progress.clear()


def _parsed(option: str, text: str, parse: Callable[[str], Any]) -> Any:
    from collectors.errors import ConfigurationError

    try:
        return parse(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} '{text}': {error}") from error


def _samples(texts: list[str]) -> dict[str, Path]:
    from collectors.errors import ConfigurationError

    pairs = [text.partition("=") for text in texts]
    for text, (source, _, file) in zip(texts, pairs, strict=True):
        if not source or not file:
            raise ConfigurationError(f"--sample '{text}': expected SOURCE=FILE")
    return {source: Path(file) for source, _, file in pairs}


class _Progress:
    """A line on the terminal that is written over; elsewhere a line now and then. Without threads: the trial forks."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        from time import monotonic

        self._console = console
        self._quiet = quiet
        self._now = monotonic
        self._shown = monotonic()
        self._stopped = 0

    def stop(self, number: int, _: object) -> None:
        """End the trial because of a signal: at once, and at the latest at the next story.

        What a handler raises is dropped where Python cannot pass it on, for example while it collects garbage.
        """
        self._stopped = number
        raise SystemExit(128 + number)

    def clear(self) -> None:
        """Leave the terminal as it was."""
        if self._console.is_terminal and not self._quiet:
            self._console.file.write("\r\x1b[2K")
            self._console.file.flush()

    def show(self, report: Report) -> None:
        """Show how far the trial is. Raises SystemExit when it was stopped."""
        if self._stopped:
            raise SystemExit(128 + self._stopped)
        terminal = self._console.is_terminal
        wait = LIVE_SECONDS if terminal else LINE_SECONDS
        if self._quiet or self._now() - self._shown < wait:
            return
        self._shown = self._now()
        text = (
            f"{report.kills} of {report.wanted} kills, " + _sums(report)
            if report.places
            else "undisturbed runs"
        )
        self._console.file.write(f"\r\x1b[2K{text[: self._console.width - 1]}" if terminal else f"{text}\n")
        self._console.file.flush()


def _sums(report: Report) -> str:
    lost, doubled, unknown = (sum(each.values()) for each in (report.lost, report.doubled, report.unknown))
    return f"lost {lost:,}, duplicated {doubled:,}, unexplained {unknown:,}"


def _print(report: Report, console: Console, pipeline: Path) -> None:
    import shlex

    from rich.text import Text

    for note in report.notes:
        console.print(Text(note, style="dim"), soft_wrap=True)
    at_moments = report.kills - report.at_random
    console.print(
        f"{report.kills} kills: {at_moments} at {len(report.by_place)} of {report.places} crash points, "
        f"{report.at_random} at random times; {report.restarts} restarts; "
        f"{report.records:,} records in each of {report.stories} stories"
        + (f"; {report.unanswered} commits whose answer got lost" if report.unanswered else ""),
        highlight=False,
        soft_wrap=True,
    )
    _print_stores(report, console)
    if report.recovery is not None:
        median, most = (f"{seconds * 1000:,.0f} ms" for seconds in report.recovery)
        console.print(f"from a restart to the first commit: p50 {median}, max {most}", highlight=False)
    for each in report.broken:
        console.print(Text(each.title, "bold"), soft_wrap=True)
        for line in each.lines():
            console.print(Text(f"  {line}", "red"), soft_wrap=True)
        if each.kills:
            at = "".join(f" --at {shlex.quote(kill)}" for kill in each.kills)
            console.print(Text(f"  again: collectors chaos {pipeline} --kills 20{at}", "dim"), soft_wrap=True)
    verdict = Text("every promise was kept", "green") if report.held else Text("a promise was broken", "red")
    if not report.kills:
        verdict = Text("no kill came about", "yellow") if report.held else verdict
    console.print(Text.assemble(verdict, f" · seed {report.seed}"))


def _print_stores(report: Report, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for heading in ("", "promise", "expected", "lost", "duplicated", "unexplained"):
        table.add_column(heading, justify="left" if heading in {"", "promise"} else "right", no_wrap=True)
    for name, promise in report.promises.items():
        counts = [
            (report.lost[name], promise.may_lose),
            (report.doubled[name], promise.may_double),
            (report.unknown[name], False),
        ]
        table.add_row(
            name,
            promise.level,
            f"{report.expected.get(name, 0):,}",
            *(
                Text(f"{count:,}", "green" if not count else "yellow" if may else "red")
                for count, may in counts
            ),
        )
    console.print(table)
