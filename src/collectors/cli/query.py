"""`collectors query`: look at what a pipeline has stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collectors.models import QueryCriteria
    from collectors.settings import Settings

__all__ = ["command", "parse_condition"]

EPILOG = """Example: collectors query readings.yaml --where "temperature>30" --where "status=ok" --sort -temperature --limit 5"""
_OPERATORS = ("!=", "<=", ">=", "=", "<", ">", "~")


def command(
    pipeline: Annotated[Path, typer.Argument(help="The pipeline file.", show_default=False)],
    storage: Annotated[str | None, typer.Option(help="Which storage, by its id; default: the first.")] = None,
    table: Annotated[
        str | None, typer.Option(help="Which table, where each source has its own; its source's id.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="column OPERATOR value, with = != < <= > >= or ~ (like); may be given several times."
        ),
    ] = None,
    sort: Annotated[str | None, typer.Option(help="A column; with a leading - descending.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many rows.", min=0)] = 20,
    offset: Annotated[int, typer.Option(help="Skip this many rows.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a row.")] = False,
) -> None:
    """Look at what a pipeline has stored."""
    import asyncio

    from msgspec.structs import replace

    from collectors.cli._rows import print_rows
    from collectors.config.load import load
    from collectors.errors import ConfigurationError
    from collectors.models import QueryCriteria

    config = load(pipeline)
    name = storage or next(iter(config.backends))
    if name not in config.backends:
        raise ConfigurationError(
            f"no storage '{name}' in {pipeline}; there are: {', '.join(config.backends)}"
        )
    filters: dict[str, Any] = {}
    for condition in where or []:
        column, operator, value = parse_condition(condition)
        filters.setdefault(column, {})[operator] = value
    criteria = QueryCriteria(filters, sort, limit, offset)
    component = config.backends[name]
    if table is not None:
        component = replace(component, settings=_with_table(component.settings, table, name))
    rows = asyncio.run(_query(component.make(), criteria, table))
    print_rows(rows, as_json=as_json)
    if rows and len(rows) == limit:
        these = "this row" if limit == 1 else f"these {limit:,} rows"
        typer.echo(f"there may be more than {these}; --limit shows more", err=True)


def parse_condition(text: str) -> tuple[str, str, Any]:
    """Return column, operator and value of `temperature>=30`. Raises ConfigurationError."""
    from collectors.errors import ConfigurationError

    places = [
        (text.find(operator), -len(operator), operator) for operator in _OPERATORS if operator in text[1:]
    ]
    if not places:
        raise ConfigurationError(
            f"--where '{text}': expected column, operator, value, for example temperature>=30"
        )
    place, _, operator = min(places)
    column, value = text[:place].strip(), text[place + len(operator) :].strip()
    return column, "like" if operator == "~" else operator, _value(value)


def _value(text: str) -> Any:
    """Return a number, true, false or null as what it is; anything else, and what is in quotes, as text."""
    import json

    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, (dict, list, str)) else value


def _with_table(settings: Settings, table: str, name: str) -> Settings:
    from collectors.errors import ConfigurationError

    if "table" not in type(settings).model_fields:
        raise ConfigurationError(f"--table: the storage '{name}' has no tables")
    return settings.model_copy(update={"table": table})


async def _query(backend: Any, criteria: QueryCriteria, table: str | None) -> list[dict[str, Any]]:
    await backend.connect()
    try:
        rows: list[dict[str, Any]] = await backend.query(criteria)
        if not rows and table is not None:
            await _check_table(backend, table)
        if not rows:
            await _check_kinds(backend, criteria)
    finally:
        await backend.disconnect()
    return rows


async def _check_table(backend: Any, table: str) -> None:
    """Raise ConfigurationError for a table that is not there: no rows would read as an answer."""
    from collectors.errors import ConfigurationError
    from collectors.storage.base import HasTables

    call = backend.call
    names = await call(backend.tables) if isinstance(backend, HasTables) else [table]
    if table not in names:
        raise ConfigurationError(
            f"--table {table}: there is no such table in the storage '{backend.get_backend_id()}'; "
            + (f"there are: {', '.join(names)}" if names else "there is none yet: run the pipeline first")
        )


async def _check_kinds(backend: Any, criteria: QueryCriteria) -> None:
    """Raise ConfigurationError for a number that was compared with a column of text: no row could ever match."""
    from collectors.errors import ConfigurationError
    from collectors.models import QueryCriteria

    for column, wanted in criteria.filters.items():
        for operator, value in wanted.items():
            if operator == "like" or isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            texts = await backend.query(QueryCriteria({column: {">=": ""}}, None, 1, None))
            if texts:
                written = f"{column}{operator}{value}"
                raise ConfigurationError(
                    f"--where '{written}': the column '{column}' holds text, for example {texts[0][column]!r}, which "
                    f"no number is compared with. To compare it as text: --where '{column}{operator}\"{value}\"'. "
                    "To have numbers, cast it in the pipeline: {type: cast, columns: {"
                    f"{column}: float}}}}, into a table of its own"
                )
