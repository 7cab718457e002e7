"""The state of asynchronous operations, in memory or in a file that survives a restart."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from collectors.enums import TaskStatus
from collectors.errors import ConfigurationError, FatalError
from collectors.interfaces.crosscutting import ITaskTracker
from collectors.models import TaskInfo

__all__ = ["TaskTracker"]

_NEXT: dict[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.PENDING: frozenset({TaskStatus.RUNNING, TaskStatus.FAILED, TaskStatus.CANCELLED}),
    TaskStatus.RUNNING: frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED}),
    TaskStatus.COMPLETED: frozenset(),
    TaskStatus.FAILED: frozenset(),
    TaskStatus.CANCELLED: frozenset(),
}
_TABLE = """
create table if not exists tasks (
    task_id text primary key, task_type text not null, status text not null, created_at text not null,
    started_at text, completed_at text, progress real not null, result text, error text
)
"""


class TaskTracker(ITaskTracker):
    """Tasks by id. pending → running → completed, failed or cancelled; a pending one may also fail or be cancelled.

    With `state_file` every change is durable before the call returns; it is written in a worker thread. Tasks that
    were pending or running when their process died come back as failed, with the error "interrupted by a restart".
    The file belongs to one tracker at a time. Raises ConfigurationError (a ValueError) when it is no database of
    this kind, or belongs to another one now.
    """

    def __init__(
        self,
        state_file: str | Path | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._now = now
        self._tasks: dict[str, TaskInfo] = {}
        self._database: sqlite3.Connection | None = None
        self._one_at_a_time = threading.Lock()
        if state_file is not None:
            self._open(Path(state_file))

    async def create_task(self, task_type: str) -> str:
        """Make a pending task and return its unique id. Raises ValueError for an empty type."""
        if not isinstance(task_type, str) or not task_type.strip():
            raise ConfigurationError(f"a task's type must be a text that is not empty, got {task_type!r}")
        task_id = uuid.uuid4().hex
        task = TaskInfo(task_id, task_type, TaskStatus.PENDING, self._now(), None, None, 0.0, None, None)
        await self._off_the_loop(self._keep, task)
        return task_id

    async def update_status(self, task_id: str, status: TaskStatus) -> None:
        """Move the task on; the same status again changes nothing. Raises KeyError, ValueError (no such transition)."""
        await self._change(task_id, lambda task: self._moved(task, status))

    async def update_progress(self, task_id: str, progress: float) -> None:
        """Set the progress. Raises KeyError for an unknown id, ValueError outside 0.0–1.0."""
        if isinstance(progress, bool) or not isinstance(progress, (int, float)) or not 0.0 <= progress <= 1.0:
            self._tasks[task_id]  # an unknown id comes first
            raise ConfigurationError(f"progress must be a number from 0.0 to 1.0, got {progress!r}")
        await self._change(task_id, lambda task: replace(task, progress=float(progress)))

    async def get_task_info(self, task_id: str) -> TaskInfo:
        """Return the task as it is now. Raises KeyError for an unknown id."""
        return replace(self._tasks[task_id])

    async def cancel_task(self, task_id: str) -> None:
        """Cancel the task. Raises KeyError for an unknown id, RuntimeError when it has ended."""
        await self._change(task_id, self._cancelled)

    async def set_result(self, task_id: str, result: Any) -> None:
        """Keep what the operation gave; with a state file it must be JSON. Raises KeyError, ValueError."""
        await self._change(task_id, lambda task: replace(task, result=result))

    async def set_error(self, task_id: str, error: str) -> None:
        """Keep why the operation failed. Raises KeyError for an unknown id."""
        await self._change(task_id, lambda task: replace(task, error=error))

    def list_tasks(self, status: TaskStatus | None = None) -> list[TaskInfo]:
        """Return all tasks, or those with a status, oldest first."""
        tasks = list(self._tasks.values())
        return [replace(task) for task in tasks if status is None or task.status is status]

    def close(self) -> None:
        """Close the state file; safe twice. A change after it raises RuntimeError."""
        if self._database is not None:
            with self._one_at_a_time:
                self._database.close()

    def _moved(self, task: TaskInfo, status: TaskStatus) -> TaskInfo:
        if not isinstance(status, TaskStatus):
            raise ConfigurationError(f"expected a TaskStatus, got {status!r}")
        if status is task.status:
            return task
        if status not in _NEXT[task.status]:
            after = ", ".join(sorted(other.value for other in _NEXT[task.status]))
            raise ConfigurationError(
                f"a {task.status.value} task cannot become {status.value}; "
                f"possible: {after or 'nothing, it has ended'}"
            )
        moment = self._now()
        if status is TaskStatus.RUNNING:
            return replace(task, status=status, started_at=moment)
        progress = 1.0 if status is TaskStatus.COMPLETED else task.progress
        return replace(task, status=status, completed_at=moment, progress=progress)

    def _cancelled(self, task: TaskInfo) -> TaskInfo:
        if not _NEXT[task.status]:
            raise FatalError(f"task {task.task_id} has ended already: {task.status.value}")
        return self._moved(task, TaskStatus.CANCELLED)

    async def _change(self, task_id: str, change: Callable[[TaskInfo], TaskInfo]) -> None:
        self._tasks[task_id]  # a KeyError before anything is started
        await self._off_the_loop(self._apply, task_id, change)

    async def _off_the_loop(self, function: Callable[..., None], *args: Any) -> None:
        """Run what writes to the file in a worker thread: a sync of the disk may take long."""
        if self._database is None:
            function(*args)
        else:
            await asyncio.to_thread(function, *args)

    def _apply(self, task_id: str, change: Callable[[TaskInfo], TaskInfo]) -> None:
        with self._one_at_a_time:
            before = self._tasks[task_id]
            after = change(before)
            if after is not before:
                self._write(after)

    def _keep(self, task: TaskInfo) -> None:
        with self._one_at_a_time:
            self._write(task)

    def _write(self, task: TaskInfo) -> None:
        if self._database is not None:
            try:
                self._database.execute(
                    "insert or replace into tasks values (?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(task)
                )
            except sqlite3.Error as error:
                raise FatalError(f"cannot keep the state of task {task.task_id}: {error}") from error
        self._tasks[task.task_id] = task

    def _open(self, path: Path) -> None:
        try:
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            self._database.execute(
                "pragma locking_mode = exclusive"
            )  # from the first access until it is closed
            self._database.execute("pragma journal_mode = wal")
            self._database.execute("pragma synchronous = full")
            self._database.execute(_TABLE)
            rows = self._database.execute("select * from tasks order by created_at, rowid").fetchall()
            tasks = [_from_row(row) for row in rows]
        except (sqlite3.Error, ValueError, TypeError) as error:
            self.close()
            hint = "choose another path or move the file away"
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                hint = "another process, or another tracker here, has it open"
            raise ConfigurationError(f"{path} cannot be used for tasks: {error}; {hint}") from error
        for task in tasks:
            self._tasks[task.task_id] = task
            if _NEXT[task.status]:
                failed = replace(task, status=TaskStatus.FAILED, error="interrupted by a restart")
                self._keep(replace(failed, completed_at=self._now()))


def _row(task: TaskInfo) -> tuple[Any, ...]:
    try:
        result = None if task.result is None else json.dumps(task.result)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"a result must be JSON to be kept in a file: {error}") from error
    return (
        task.task_id,
        task.task_type,
        task.status.value,
        task.created_at.isoformat(),
        task.started_at.isoformat() if task.started_at else None,
        task.completed_at.isoformat() if task.completed_at else None,
        task.progress,
        result,
        task.error,
    )


def _from_row(row: tuple[Any, ...]) -> TaskInfo:
    task_id, task_type, status, created, started, completed, progress, result, error = row
    return TaskInfo(
        task_id=task_id,
        task_type=task_type,
        status=TaskStatus(status),
        created_at=datetime.fromisoformat(created),
        started_at=datetime.fromisoformat(started) if started else None,
        completed_at=datetime.fromisoformat(completed) if completed else None,
        progress=progress,
        result=None if result is None else json.loads(result),
        error=error,
    )
