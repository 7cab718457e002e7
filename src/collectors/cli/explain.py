"""`collectors explain`: what each step costs a record, and which Python function makes a pipeline slow; writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collectors.runtime.explaining import Explanation, SlowFunction
    from collectors.terminal import Console

__all__ = ["command"]

EPILOG = """Example: collectors explain readings.yaml

Exit codes: 0 the pipeline was measured, 1 something is in the way of that, 2 bad configuration."""

NOTHING = "–"
MOST_DIFFERENCES = 4
FEW_RECORDS = 1000


def command(
    pipeline: Annotated[Path, typer.Argument(help="The pipeline file.", show_default=False)],
    timeout: Annotated[str, typer.Option(help="How long to wait for a source's first records.")] = "10s",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Measure what each step costs a record: time, memory, copies, and whether it runs Python for every record.

    Reads a sample from each source and runs the steps on it again and again, functions of your own too. Storing is
    measured in empty stores in a temporary folder; the pipeline's own are not touched.
    """
    import asyncio
    import json

    from collectors.config.load import load
    from collectors.errors import ConfigurationError
    from collectors.runtime.explaining import explain
    from collectors.settings import parse_duration
    from collectors.terminal import Console

    try:
        seconds = parse_duration(timeout)
    except ValueError as error:
        raise ConfigurationError(f"--timeout: {error}") from error
    config = load(pipeline)
    with Console(stderr=True).status("") as status:
        found = asyncio.run(explain(config, seconds, lambda text: status.update(f"measuring {text}")))
    if as_json:
        typer.echo(json.dumps([_as_dict(item) for item in found]))
    else:
        console = Console()
        for item in found:
            _print(item, console)
    failed = [item for item in found if item.problem]
    raise typer.Exit(0 if not failed else 2 if all(item.misconfigured for item in failed) else 1)


def _as_dict(item: Explanation) -> dict[str, Any]:
    return {
        "source": item.source,
        "problem": item.problem,
        "records": item.records,
        "set_aside": item.refused,
        "measured_records": item.measured,
        "ns_per_record": round(item.seconds * 1e9, 1),
        "steps": [
            {
                "step": cost.step,
                "runs": cost.runs,
                "python_lines_per_record": cost.python_lines,
                "ns_per_record": round(cost.seconds * 1e9, 1),
                "share": round(cost.seconds / item.seconds, 4),
                "bytes_per_record": None if cost.bytes is None else round(cost.bytes, 1),
                "columns": cost.columns,
                "new_columns": cost.new,
                "new_bytes_per_record": None if cost.new_bytes is None else round(cost.new_bytes, 1),
            }
            for cost in item.costs
        ],
        "not_measured": [{"step": step, "reason": reason} for step, reason in item.unmeasured],
        "functions": [
            {
                "step": slow.step,
                "function": slow.function,
                "warning": slow.warns,
                "times_slower": round(slow.factor, 2),
                "processors": slow.replacement and slow.replacement.steps,
                "times_as_fast_in_sql": slow.replacement and round(slow.replacement.factor, 1),
                "differs": slow.replacement and slow.replacement.differs,
                "reason": slow.reason,
            }
            for slow in item.functions
        ],
    }


def _print(item: Explanation, console: Console) -> None:
    from rich.text import Text

    console.rule(Text(f"source {item.source}", style="bold"), align="left")
    if item.problem:
        console.print(Text(item.problem, style="red"), soft_wrap=True)
        return
    refused = f", {item.refused:,} of them set aside" if item.refused else ""
    repeated = (
        f", steps measured on {item.measured:,}" if item.measured != item.records - item.refused else ""
    )
    console.print(f"sample: {item.records:,} records{refused}{repeated}", highlight=False)
    _print_costs(item, console)
    for step, reason in item.unmeasured:
        console.print(Text(f"{step}: not measured; {reason}", style="dim"), soft_wrap=True)
    for slow in item.functions:
        _print_function(slow, console)


def _print_costs(item: Explanation, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim", footer_style="dim", show_footer=True)
    table.add_column("step", "in all", overflow="fold")
    table.add_column("runs", no_wrap=True)
    for heading in ("Python", "ns/record", "share", "bytes", "copied", "new columns"):
        footer = f"{item.seconds * 1e9:,.0f}" if heading == "ns/record" else ""
        table.add_column(heading, footer, justify="right", no_wrap=True)
    for cost in item.costs:
        table.add_row(
            cost.step,
            Text(cost.runs or NOTHING, style="yellow" if cost.python_lines else ""),
            _number(cost.python_lines),
            _number(cost.seconds * 1e9),
            f"{cost.seconds / item.seconds:.0%}",
            _number(cost.bytes),
            _number(cost.new_bytes),
            NOTHING if cost.new is None else f"{len(cost.new)} of {cost.columns}",
        )
    console.print(table)
    said = [
        f"{1 / item.seconds:,.0f} records/s, one step after the other",
        "a record: lines of Python that run, bytes that come out, bytes in new memory",
    ]
    if any(cost.step.rpartition(" ")[0].endswith("store") for cost in item.costs):
        said.append("stores: empty ones in a temporary folder, a commit for each chunk")
    if item.records < FEW_RECORDS:
        said.append("a small sample: what a chunk costs by itself weighs on read and decode")
    for line in said:
        console.print(line, style="dim", highlight=False)


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def _print_function(slow: SlowFunction, console: Console) -> None:
    import yaml
    from rich.text import Text

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    if slow.warns:
        told = f"{slow.step}: {slow.function} runs for every record and makes the rest {slow.factor:.1f} times slower"
        say(told, "yellow")
    if slow.replacement is None:
        if slow.warns:
            say(f"  no SQL to suggest: {slow.reason}")
        return
    say(
        f"{slow.step}: in SQL, {slow.replacement.factor:.0f} times as fast and the same for the whole sample:",
        "green",
    )
    text = yaml.safe_dump(slow.replacement.steps, sort_keys=False, width=100, allow_unicode=True)
    for line in text.splitlines():
        say(f"  {line}")
    differs = slow.replacement.differs
    more = f" and {len(differs) - MOST_DIFFERENCES} more" if len(differs) > MOST_DIFFERENCES else ""
    if differs:
        say(f"  they would differ for {', '.join(differs[:MOST_DIFFERENCES])}{more}", "dim")
