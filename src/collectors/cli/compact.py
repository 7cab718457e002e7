"""`collectors compact`: make few large files of the many small ones that a pipeline has stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from collectors.config.model import PipelineConfig
    from collectors.storage.base import Compacted

__all__ = ["command"]

EPILOG = """Example: collectors compact readings.yaml --target-size 256MiB --dry-run

Not while the pipeline runs. Rows stay as they are; those that were merged can no longer be deleted by their location.

Exit codes: 0 done, or nothing to do; 1 failed; 2 bad configuration; 75 another process has taken the pipeline over."""


def command(
    pipeline: Annotated[Path, typer.Argument(help="The pipeline file.", show_default=False)],
    storage: Annotated[
        str | None, typer.Option(help="Which storage, by its id; default: all that can be compacted.")
    ] = None,
    target_size: Annotated[str, typer.Option(help="How large a file should become.")] = "128MiB",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be merged; change nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each new set of files.")
    ] = False,
) -> None:
    """Make few large files of the many small ones that a pipeline has stored in an object store."""
    import asyncio

    import msgspec

    from collectors.cli._progress import file_size
    from collectors.config.load import load
    from collectors.errors import ConfigurationError
    from collectors.settings import parse_size

    try:
        target = parse_size(target_size)
    except ValueError as error:
        raise ConfigurationError(f"--target-size: {error}") from error

    def tell(step: Compacted) -> None:
        if not as_json:
            size = (
                f"{file_size(step.bytes_before)} → {file_size(step.bytes_after)}"
                if step.bytes_after
                else "planned"
            )
            typer.echo(
                f"{step.flow}: {step.files_before:,} files → {step.files_after:,}, {step.rows:,} rows, {size}"
            )

    done = asyncio.run(_compact(load(pipeline), storage, target, tell, dry_run=dry_run))
    for name, steps in done.items():
        for step in steps:
            if as_json:
                typer.echo(msgspec.json.encode({"storage": name, **msgspec.to_builtins(step)}).decode())
            elif dry_run:
                tell(step)
        if not steps and not as_json:
            typer.echo(f"storage {name}: there is nothing to merge")


async def _compact(
    config: PipelineConfig,
    storage: str | None,
    target: int,
    tell: Callable[[Compacted], None],
    *,
    dry_run: bool,
) -> dict[str, list[Compacted]]:
    from contextlib import ExitStack
    from functools import partial

    from collectors.errors import ConfigurationError
    from collectors.runtime.env import Env
    from collectors.storage.base import Backend, Compacts

    if storage is not None and storage not in config.backends:
        raise ConfigurationError(f"no storage '{storage}'; there are: {', '.join(config.backends)}")
    backends: dict[str, Backend[Any]] = {
        name: component.make() for name, component in config.backends.items() if storage in {None, name}
    }
    able = {name: backend for name, backend in backends.items() if isinstance(backend, Compacts)}
    if not able:
        raise ConfigurationError(
            f"none of {', '.join(backends)} can be compacted; that is for storage of the type object_store"
        )
    done: dict[str, list[Compacted]] = {}
    with ExitStack() as stack:
        env = Env()
        stack.callback(env.close)
        lock = env.lock(config.state / "lock")
        if isinstance(lock, str):
            raise ConfigurationError(f"the pipeline '{config.name}' is running ({lock}); stop it first")
        stack.enter_context(lock)
        for name, backend in able.items():
            await backend.connect()
            try:
                compact = partial(backend.compact, config.name, target, tell, dry_run=dry_run)
                done[name] = await backend.call(compact)
            finally:
                await backend.disconnect()
    return done
