"""`collectors schema`: the JSON Schema of pipeline files, for completion and checks in an editor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]

EPILOG = """Example: collectors schema --output pipeline.schema.json

Then begin a pipeline file with: # yaml-language-server: $schema=pipeline.schema.json"""


def command(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it to this file.", show_default=False)
    ] = None,
) -> None:
    """Print the JSON Schema of pipeline files, with the components that are installed."""
    import json

    from collectors.config.schema import json_schema
    from collectors.errors import ConfigurationError

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--output {output}: cannot be written: {error.strerror}") from error
