"""Writes docs/reference from the components' files and the commands, and parts of docs/reliability.md and docs/performance.md.

A test fails when a page is out of date.

python docs/generate.py
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).parent))

import performance
import reliability

from collectors import registry
from collectors.cli._component_page import markdown, table_of
from collectors.cli._component_page import paragraphs as as_markdown
from collectors.cli.main import VERBS, load_verb
from collectors.config.model import PipelineFile
from collectors.processing import expressions
from collectors.registry import Kind

REFERENCE = Path(__file__).parent / "reference"
FOLDERS: dict[Kind, str] = {
    "source": "sources",
    "processor": "processors",
    "backend": "backends",
    "codec": "codecs",
}
TITLES = {"sources": "Sources", "processors": "Processors", "backends": "Storage", "codecs": "Formats"}
MADE = "<!-- made by docs/generate.py: edit the component's file instead -->\n"


def pages() -> dict[Path, str]:
    """Return every page of the reference by its path below docs/reference."""
    made = {
        Path("index.md"): index(),
        Path("cli.md"): commands(),
        Path("expressions.md"): sql(),
        Path("pipeline.md"): pipeline(),
    }
    for kind in get_args(Kind):
        for entry in built_in(kind):
            page = markdown(kind, entry.name).replace(
                f"`{expressions.__name__}`", "[SQL expressions](../expressions.md)"
            )
            made[Path(FOLDERS[kind]) / f"{entry.name}.md"] = page
    return {path: MADE + text for path, text in made.items()}


def built_in(kind: Kind) -> list[registry.Entry]:
    """Return the components of this package; those of others have their own documentation."""
    return [entry for entry in registry.entries(kind) if entry.package == "collectors"]


def index() -> str:
    """Return the list of all components."""
    lines = [
        "# Reference",
        "",
        "[The command line](cli.md) · [The pipeline file](pipeline.md) · [SQL expressions](expressions.md)",
        "",
    ]
    for kind, folder in FOLDERS.items():
        lines += [f"## {TITLES[folder]}", "", "| type | |", "|---|---|"]
        lines += [
            f"| [{entry.name}]({folder}/{entry.name}.md) | {entry.summary} |" for entry in built_in(kind)
        ]
        lines.append("")
    return "\n".join(lines)


def sql() -> str:
    """Return the page of the expressions that `filter` and `set` take."""
    text = "\n".join(["# SQL expressions", "", *as_markdown(inspect.cleandoc(expressions.__doc__ or ""))])
    return text.replace("```text", "```sql").rstrip("\n") + "\n"


def pipeline() -> str:
    """Return the page of the keys at the top of a pipeline file."""
    text = inspect.cleandoc(PipelineFile.__doc__ or "")
    return "\n".join(["# The pipeline file", "", *as_markdown(text), *table_of(PipelineFile)]) + "\n"


def commands() -> str:
    """Return the page of all commands with their options."""
    lines = ["# The command line", ""]
    for verb in VERBS:
        lines += command(f"collectors {verb}", load_verb(verb))
    return "\n".join(lines)


def command(name: str, found: Any) -> Iterator[str]:
    """Yield the section of a command, and those of the commands below it."""
    arguments = [parameter for parameter in found.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in found.params if parameter.param_type_name == "option"]
    nested = getattr(found, "commands", {})
    usage = " ".join(
        [name, *(usage_of(argument) for argument in arguments), *(["COMMAND"] if nested else [])]
    )
    yield from (f"## `{usage}`", "", *paragraphs(found.help), *paragraphs(found.epilog))
    if arguments or options:
        yield from ("| | | default |", "|---|---|---|")
        for parameter in [*arguments, *options]:
            names = ", ".join(parameter.opts) if parameter in options else usage_of(parameter)
            yield f"| `{names}` | {parameter.help or ''} | {default_of(parameter)} |"
        yield ""
    for below, each in nested.items():
        yield from command(f"{name} {below}", each)


def paragraphs(text: str | None) -> list[str]:
    """Return a help text as Markdown."""
    parts = [" ".join(part.split()) for part in (text or "").split("\n\n") if part.strip()]
    return [line for part in parts for line in (example(part), "")]


def example(text: str) -> str:
    """Return a paragraph; what follows "Example:" is code."""
    label, _, code = text.partition("Example: ")
    return text if label or not code else f"Example: `{code}`"


def usage_of(argument: Any) -> str:
    """Return an argument as usage lines show it."""
    name = (argument.metavar or argument.name).upper()
    return name if argument.required else f"[{name}]"


def default_of(parameter: Any) -> str:
    """Return a default that says something, as code."""
    plain = parameter.default is None or parameter.default is False or parameter.required
    return "" if plain else f"`{parameter.default}`"


def main() -> None:
    """Write the pages and remove those whose component is gone."""
    made = pages()
    for path in REFERENCE.rglob("*.md"):
        if path.relative_to(REFERENCE) not in made:
            path.unlink()
    for path, text in made.items():
        target = REFERENCE / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    for part in (performance, reliability):
        part.PAGE.write_text(part.page(part.PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stderr.write(f"wrote {len(made)} pages to {REFERENCE}\n")


if __name__ == "__main__":
    main()
