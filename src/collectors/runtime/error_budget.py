"""How large a share of a source's records may be set aside in a run before its flow stops."""

from __future__ import annotations

from typing import Any

from collectors.collection.base import Source
from collectors.config.model import PipelineConfig
from collectors.errors import ErrorBudgetError
from collectors.runtime.ledger import EdgeReport

__all__ = ["LEAST_RECORDS", "budget_of", "check_budget", "percent"]

LEAST_RECORDS = 100
"""A share says nothing about fewer records; it is looked at then when the source has ended."""
_SHOWN_REASONS = 3


def budget_of(config: PipelineConfig, source: Source[Any]) -> float | None:
    """Return the share for a source: its own, else the pipeline's."""
    own = source.config.stop_above
    return config.stop_above if own is None else own


def check_budget(stop_above: float | None, edge: EdgeReport, *, at_end: bool) -> ErrorBudgetError | None:
    """Return the error that stops a flow when more than the share `stop_above` of its records was set aside.

    Counted are the records of this run up to the last commit, at the edge that has set aside most.
    """
    counts = edge.committed
    if stop_above is None or not counts.set_aside:
        return None
    records = counts.read + counts.added
    if stop_above and records < LEAST_RECORDS and not at_end:
        return None
    if counts.set_aside <= stop_above * records:
        return None
    most = edge.reasons.most_common(_SHOWN_REASONS)
    lines = "".join(f"\n  {count:,} x {step}: {reason}" for (step, reason), count in most)
    return ErrorBudgetError(
        f"{counts.set_aside:,} of {records:,} records were set aside, {percent(counts.set_aside / records)}; "
        f"`stop_above` allows {percent(stop_above)}. They are in the dead letters; everything up to there is stored. "
        f"The most frequent reasons:{lines}"
    )


def percent(share: float) -> str:
    """Return a share for people: `1 %`."""
    return f"{share * 100:.3g} %"
