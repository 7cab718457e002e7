"""`collectors describe`: what a component does, and all its settings."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from collectors.cli.list import KindName

__all__ = ["command"]

EPILOG = "Example: collectors describe sqlite"


def command(
    name: Annotated[
        str,
        typer.Argument(metavar="TYPE", help="A type, as `collectors list` shows it.", show_default=False),
    ],
    kind: Annotated[
        KindName | None, typer.Option(help="Only this kind, where several have the type.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """Show what a component does, and all its settings."""
    import json

    from rich.markdown import Markdown

    from collectors.cli._component_page import as_dict, markdown
    from collectors.terminal import Console

    kinds = _kinds_of(name, kind)
    if as_json:
        typer.echo(json.dumps([as_dict(each, name) for each in kinds], indent=2, ensure_ascii=False))
        return
    page = "\n".join(markdown(each, name) for each in kinds)
    console = Console()
    if console.is_terminal:
        console.print(Markdown(page))
    else:
        typer.echo(page, nl=False)


def _kinds_of(name: str, kind: KindName | None) -> list[KindName]:
    """Return the kinds that have this type. Raises ConfigurationError with the nearest name when none has."""
    import difflib

    from collectors import registry
    from collectors.errors import ConfigurationError

    asked: list[KindName] = [kind] if kind else list(get_args(KindName))
    if ":" in name and kind is None:
        raise ConfigurationError(f"'{name}' is a class of your own: say its --kind ({', '.join(asked)})")
    found = [each for each in asked if ":" in name or name in registry.names(each)]
    if not found:
        known = sorted({other for each in asked for other in registry.names(each)})
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known)}"
        raise ConfigurationError(f"there is no {kind or 'component'} of the type '{name}': {hint}")
    return found
