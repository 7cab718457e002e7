"""What `run` and `demo` show: a live table on a terminal, a plain line now and then elsewhere, and the result."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from collectors.cli._program import program

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

    from collectors.runtime.engine import Engine
    from collectors.runtime.ledger import FlowReport, RunReport
    from collectors.terminal import Console

__all__ = ["Progress", "equation", "exit_code", "file_size", "print_result", "run_with_progress"]

LIVE_SECONDS = 0.25
LINE_SECONDS = 5.0
RATE_WINDOW = 20


def file_size(size: float) -> str:
    """Return bytes for people: `82 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def exit_code(report: RunReport) -> int:
    """Return what the process exits with.

    0 done and balanced, 1 failed or not balanced, 2 bad configuration, 3 too much was set aside, 75 fenced.
    """
    from collectors.errors import ConfigurationError, ErrorBudgetError, FencedError

    errors = [flow.error for flow in report.failed]
    if any(isinstance(error, FencedError) for error in errors):
        return 75
    if errors and all(isinstance(error, ConfigurationError) for error in errors):
        return 2
    if errors and all(isinstance(error, ErrorBudgetError) for error in errors):
        return 3
    return 0 if not errors and report.balanced else 1


class Progress:
    """Shows a running engine until it ends. Everything goes to stderr; stdout belongs to data and to `--json`."""

    def __init__(self, engine: Engine, console: Console) -> None:
        self._engine = engine
        self._console = console
        self.told = ""
        """The last notice."""
        self._samples: dict[int, deque[tuple[float, int]]] = {}

    async def show(self) -> None:
        """Show until cancelled."""
        from rich.live import Live

        if self._console.is_terminal:
            with Live(console=self._console, auto_refresh=False, transient=True) as live:
                while True:
                    live.update(self._table(), refresh=True)
                    await self._engine.env.sleep(LIVE_SECONDS)
        while True:
            await self._engine.env.sleep(LINE_SECONDS)
            for flow in self._flows():
                self._console.print(self._line(flow), highlight=False, soft_wrap=True)

    def notice(self, text: str) -> None:
        """Print one line above the table."""
        from rich.text import Text

        self.told = text
        self._console.print(Text(text, style="yellow"), soft_wrap=True)

    def result(self, report: RunReport, pipeline: str) -> None:
        """Print what happened; an error that was told last is not told again."""
        print_result(report, self._console, pipeline, self.told)

    def _flows(self) -> list[FlowReport]:
        """Return the flows that there are now, without those that a reload has ended."""
        return [flow for flow in self._engine.report.flows if not flow.reloaded]

    def _rate(self, flow: FlowReport) -> float:
        samples = self._samples.setdefault(id(flow), deque(maxlen=RATE_WINDOW))
        samples.append((self._engine.env.monotonic(), flow.read))
        (since, before), (now, read) = samples[0], samples[-1]
        return (read - before) / (now - since) if now > since else 0.0

    def _line(self, flow: FlowReport) -> str:
        aside = max((edge.counts.set_aside for edge in flow.edges), default=0)
        lag = f", {file_size(flow.lag_bytes)} behind" if flow.lag_bytes else ""
        return (
            f"{flow.source}: {flow.status}, read {flow.read:,} ({self._rate(flow):,.0f} rows/s), "
            f"{flow.in_flight:,} in flight, {aside:,} set aside{lag}, "
            f"{file_size(self._engine.budget.used)} in flight in all"
        )

    def _table(self) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("source", "status", "read", "rows/s", "in flight", "set aside", "behind"):
            table.add_column(heading, justify="left" if heading in {"source", "status"} else "right")
        for flow in self._flows():
            aside = max((edge.counts.set_aside for edge in flow.edges), default=0)
            table.add_row(
                flow.source,
                Text(
                    flow.status,
                    style={"running": "green", "waiting": "yellow", "failed": "red"}.get(flow.status, ""),
                ),
                f"{flow.read:,}",
                f"{self._rate(flow):,.0f}",
                f"{flow.in_flight:,}",
                Text(f"{aside:,}", style="yellow" if aside else ""),
                "" if flow.lag_bytes is None else file_size(flow.lag_bytes),
            )
        budget = self._engine.budget
        foot = Text(
            f"{file_size(budget.used)} of {file_size(budget.limit)} in flight · "
            f"{file_size(self._engine.env.memory())} resident · Ctrl-C stops and drains",
            style="dim",
        )
        return Group(table, foot)


def equation(flow: FlowReport) -> list[str]:
    """Return the ledger of a flow, one line for each backend."""
    lines = []
    for edge in flow.edges:
        counts = edge.counts
        parts = [
            f"stored {counts.stored:,}",
            f"filtered {counts.filtered:,}",
            f"set aside {counts.set_aside:,}",
        ]
        if edge.skipped:
            parts.append(f"stored before {edge.skipped:,}")
        waiting = flow.read + counts.added - counts.stored - counts.filtered - counts.set_aside - edge.skipped
        if waiting:
            parts.append(f"in flight {waiting:,}")
        added = f" + added {counts.added:,}" if counts.added else ""
        lines.append(f"read {flow.read:,}{added} = {' + '.join(parts)}")
    return lines


def print_result(report: RunReport, console: Console, pipeline: str, told: str = "") -> None:
    """Print what happened: a line for each flow and backend, what to do next, time and memory.

    `told` is the notice that was printed right before: an error in it is not printed again.
    """
    from rich.text import Text

    lines = [
        (flow.source, f"→ {edge.backend}", line, edge.where)
        for flow in report.flows
        for edge, line in zip(flow.edges, equation(flow), strict=True)
    ]
    widths = [max((len(line[place]) for line in lines), default=0) for place in range(4)]
    for source, backend, ledger, where in lines:
        text = Text.assemble(
            (f"{source:{widths[0]}}  ", "bold"), f"{backend:{widths[1]}}  ", f"{ledger:{widths[2]}}"
        )
        if sum(widths) + 6 <= console.width:
            text.append(f"  {where}", style="dim")
        console.print(text, soft_wrap=True)
    for flow in report.flows:
        if flow.resumed_at is not None:
            console.print(
                f"{flow.source}: resumed behind what an earlier run had stored", style="dim", highlight=False
            )
        for notice in flow.remarks():
            console.print(Text(notice, style="yellow"))
        if flow.error is not None:
            why = "failed, as said above" if str(flow.error) in told else f"failed: {flow.error}"
            console.print(Text(f"{flow.source} {why}", style="red"), soft_wrap=True)
    if report.set_aside:
        console.print(
            Text(
                f"{report.set_aside:,} set aside; see why: {program()} dead-letters list {pipeline}",
                style="yellow",
            ),
            soft_wrap=True,
        )
    if not report.failed:
        for line in report.imbalances():
            console.print(Text(f"not balanced: {line}", style="red"), soft_wrap=True)
    total = sum(flow.read for flow in report.flows)
    rate = total / report.seconds if report.seconds else 0.0
    console.print(
        Text.assemble(
            _verdict(report),
            f" · {report.seconds:.1f} s · {rate:,.0f} rows/s · peak {file_size(report.peak_memory)}",
        )
    )


def _verdict(report: RunReport) -> Text:
    from rich.text import Text

    if report.failed:
        failed, sources = ({flow.source for flow in flows} for flows in (report.failed, report.flows))
        return Text(f"{len(failed)} of {len(sources)} sources failed", style="red")
    if not report.balanced:
        return Text("not balanced", "red")
    waiting = any(flow.in_flight for flow in report.flows)
    return Text("balanced; what is in flight comes with the next run" if waiting else "balanced", "green")


async def run_with_progress(engine: Engine, progress: Progress | None) -> RunReport:
    """Run the engine with the display beside it."""
    if progress is None:
        return await engine.run()
    showing = asyncio.create_task(progress.show())
    try:
        return await engine.run()
    finally:
        showing.cancel()
        await asyncio.wait({showing})
