"""Tasks go the ways that there are and no other, and a state file survives a restart."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.crosscutting.task_tracker import TaskTracker
from collectors.enums import TaskStatus
from collectors.errors import ConfigurationError

P, R, C, F, X = TaskStatus
ALLOWED = {(P, R), (P, F), (P, X), (R, C), (R, F), (R, X)}
START = datetime(2024, 1, 1, tzinfo=UTC)


def clock():
    ticks = count()
    return lambda: START + timedelta(seconds=next(ticks))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("status"), st.sampled_from(TaskStatus)),
        st.tuples(
            st.just("progress"), st.floats() | st.integers(-1, 2) | st.sampled_from(["0.5", None, True])
        ),
        st.tuples(st.just("cancel"), st.none()),
        st.tuples(st.just("result"), st.none() | st.lists(st.text() | st.integers())),
        st.tuples(st.just("error"), st.text()),
    ),
    max_size=8,
)


def take(tracker, task_id, step, argument, before):
    """Return the call of one step, and the error that has to come of it, if any."""
    if step == "status":
        wrong = argument is not before.status and (before.status, argument) not in ALLOWED
        return tracker.update_status(task_id, argument), ValueError if wrong else None
    if step == "progress":
        number = isinstance(argument, (int, float)) and not isinstance(argument, bool)
        return tracker.update_progress(
            task_id, argument
        ), None if number and 0 <= argument <= 1 else ValueError
    if step == "cancel":
        return tracker.cancel_task(task_id), RuntimeError if before.status in {C, F, X} else None
    set_it = tracker.set_result if step == "result" else tracker.set_error
    return set_it(task_id, argument), None


@pytest.mark.parametrize("durable", [False, True])
@settings(max_examples=100, deadline=None)
@given(path=steps)
def test_a_task_goes_only_the_ways_that_there_are(durable, path):
    async def main(folder):
        file = Path(folder) / "tasks.db" if durable else None
        with closing(TaskTracker(file, now=clock())) as tracker:
            task_id = await tracker.create_task("export")
            for step, argument in path:
                before = await tracker.get_task_info(task_id)
                call, expected = take(tracker, task_id, step, argument, before)
                if expected is None:
                    await call
                else:
                    with pytest.raises(expected):
                        await call
                    assert await tracker.get_task_info(task_id) == before
            last = await tracker.get_task_info(task_id)
        assert (last.completed_at is not None) is (last.status in {C, F, X})
        assert last.status in {P, F, X} or last.started_at is not None
        times = [each for each in (last.created_at, last.started_at, last.completed_at) if each is not None]
        assert times == sorted(times)
        if durable:
            with closing(TaskTracker(file)) as again:
                back = await again.get_task_info(task_id)
            if last.status in {C, F, X}:
                assert back == last
            else:
                assert (back.status, back.error) == (F, "interrupted by a restart")

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(folder))


def test_times_are_set_once_and_a_status_again_changes_nothing():
    async def main():
        tracker = TaskTracker(now=clock())
        task_id = await tracker.create_task("export")
        for status in (P, R, R, C, C):
            await tracker.update_status(task_id, status)
        task = await tracker.get_task_info(task_id)
        seconds = [(each - START).seconds for each in (task.created_at, task.started_at, task.completed_at)]
        assert seconds == [0, 1, 2]
        assert task.progress == 1.0

    asyncio.run(main())


def test_what_is_handed_out_is_a_copy():
    async def main():
        tracker = TaskTracker()
        task_id = await tracker.create_task("export")
        (await tracker.get_task_info(task_id)).status = C
        tracker.list_tasks()[0].progress = 1.0
        task = await tracker.get_task_info(task_id)
        assert (task.status, task.progress) == (P, 0.0)

    asyncio.run(main())


def test_tasks_are_listed_oldest_first():
    async def main():
        tracker = TaskTracker()
        ids = [await tracker.create_task(kind) for kind in "abc"]
        await tracker.cancel_task(ids[1])
        assert [task.task_id for task in tracker.list_tasks()] == ids
        assert [task.task_id for task in tracker.list_tasks(P)] == [ids[0], ids[2]]
        assert [task.task_id for task in tracker.list_tasks(X)] == [ids[1]]

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["", "  ", None, 7])
def test_a_task_needs_a_type(kind):
    with pytest.raises(ValueError, match="type"):
        asyncio.run(TaskTracker().create_task(kind))


def test_an_unknown_task_is_a_key_error_everywhere():
    async def main():
        tracker = TaskTracker()
        for call in (
            tracker.update_status("x", R),
            tracker.update_progress("x", 0.5),
            tracker.get_task_info("x"),
            tracker.cancel_task("x"),
            tracker.set_result("x", 1),
            tracker.set_error("x", "e"),
        ):
            with pytest.raises(KeyError):
                await call

    asyncio.run(main())


LIVES_ONCE = """
import asyncio, os, signal, sys
from collectors.crosscutting.task_tracker import TaskTracker
from collectors.enums import TaskStatus

async def main():
    tracker = TaskTracker(sys.argv[1])
    done, running = [await tracker.create_task(kind) for kind in ("done", "running")]
    for task_id in (done, running):
        await tracker.update_status(task_id, TaskStatus.RUNNING)
    await tracker.set_result(done, {"rows": [1, None, "ä"]})
    await tracker.update_status(done, TaskStatus.COMPLETED)
    print(await tracker.get_task_info(done), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_every_change_is_in_the_file_before_the_call_returns(tmp_path):
    file = tmp_path / "tasks.db"
    killed = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", LIVES_ONCE, str(file)],
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with closing(TaskTracker(file)) as tracker:
        done, running = tracker.list_tasks()
    assert str(done) == killed.stdout.strip()
    assert (done.result, running.status, running.error) == (
        {"rows": [1, None, "ä"]},
        F,
        "interrupted by a restart",
    )


def test_a_file_belongs_to_one_tracker_at_a_time(tmp_path):
    async def main():
        first = TaskTracker(tmp_path / "tasks.db")
        task_id = await first.create_task("export")
        await first.update_status(task_id, R)
        with pytest.raises(ConfigurationError, match="locked; another process, or another tracker here"):
            TaskTracker(tmp_path / "tasks.db")
        await first.update_status(task_id, C)
        first.close()
        first.close()
        with closing(TaskTracker(tmp_path / "tasks.db")) as second:
            assert (await second.get_task_info(task_id)).status is C

    asyncio.run(main())


def test_changes_at_the_same_time_all_count(tmp_path):
    async def main():
        with closing(TaskTracker(tmp_path / "tasks.db")) as tracker:
            task_id = await tracker.create_task("export")
            await tracker.update_status(task_id, R)
            ends = [tracker.update_status(task_id, status) for status in (C, F, X)]
            others = [tracker.set_result(task_id, 1), tracker.update_progress(task_id, 1.0)]
            came = await asyncio.gather(*ends, *others, return_exceptions=True)
            assert sum(isinstance(each, ValueError) for each in came[:3]) == 2
            assert came[3:] == [None, None]
            task = await tracker.get_task_info(task_id)
            assert (task.result, task.progress) == (1, 1.0)

    asyncio.run(main())


def test_what_was_interrupted_comes_back_as_failed_and_stays_so(tmp_path):
    async def main():
        with closing(TaskTracker(tmp_path / "tasks.db")) as tracker:
            ids = [await tracker.create_task(kind) for kind in ("pending", "running", "done")]
            await tracker.update_status(ids[1], R)
            await tracker.update_progress(ids[1], 0.25)
            await tracker.update_status(ids[2], R)
            await tracker.update_status(ids[2], C)
        for _ in range(2):
            with closing(TaskTracker(tmp_path / "tasks.db", now=clock())) as tracker:
                found = tracker.list_tasks()
            assert [task.task_id for task in found] == ids
            assert [task.status for task in found] == [F, F, C]
            assert [task.error for task in found] == ["interrupted by a restart"] * 2 + [None]
            assert [task.progress for task in found] == [0.0, 0.25, 1.0]
            assert found[0].completed_at == START

    asyncio.run(main())


def test_a_change_after_closing_is_refused_not_lost(tmp_path):
    async def main():
        tracker = TaskTracker(tmp_path / "tasks.db")
        task_id = await tracker.create_task("export")
        tracker.close()
        with pytest.raises(RuntimeError, match="cannot keep"):
            await tracker.update_status(task_id, R)
        assert (await tracker.get_task_info(task_id)).status is P

    asyncio.run(main())


def test_a_result_that_is_not_json_is_refused(tmp_path):
    async def main():
        with closing(TaskTracker(tmp_path / "tasks.db")) as tracker:
            task_id = await tracker.create_task("export")
            with pytest.raises(ValueError, match="JSON"):
                await tracker.set_result(task_id, {1, 2})
            assert (await tracker.get_task_info(task_id)).result is None

    asyncio.run(main())


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"x" * 5000])
def test_a_file_that_is_no_database_is_refused_and_untouched(tmp_path, content):
    file = tmp_path / "tasks.db"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"tasks\.db cannot be used for tasks.*another path"):
        TaskTracker(file)
    assert file.read_bytes() == content


@pytest.mark.parametrize("table", ["tasks (a)", "tasks (created_at)", "tasks (task_id, created_at, status)"])
def test_a_database_of_another_kind_is_refused(tmp_path, table):
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as database:
        database.execute(f"create table {table}")
        database.execute("insert into tasks default values")
        database.commit()
    with pytest.raises(ConfigurationError, match=r"tasks\.db cannot be used for tasks"):
        TaskTracker(tmp_path / "tasks.db")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be used for tasks"):
        TaskTracker(tmp_path)
