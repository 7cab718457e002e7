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

Not while the pipeline runs; --dry-run may. Rows stay as they are; those that were merged can no longer be deleted by their location.

Exit codes: 0 done, or nothing to do; 1 failed; 2 bad configuration, or the pipeline is running; 75 another process has taken the
pipeline over. Behind any of them nothing is lost or doubled, and the command can be given again."""

_PROGRESS_SECONDS = 1.0


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
    """Make few large files of the many small ones that a pipeline has stored, in a folder or an object store."""
    import asyncio

    import msgspec

    from collectors.config.load import load
    from collectors.errors import ConfigurationError
    from collectors.settings import parse_size

    try:
        target = parse_size(target_size)
    except ValueError as error:
        raise ConfigurationError(f"--target-size: {error}") from error

    done: dict[str, list[Compacted]] = {}
    try:
        asyncio.run(_compact(load(pipeline), storage, target, done, dry_run=dry_run))
    finally:  # what was done is told, whatever came then
        for name, steps in done.items():
            if as_json:
                for step in steps:
                    typer.echo(msgspec.json.encode({"storage": name, **msgspec.to_builtins(step)}).decode())
            else:
                _print(steps)
    if not as_json:
        for name in (name for name, steps in done.items() if not steps):
            typer.echo(f"storage {name}: there is nothing to merge")


def _print(steps: list[Compacted]) -> None:
    from collectors.cli._progress import file_size

    for flow in dict.fromkeys(step.flow for step in steps):
        own = [step for step in steps if step.flow == flow]
        before, after = sum(step.bytes_before for step in own), sum(step.bytes_after for step in own)
        size = f"{file_size(before)} → {file_size(after)}" if after else "planned"
        many, few = sum(step.files_before for step in own), sum(step.files_after for step in own)
        rows = sum(step.rows for step in own)
        typer.echo(f"{flow}: {many:,} files → {few:,}, {rows:,} rows, {size}")


def _progress(done: list[Compacted]) -> Callable[[Compacted], None]:
    """Return what takes each step down, and says once a second how far it is."""
    import time

    last = time.monotonic()

    def tell(step: Compacted) -> None:
        nonlocal last
        done.append(step)
        if time.monotonic() >= last + _PROGRESS_SECONDS:
            last = time.monotonic()
            typer.echo(
                f"{step.flow}: {sum(each.files_before for each in done):,} files were merged", err=True
            )

    return tell


async def _compact(
    config: PipelineConfig,
    storage: str | None,
    target: int,
    done: dict[str, list[Compacted]],
    *,
    dry_run: bool,
) -> None:
    """Merge in each storage; `done` has, by their ids, what was done so far, or would be."""
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
            f"none of {', '.join(backends)} can be compacted; that is for storage of the types parquet and object_store"
        )
    with ExitStack() as stack:
        if not dry_run:
            env = Env()
            stack.callback(env.close)
            lock = env.lock(config.state / "lock")
            if isinstance(lock, str):
                raise ConfigurationError(f"the pipeline '{config.name}' is running ({lock}); stop it first")
            stack.enter_context(lock)
        for name, backend in able.items():
            await backend.connect()
            try:
                steps: list[Compacted] = done.setdefault(name, [])
                tell = _progress(steps)
                steps[:] = await backend.call(
                    partial(backend.compact, config.name, target, tell, dry_run=dry_run)
                )
            finally:
                await backend.disconnect()
