"""What is remembered of every run, in the state file; a run that is under way can be looked at from outside."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from collectors.chunks import Counts
from collectors.config.model import PipelineConfig
from collectors.errors import CollectorsError
from collectors.runtime.env import Env
from collectors.runtime.ledger import RunReport
from collectors.runtime.state import State
from collectors.storage.base import Backend, KeepsLedger
from collectors.storage.sqlite_store import Database, DeliveryTables

__all__ = ["Run", "Runs", "ledger_of", "read_runs", "stored_counts"]

_TABLE = """
create table if not exists _collectors_runs (
    run text primary key, kind text not null, version text not null, status text not null, reason text not null,
    started_at text not null, seen_at text not null, ended_at text, report text not null
) without rowid
"""


class Run(Struct, frozen=True):
    """One run: `status` is running, done, stopped, failed, unbalanced or crashed; `report` is `RunReport.as_dict`."""

    run: str
    kind: str
    version: str
    status: str
    reason: str
    started_at: datetime
    seen_at: datetime
    ended_at: datetime | None
    report: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the run for `--json`."""
        return {
            **self.report,
            "run": self.run,
            "kind": self.kind,
            "version": self.version,
            "status": self.status,
            "reason": self.reason,
            "started_at": self.started_at.isoformat(),
            "seen_at": self.seen_at.isoformat(),
            "ended_at": self.ended_at.isoformat() if self.ended_at else None,
        }


class Runs:
    """The runs in an open state file; for the process that has the pipeline's lock."""

    def __init__(self, state: State, env: Env) -> None:
        self._state = state
        self._env = env
        self._begin: Callable[[], Awaitable[None]] | None = None

    async def begin(self, report: RunReport, version: str, backends: Mapping[str, Backend[Any]]) -> None:
        """Note a run that starts. Whatever is noted as running is not: its process died.

        What could not be noted now is noted with the next `update`, or with `end`.
        """
        self._begin = partial(self.begin, report, version, backends)
        dead: list[Run] = await self._state.call(self._open)
        by_id = {backend.get_backend_id(): backend for backend in backends.values()}
        for run in dead:
            await self._correct(run, by_id)
        now = self._env.now().isoformat()
        values = (
            report.run,
            report.kind,
            version,
            "running",
            "",
            report.started_at.isoformat(),
            now,
            None,
            _encoded(report.as_dict()),
        )
        await self._write(
            "insert or replace into _collectors_runs values (?, ?, ?, ?, ?, ?, ?, ?, ?)", *values
        )
        self._begin = None

    async def update(self, report: RunReport) -> None:
        """Note how far a run is."""
        await self._catch_up()
        await self._write(
            "update _collectors_runs set seen_at = ?, report = ? where run = ?",
            self._env.now().isoformat(),
            _encoded(report.as_dict()),
            report.run,
        )

    async def end(self, report: RunReport) -> None:
        """Note how a run ended."""
        await self._catch_up()
        now = self._env.now().isoformat()
        await self._write(
            "update _collectors_runs set seen_at = ?, ended_at = ?, status = ?, reason = ?, report = ? where run = ?",
            now,
            now,
            report.status,
            report.reason,
            _encoded(report.as_dict()),
            report.run,
        )

    async def _catch_up(self) -> None:
        if self._begin is not None:
            await self._begin()

    async def _write(self, statement: str, *values: Any) -> None:
        def write(database: Database) -> None:
            with database.transaction():
                database.execute(statement, values)

        await self._state.call(write)

    def _open(self, database: Database) -> list[Run]:
        with database.transaction():
            database.execute(_TABLE)
            dead = [run for run in _read(database) if run.status == "running"]
            database.execute(
                "update _collectors_runs set status = 'crashed', ended_at = seen_at, "
                "reason = 'its process died' where status = 'running'"
            )
        return dead

    async def _correct(self, run: Run, backends: Mapping[str, Backend[Any]]) -> None:
        """Take the counts of a run that died from the stores: what was noted last is older than the last commit.

        A store has one count for all that a run had of a flow; what earlier flows of a source, before a reload, had of
        it when they ended is theirs, the rest the last one's. One that has less than was noted was deleted or put back
        since, and says nothing about the run.
        """
        parts: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for flow in run.report.get("flows", []):
            for edge in flow["storage"]:
                backend = backends.get(edge["backend"])
                if backend is not None and backend.describe() == edge["where"]:
                    parts.setdefault((edge["backend"], edge["flow"]), []).append(edge)
        for (backend_id, flow_name), (*earlier, last) in parts.items():
            with suppress(CollectorsError):  # a store that is away: what was noted last has to do
                counts = await stored_counts(backends[backend_id], flow_name, run.run, self._state)
                if counts is not None:
                    rest = counts - sum((_counts(edge) for edge in earlier), Counts())
                    if all(getattr(rest, name) >= last[name] for name in _COUNTED):
                        last |= {name: getattr(rest, name) for name in _COUNTED}
        await self._write(
            "update _collectors_runs set report = ? where run = ?", _encoded(run.report), run.run
        )


_COUNTED = ("read", "added", "stored", "filtered", "set_aside")


def _counts(edge: Mapping[str, Any]) -> Counts:
    return Counts(**{name: edge[name] for name in _COUNTED})


async def stored_counts(backend: Backend[Any], flow: str, run: str, state: State) -> Counts | None:
    """Return what a run has durably stored of a flow by the store's own ledger; None where it keeps none."""
    return (await ledger_of(backend, run, state))(flow)


async def ledger_of(backend: Backend[Any], run: str, state: State) -> Callable[[str], Counts | None]:
    """Return what gives the same for each flow of the run, asked for once."""
    if isinstance(backend, KeepsLedger):
        ledger: dict[str, Counts] = await backend.call(backend.ledger, run)
        return lambda flow: ledger.get(flow, Counts())
    ledgers = await state.call(lambda database: DeliveryTables(database).ledger(run))
    return lambda flow: ledgers.get((run, flow))


async def read_runs(config: PipelineConfig, env: Env | None = None) -> list[Run]:
    """Return the runs of a pipeline, oldest first, while it runs or not. One whose process died is `crashed`."""
    env = env or Env()
    path = config.state / "state.db"
    if not path.exists():
        return []
    state = State(path, env, read_only=True)
    try:
        await state.open()
        runs = await state.call(_read)
    finally:
        await state.close()
        env.close()
    alive = _is_alive(config.state / "lock")
    return [run if run.status != "running" or alive else _crashed(run) for run in runs]


def _is_alive(lock: Path) -> bool:
    """Return whether the process that has written itself into the lock file is there; a lock is not tried.

    Trying it, even for an instant, could turn away a run that starts just then.
    """
    import psutil

    try:
        found = re.match(r"process (\d+), since ([\d-]+ [\d:]+) UTC", lock.read_text(encoding="utf-8"))
        if found is None:
            return False
        since = datetime.fromisoformat(f"{found[2]}+00:00").timestamp()
        return psutil.Process(int(found[1])).create_time() <= since + 1
    except (OSError, psutil.Error):
        return False


def _crashed(run: Run) -> Run:
    return Run(
        run.run,
        run.kind,
        run.version,
        "crashed",
        "its process died",
        run.started_at,
        run.seen_at,
        run.seen_at,
        run.report,
    )


def _read(database: Database) -> list[Run]:
    there = database.execute("select 1 from sqlite_schema where name = '_collectors_runs'")
    if there.fetchone() is None:
        return []
    rows = database.execute(
        "select run, kind, version, status, reason, started_at, seen_at, ended_at, report "
        "from _collectors_runs order by started_at, run"
    )
    return [
        Run(
            run,
            kind,
            version,
            status,
            reason,
            datetime.fromisoformat(started_at),
            datetime.fromisoformat(seen_at),
            datetime.fromisoformat(ended_at) if ended_at else None,
            msgspec.json.decode(report),
        )
        for run, kind, version, status, reason, started_at, seen_at, ended_at, report in rows
    ]


def _encoded(report: dict[str, Any]) -> str:
    return msgspec.json.encode(report, enc_hook=str).decode()
