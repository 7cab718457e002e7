"""`collectors new`: write a commented pipeline file to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["TEMPLATES", "Template", "command"]

EPILOG = "Example: collectors new readings.yaml --template files"

Template = Literal["files", "logs", "host", "python", "exec"]
TEMPLATES = Path(__file__).parent / "templates"
"""A folder for each template: `pipeline.yaml`, and what it needs beside it."""


def command(
    file: Annotated[
        Path | None,
        typer.Argument(help="The file to write; without it: list the templates.", show_default=False),
    ] = None,
    template: Annotated[Template, typer.Option(help="What to start from.")] = "files",
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there already.")] = False,
) -> None:
    """Write a commented pipeline file to start from."""
    import shlex

    from collectors.cli._program import program

    if file is None:
        for folder in sorted(path for path in TEMPLATES.iterdir() if path.is_dir()):
            summary = (folder / "pipeline.yaml").read_text(encoding="utf-8").partition("\n")[0]
            typer.echo(f"{folder.name:8} {summary.removeprefix('# ')}")
        return
    for path in _write(file, TEMPLATES / template, force=force):
        typer.echo(f"wrote {path}")
    typer.echo(f"next: {program()} check {shlex.quote(str(file))}")


def _named(text: str, name: str) -> str:
    """Return a template with the pipeline named after its file, where that can be a name."""
    import re

    from collectors.config._parts import is_name

    if not is_name(name):
        return text
    return re.sub(r"(?m)^name: \S+ *", lambda line: f"name: {name}  ".ljust(len(line[0])), text, count=1)


def _write(file: Path, template: Path, *, force: bool) -> list[Path]:
    """Write the pipeline and what it needs beside it; all or, when something is in the way, nothing."""
    import shlex

    from collectors.errors import ConfigurationError

    contents: dict[Path, str] = {}
    for source in sorted(path for path in template.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        text = source.read_text(encoding="utf-8")
        if source.name == "pipeline.yaml":
            contents[file] = _named(text.replace(" FILE", f" {shlex.quote(file.name)}"), file.stem)
        else:
            contents[file.parent / source.relative_to(template)] = text
    there = [path for path in contents if path.exists() and path.read_bytes() != contents[path].encode()]
    if there and not force:
        names = ", ".join(str(path) for path in there)
        raise ConfigurationError(
            f"{names}: is there already; choose another name, or --force to overwrite it"
        )
    for path, text in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from error
    return list(contents)
