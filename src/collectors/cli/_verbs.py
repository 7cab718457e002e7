"""The verbs as typer has them: usage, help, completion."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from collectors.cli.main import VERBS, load_verb

__all__ = ["call"]


class _Verbs(TyperGroup):
    """Lists the verbs without importing any; imports the one that is called."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.commands = {name: TyperCommand(name, help=summary) for name, (_, summary) in VERBS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_verb(str(name)), rest


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


def call(arguments: list[str]) -> NoReturn:
    """Call what the arguments say, and exit."""
    typer.main.get_command(app)(args=arguments, prog_name="collectors")
    raise AssertionError
