"""The ledger of a run: for every flow and step, what came in and what became of it.

`read + added = stored + filtered + set aside + in flight`. What was delivered is summed from what backends
acknowledged; the decoder counts what it reads independently of the rows that come out.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct, field

from collectors.chunks import Counts, DeadLetter, Drift
from collectors.errors import CollectorsError
from collectors.models import Position

__all__ = ["EdgeReport", "FlowReport", "RunFailedError", "RunReport", "StepReport"]

MOST_REASONS = 1000
_MOST_DRIFTS = 1000

FlowStatus = Literal["starting", "running", "waiting", "done", "stopped", "failed"]


class StepReport(Struct):
    """One step of one flow: rows in and out, and rows it refused."""

    name: str
    rows_in: int = 0
    rows_out: int = 0
    set_aside: int = 0
    seconds: float = 0.0
    entered: int = 0
    """Rows that did not come from the step before: letters, taken up here."""

    def add(self, rows_in: int, rows_out: int, set_aside: int, seconds: float) -> None:
        """Count what the step did to one table."""
        self.rows_in += rows_in
        self.rows_out += rows_out
        self.set_aside += set_aside
        self.seconds += seconds

    @property
    def filtered(self) -> int:
        """Rows that the step left out on purpose."""
        return max(0, self.rows_in - self.rows_out - self.set_aside)

    @property
    def added(self) -> int:
        """Rows that the step made beyond its input."""
        return max(0, self.rows_out + self.set_aside - self.rows_in)


class EdgeReport(Struct):
    """One flow's way into one backend: what was acknowledged, and what was stored there before."""

    backend: str
    where: str
    flow: str = ""
    counts: Counts = field(default_factory=Counts)
    skipped: int = 0
    ledger: Counts | None = None
    """What the store itself says about this run, asked for at its end, without `before`."""
    before: Counts | None = field(default_factory=Counts)
    """What the store said when it was claimed: flows that a reload has ended left it there. None: not asked yet."""
    committed: Counts = field(default_factory=Counts)
    """As `counts`, with what the backend has taken and not made durable yet."""
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Step and reason of what was set aside, with numbers; the first thousand different ones."""

    refused: int = 0
    """Records that this backend itself refused."""
    drifts: dict[tuple[str, str, str, str], int] = field(default_factory=dict)
    """Table, column, type and action of each difference between rows and table, with the number of rows that had it.

    Those behind the first thousand are counted together, under no column.
    """

    def note(self, counts: Counts, letters: list[DeadLetter], refused: list[DeadLetter]) -> None:
        """Count a commit, and why records were set aside on the way to it, or by the backend."""
        self.committed += counts
        self.refused += len(refused)
        for letter in [*letters, *refused]:
            if len(self.reasons) < MOST_REASONS or (letter.step, letter.reason) in self.reasons:
                self.reasons[letter.step, letter.reason] += 1

    def news(self, found: list[Drift], *, stored: bool) -> list[Drift]:
        """Count what a try has found about columns; returns what is to be told: each difference once."""
        happened = [drift for drift in found if stored or drift.action in {"refused", "set aside"}]
        return [drift for drift in happened if self.note_drift(drift)]

    def note_drift(self, drift: Drift) -> bool:
        """Count the rows of a difference between rows and table; returns whether it is a new one, to be told."""
        key = drift.table, drift.column, drift.brought, drift.action
        if key not in self.drifts and len(self.drifts) >= _MOST_DRIFTS:
            key = drift.table, "", "", drift.action  # names of columns may be made of data
        known = self.drifts.get(key)
        self.drifts[key] = (known or 0) + drift.rows
        return known is None and drift.action != "made"

    def left_out(self) -> list[dict[str, Any]]:
        """Return of which columns values were not stored since these are not to change, and in how many rows."""
        return [
            {"table": table, "column": column, "type": brought, "rows": count}
            for (table, column, brought, action), count in self.drifts.items()
            if action == "left out"
        ]

    def remarks(self) -> list[str]:
        """Return what people should know about values that were left out."""
        return [
            f"storage {self.backend}: values of "
            + (f"column '{each['column']}' ({each['type']})" if each["type"] else "more columns")
            + f" were left out of {each['rows']:,} rows: table '{each['table']}' does not take them "
            "(`schema: discard-column`)"
            for each in self.left_out()
        ]


class FlowReport(Struct):
    """What happened to one source's records."""

    source: str
    status: FlowStatus = "starting"
    read: int = 0
    chunks: int = 0
    bytes_read: int = 0
    lost: int = 0
    """Records that the source knows to be lost before it could have them (a socket's buffer that ran over)."""
    missed: int = 0
    """Readings of a source that cannot be read again, which were due before the one under way had ended."""
    lag_bytes: int | None = None
    resumed_at: Position | None = None
    reloaded: bool = False
    notices: list[str] = field(default_factory=list)
    error: BaseException | None = None
    decoding: StepReport = field(default_factory=lambda: StepReport("decode"))
    ways: list[tuple[str, list[StepReport]]] = field(default_factory=list)
    edges: list[EdgeReport] = field(default_factory=list)

    @property
    def in_flight(self) -> int:
        """Records that were read and that some backend has not acknowledged."""
        return max((self.read - edge.skipped - edge.counts.read for edge in self.edges), default=0)

    @property
    def worst(self) -> EdgeReport:
        """The way into the backend on which most was set aside."""
        return max(self.edges, key=lambda edge: edge.committed.set_aside)

    @property
    def set_aside(self) -> int:
        """How many records are in the dead letters: those that no backend got, and those that one refused."""
        before = max((edge.committed.set_aside - edge.refused for edge in self.edges), default=0)
        return before + sum(edge.refused for edge in self.edges)

    @property
    def balanced(self) -> bool:
        """Whether every record that was read is accounted for at every backend; after a stop some may be in flight."""
        return not self.imbalances()

    def count_lost(self, records: int) -> None:
        """Count records that never reached the source."""
        self.lost += records

    def count_missed(self, readings: int) -> None:
        """Count readings that were left out."""
        self.missed += readings

    def remarks(self) -> list[str]:
        """Return what people should know about this run, beside its numbers and its error."""
        lost = f"{self.source}: {self.lost:,} records were lost before they could be read"
        missed = f"{self.source}: {self.missed:,} readings were left out, because the one before was not over when they were due"
        left_out = [line for edge in self.edges for line in edge.remarks()]
        return [*self.notices, *([lost] if self.lost else []), *([missed] if self.missed else []), *left_out]

    def steps(self) -> list[tuple[str, StepReport]]:
        """Return all steps with their names: decoding, then those of each route."""
        named = [
            (f"{way}/{step.name}" if way else step.name, step) for way, steps in self.ways for step in steps
        ]
        return [("decode", self.decoding), *named]

    def imbalances(self) -> list[str]:
        """Return where records are unaccounted for: from step to step, at each backend, and in its own ledger."""
        found: list[str] = []
        for way, steps in self.ways:
            before = self.decoding
            for step in steps:
                if step.rows_in - step.entered != before.rows_out:
                    name = f"{way}/{step.name}" if way else step.name
                    found.append(
                        f"{self.source}: step {before.name} gave {before.rows_out:,} rows, "
                        f"step {name} got {step.rows_in:,}"
                    )
                before = step
        for edge in self.edges:
            found += self._imbalances(edge)
        return found

    def _imbalances(self, edge: EdgeReport) -> list[str]:
        name, counts = f"{self.source} → {edge.backend}", edge.counts
        found: list[str] = []
        missing = self.read - edge.skipped - counts.read
        # After a stop they are in the source, or in its spool, for the next run.
        if missing and self.status != "stopped":
            found.append(f"{name}: {missing:,} of {self.read:,} records are in flight, not stored")
        if counts.in_flight:
            found.append(
                f"{name}: read {counts.read:,} + added {counts.added:,} is not stored {counts.stored:,} + "
                f"filtered {counts.filtered:,} + set aside {counts.set_aside:,}"
            )
        if edge.ledger is not None and edge.ledger != counts:
            differences = ", ".join(
                f"{each} {getattr(edge.ledger, each):,} instead of {getattr(counts, each):,}"
                for each in Counts.__struct_fields__
                if getattr(edge.ledger, each) != getattr(counts, each)
            )
            found.append(f"{name}: the store's own ledger has {differences}")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "source": self.source,
            "status": self.status,
            "read": self.read,
            "in_flight": self.in_flight,
            "chunks": self.chunks,
            "bytes_read": self.bytes_read,
            "lag_bytes": self.lag_bytes,
            "lost_before_source": self.lost,
            "missed_readings": self.missed,
            "resumed_at": self.resumed_at,
            "balanced": self.balanced,
            "imbalances": self.imbalances(),
            "error": str(self.error) if self.error else None,
            "notices": self.notices,
            "reasons": [
                {"step": step, "reason": reason, "records": count}
                for (step, reason), count in (self.worst.reasons.most_common(10) if self.edges else [])
            ],
            "steps": [
                {
                    "step": name,
                    "in": step.rows_in,
                    "out": step.rows_out,
                    "filtered": step.filtered,
                    "added": step.added,
                    "set_aside": step.set_aside,
                    "seconds": round(step.seconds, 6),
                }
                for name, step in self.steps()
            ],
            "storage": [
                {
                    "backend": edge.backend,
                    "where": edge.where,
                    "flow": edge.flow,
                    "read": edge.counts.read,
                    "added": edge.counts.added,
                    "stored": edge.counts.stored,
                    "filtered": edge.counts.filtered,
                    "set_aside": edge.counts.set_aside,
                    "stored_before": edge.skipped,
                    "left_out": edge.left_out(),
                }
                for edge in self.edges
            ],
        }


class RunReport(Struct):
    """What happened in one run of a pipeline."""

    pipeline: str
    run: str
    started_at: datetime
    flows: list[FlowReport]
    seconds: float = 0.0
    peak_memory: int = 0
    kind: str = "run"
    """`run`, or `replay` of dead letters."""

    def add(self, flow: FlowReport) -> None:
        """Take a flow in; what an earlier one of its source has left in the ledgers of the stores has to be asked for."""
        if any(earlier.source == flow.source for earlier in self.flows):
            for edge in flow.edges:
                edge.before = None
        self.flows.append(flow)

    @property
    def status(self) -> str:
        """How it ended: done, stopped, failed, or unbalanced."""
        if self.failed:
            return "failed"
        if not self.balanced:
            return "unbalanced"
        return "stopped" if any(flow.status == "stopped" for flow in self.flows) else "done"

    @property
    def reason(self) -> str:
        """Why it ended badly; empty if it did not."""
        return "\n".join([f"{flow.source}: {flow.error}" for flow in self.failed] or self.imbalances())

    @property
    def failed(self) -> list[FlowReport]:
        """The flows that ended with an error."""
        return [flow for flow in self.flows if flow.error is not None]

    @property
    def balanced(self) -> bool:
        """Whether every record of every flow is accounted for."""
        return not self.imbalances()

    def imbalances(self) -> list[str]:
        """Return where records are unaccounted for, one line each."""
        return [line for flow in self.flows for line in flow.imbalances()]

    @property
    def set_aside(self) -> int:
        """How many records are in the dead letters from this run."""
        return sum(flow.set_aside for flow in self.flows)

    def totals(self) -> dict[str, Counts]:
        """Return the sum over all flows for each backend."""
        sums: dict[str, Counts] = {}
        for flow in self.flows:
            for edge in flow.edges:
                sums[edge.backend] = sums.get(edge.backend, Counts()) + edge.counts
        return sums

    def as_dict(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "pipeline": self.pipeline,
            "run": self.run,
            "started_at": self.started_at.isoformat(),
            "seconds": round(self.seconds, 3),
            "peak_memory_bytes": self.peak_memory,
            "balanced": self.balanced,
            "flows": [flow.as_dict() for flow in self.flows],
        }


class RunFailedError(CollectorsError):
    """A run went to its end, but a source or storage failed or a record is unaccounted for; `report` says all of it."""

    def __init__(self, report: RunReport) -> None:
        what = "failed" if report.failed else "is not balanced"
        stored = ", ".join(f"{counts.stored:,} in {name}" for name, counts in report.totals().items())
        super().__init__(
            f"the pipeline '{report.pipeline}' {what}: {report.reason}\n"
            f"stored by this run: {stored}; the `report` of this error has every count"
        )
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return RunFailedError, (self.report,)
