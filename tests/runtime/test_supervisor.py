"""What the supervisor says of a flow that ended."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from collectors.errors import FatalError, TransientError
from collectors.runtime.ledger import FlowReport
from collectors.runtime.shutdown import Shutdown
from collectors.runtime.supervisor import Supervisor
from collectors.testing.clock import ManualEnv


@pytest.mark.parametrize(
    ("error", "expired", "status"),
    [
        (TransientError("away"), True, "stopped"),
        (TransientError("away"), False, "failed"),
        (FatalError("broken"), True, "failed"),
    ],
    ids=["away at the deadline", "away", "broken"],
)
def test_a_try_that_was_under_way_at_the_deadline_is_no_failure(error, expired, status):
    told = []

    async def run():
        raise error

    async def main():
        supervisor = Supervisor(Shutdown(ManualEnv()), lambda flow, why: told.append(why))
        await supervisor.run([flow])

    flow = SimpleNamespace(run=run, report=FlowReport("in"), stopping=True, expired=expired, name="in")
    asyncio.run(main())
    assert flow.report.status == status
    assert told == ([] if status == "stopped" else [error])
