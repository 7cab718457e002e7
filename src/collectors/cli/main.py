"""`collectors`: the command line; each verb is a module of its own, imported when it is called."""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

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
    "list": ("collectors.cli.list", "List the sources, processors, storage and formats that there are."),
    "describe": ("collectors.cli.describe", "Show what a component does, and all its settings."),
    "schema": ("collectors.cli.schema", "Print the JSON Schema of pipeline files, for editors."),
}
"""Verb → the module that has `command`, a function for typer, or `app`, a Typer with verbs of its own; and its help."""


class _Verbs(TyperGroup):
    """Lists the verbs without importing any; imports the one that is called."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.commands = {name: TyperCommand(name, help=summary) for name, (_, summary) in VERBS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_verb(str(name)), rest


def load_verb(name: str) -> Any:
    """Return the command of a verb, with its options; imports its module."""
    module = importlib.import_module(VERBS[name][0])
    verbs: typer.Typer | None = getattr(module, "app", None)
    if verbs is not None:
        verbs.rich_markup_mode = None
        return typer.main.get_group(verbs)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, epilog=getattr(module, "EPILOG", None))(module.command)
    return typer.main.get_command(single)


# Plain help: typer's boxes cost 0.08 s of CPU a call, as much as all the rest, and wrap examples.
app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="Example: collectors demo\n\nThen: collectors new readings.yaml, collectors check readings.yaml, "
    "collectors run readings.yaml",
)


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"collectors {version('collectors-io')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Collect data from anything, process it at column speed, store it anywhere."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 bad configuration or usage, 3 too much was set aside, 75 fenced, 130 interrupted."""
    if arguments is None:  # the process is ours
        gc.set_threshold(50_000, 20, 50)  # importing makes 100,000 objects, none of them garbage,
        atexit.register(gc.freeze)  # and none that has to be looked through at the exit
    given = sys.argv[1:] if arguments is None else arguments
    # Taken out wherever it stands: the advice is "run it again with --debug", and people add that at the end.
    debug = "--debug" in given
    command = typer.main.get_command(app)
    try:
        command(args=[argument for argument in given if argument != "--debug"], prog_name="collectors")
    except Exception as error:  # noqa: BLE001  # the last place where an exception can become a message
        if debug:
            import traceback

            traceback.print_exception(error)
        sys.exit(_tell(error))


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
