"""How large a share of a source's records may be set aside in a run before its flow stops."""

from __future__ import annotations

from collections import Counter

from collectors.chunks import Counts
from collectors.errors import ErrorBudgetError

__all__ = ["LEAST_RECORDS", "check_budget", "most_frequent"]

LEAST_RECORDS = 100
"""A share says nothing about fewer records; it is looked at then when the source has ended."""
_SHOWN_REASONS = 3


def check_budget(
    stop_above: float | None, counts: Counts, reasons: Counter[tuple[str, str]], *, at_end: bool
) -> ErrorBudgetError | None:
    """Return the error that stops a flow when more than the share `stop_above` of its records was set aside.

    `counts` are those of the run up to the last commit; `reasons` counts step and reason of what was set aside.
    """
    if stop_above is None or not counts.set_aside:
        return None
    records = counts.read + counts.added
    if stop_above and records < LEAST_RECORDS and not at_end:
        return None
    if counts.set_aside <= stop_above * records:
        return None
    lines = "".join(f"\n  {count:,} x {step}: {reason}" for step, reason, count in most_frequent(reasons))
    return ErrorBudgetError(
        f"{counts.set_aside:,} of {records:,} records were set aside, {_percent(counts.set_aside / records)}; "
        f"`stop_above` allows {_percent(stop_above)}. They are in the dead letters; everything up to there is stored. "
        f"The most frequent reasons:{lines}"
    )


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def most_frequent(reasons: Counter[tuple[str, str]]) -> list[tuple[str, str, int]]:
    """Return step, reason and number of the most frequent ones."""
    return [(step, reason, count) for (step, reason), count in reasons.most_common(_SHOWN_REASONS)]
