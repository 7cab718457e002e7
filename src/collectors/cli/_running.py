"""What `collectors run` does, and its options where no typer is needed to read them."""

from __future__ import annotations

import gc
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collectors.cli._progress import Progress

__all__ = ["plain_options", "run"]

_FLAGS = {"--quiet": "quiet", "-q": "quiet"}
_VALUES = {"--for": "limit", "--drain": "drain", "--give-up-after": "give_up"}


def plain_options(arguments: list[str]) -> dict[str, Any] | None:
    """Return what `run` takes; None for all but a file and whole options with their values behind them.

    The rest is typer's: help, mistakes, `--for=10s`, and `--json`, whose reader may have gone.
    """
    options: dict[str, Any] = {}
    words = iter(arguments)
    for word in words:
        name = _FLAGS.get(word) or _VALUES.get(word) or "pipeline"
        value = next(words, "") if word in _VALUES else word
        if name != _FLAGS.get(word) and (value[:1] in {"", "-"} or (name == "pipeline" and name in options)):
            return None
        options[name] = True if word in _FLAGS else Path(value) if name == "pipeline" else value
    return options if "pipeline" in options else None


def run(
    pipeline: Path,
    limit: str | None = None,
    drain: str = "30s",
    give_up: str | None = None,
    *,
    as_json: bool = False,
    quiet: bool = False,
) -> int:
    """Run a pipeline, show how it gets on, and return what the process exits with."""
    import asyncio

    from collectors.cli._progress import exit_code, run_with_progress
    from collectors.config.load import load
    from collectors.runtime.engine import Engine

    @cache
    def progress() -> Progress:
        from collectors.cli._progress import Progress
        from collectors.terminal import Console

        return Progress(engine, Console(stderr=True))

    engine = Engine(
        load(pipeline),
        limit=_seconds("--for", limit),
        drain=_seconds("--drain", drain) or 0.0,
        patience=_seconds("--give-up-after", give_up),
        on_notice=lambda text: progress().notice(text),
    )
    if not gc.isenabled():  # what was made up to here stays
        gc.freeze()
        gc.enable()
    report = asyncio.run(run_with_progress(engine, None if quiet or as_json else progress()))
    if as_json:
        import json

        print(json.dumps(report.as_dict()))
    elif not quiet:
        progress().result(report, str(pipeline))
    return exit_code(report)


def _seconds(option: str, text: str | None) -> float | None:
    from collectors.errors import ConfigurationError
    from collectors.settings import parse_duration

    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} '{text}': {error}") from error
