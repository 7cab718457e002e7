"""`collectors`: the command line; each verb is a module of its own, imported when it is called."""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
from typing import Any, NoReturn

__all__ = ["VERBS", "load_verb", "main"]

VERBS: dict[str, tuple[str, str]] = {
    "demo": ("collectors.cli.demo", "Collect this machine's metrics and a log, for ten seconds."),
    "new": ("collectors.cli.new", "Write a commented pipeline file to start from."),
    "check": ("collectors.cli.check", "Connect to both ends, read a sample, show what would be stored."),
    "guarantee": ("collectors.cli.guarantee", "Show how safely each record reaches each storage, and why."),
    "explain": ("collectors.cli.explain", "Measure what each step costs a record, and what makes it slow."),
    "run": ("collectors.cli.run", "Run a pipeline until its sources end, or until Ctrl-C."),
    "chaos": ("collectors.cli.chaos", "Kill a copy of a pipeline again and again, and count what it costs."),
    "query": ("collectors.cli.query", "Look at what a pipeline has stored."),
    "dead-letters": (
        "collectors.cli.dead_letters",
        "See which records were set aside, and why; send them again.",
    ),
    "runs": ("collectors.cli.runs", "See what every run did, and where its records went."),
    "compact": ("collectors.cli.compact", "Make few large files of the many small ones in a lake."),
    "schema-history": (
        "collectors.cli.schema_history",
        "See what columns each table was made with, and how they changed.",
    ),
    "list": ("collectors.cli.list", "List the sources, processors, storage and formats that there are."),
    "describe": ("collectors.cli.describe", "Show what a component does, and all its settings."),
    "schema": ("collectors.cli.schema", "Print the JSON Schema of pipeline files, for editors."),
}
"""Verb → the module that has `command`, a function for typer, or `app`, a Typer with verbs of its own; and its help."""


def load_verb(name: str) -> Any:
    """Return the command of a verb, with its options; imports its module."""
    import typer

    module = importlib.import_module(VERBS[name][0])
    verbs: typer.Typer | None = getattr(module, "app", None)
    if verbs is not None:
        verbs.rich_markup_mode = None
        return typer.main.get_group(verbs)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, epilog=getattr(module, "EPILOG", None))(module.command)
    return typer.main.get_command(single)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 bad configuration or usage, 3 too much was set aside, 75 fenced, 130 interrupted."""
    if arguments is None:  # the process is ours
        gc.disable()  # importing makes 100,000 objects, none of them garbage,
        gc.set_threshold(50_000, 20, 50)
        atexit.register(gc.freeze)  # and none that has to be looked through at the exit
    given = sys.argv[1:] if arguments is None else arguments
    # Taken out wherever it stands: the advice is "run it again with --debug", and people add that at the end.
    debug = "--debug" in given
    try:
        _call([argument for argument in given if argument != "--debug"])
    except Exception as error:  # noqa: BLE001  # the last place where an exception can become a message
        if debug:
            import traceback

            traceback.print_exception(error)
        sys.exit(_tell(error))


def _call(given: list[str]) -> NoReturn:
    """Call the verb and exit. `run` goes without typer where it can: that would cost more than the run itself."""
    if given[:1] == ["run"]:
        from collectors.cli._running import plain_options, run

        options = plain_options(given[1:])
        if options is not None:
            try:
                sys.exit(run(**options))
            except KeyboardInterrupt:
                sys.exit(130)
    from collectors.cli import _verbs

    gc.enable()
    _verbs.call(given)


def _tell(error: Exception) -> int:
    """Print an error in one message and return the exit code for it."""
    from collectors.errors import CollectorsError, ConfigurationError, FencedError
    from collectors.terminal import printable

    if isinstance(error, CollectorsError):
        print(printable(str(error)), file=sys.stderr)
        if isinstance(error, FencedError):
            return 75
        return 2 if isinstance(error, ConfigurationError) else 1
    what = printable(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    print(f"unexpected error: {what}; run it again with --debug for the traceback", file=sys.stderr)
    return 1
