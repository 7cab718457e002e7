"""Subscribers can neither slow nor break what they are told about, and nothing of them is left behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.crosscutting.event_emitter import EventEmitter
from collectors.enums import EventType
from collectors.models import SystemEvent

KIND = EventType.STORAGE_COMPLETE


def event(n=0, kind=KIND):
    return SystemEvent(kind, datetime.now(UTC), "test", {"n": n})


async def no_task_is_left():
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_emit_does_not_wait_for_a_slow_subscriber():
    async def main():
        emitter, may_go_on, seen = EventEmitter(), asyncio.Event(), []

        async def slow(told):
            await may_go_on.wait()
            seen.append(told.data["n"])

        await emitter.subscribe(KIND, slow)
        for n in range(100):
            await emitter.emit(event(n))
        assert seen == []
        may_go_on.set()
        await emitter.drain()
        assert seen == list(range(100))
        await no_task_is_left()

    asyncio.run(main())


def test_emit_does_not_wait_for_a_plain_function_that_blocks():
    async def main():
        emitter, may_go_on, seen = EventEmitter(), threading.Event(), []

        def blocks(told):
            assert may_go_on.wait(10)
            seen.append(told.data["n"])

        await emitter.subscribe(KIND, blocks)
        for n in range(5):
            await emitter.emit(event(n))
        assert seen == []
        may_go_on.set()
        await emitter.drain()
        assert seen == [0, 1, 2, 3, 4]

    asyncio.run(main())


def test_a_slow_subscriber_does_not_slow_another():
    async def main():
        emitter, never, done = EventEmitter(), asyncio.Event(), asyncio.Event()

        async def stuck(told):
            await never.wait()

        async def quick(told):
            done.set()

        await emitter.subscribe(KIND, stuck)
        await emitter.subscribe(KIND, quick)
        await emitter.emit(event())
        await asyncio.wait_for(done.wait(), 10)
        await emitter.close()
        await no_task_is_left()

    asyncio.run(main())


def test_plain_functions_that_block_take_no_thread_that_others_need():
    async def main():
        emitter, may_go_on = EventEmitter(), threading.Event()
        for _ in range(40):
            await emitter.subscribe(KIND, lambda told: may_go_on.wait(30))
        await emitter.emit(event())
        async with asyncio.timeout(10):
            assert (
                await asyncio.to_thread(lambda: "a thread of the loop's own") == "a thread of the loop's own"
            )
        may_go_on.set()
        await emitter.drain()

    asyncio.run(main())


HANGS = """
import asyncio, threading
from datetime import UTC, datetime
from collectors.crosscutting.event_emitter import EventEmitter
from collectors.enums import EventType
from collectors.models import SystemEvent

async def main():
    emitter, began = EventEmitter(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hangs(told):
        loop.call_soon_threadsafe(began.set)
        threading.Event().wait()

    await emitter.subscribe(EventType.STORAGE_START, hangs)
    await emitter.emit(SystemEvent(EventType.STORAGE_START, datetime.now(UTC), "test", {}))
    await began.wait()

asyncio.run(main())
print("ended")
"""


def test_a_function_that_hangs_for_ever_does_not_keep_the_program_from_ending():
    done = subprocess.run(
        [sys.executable, "-c", HANGS], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr, done.returncode) == ("ended\n", "", 0)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
def test_a_plain_function_cannot_end_the_program(error):
    async def main():
        emitter, seen = EventEmitter(), []

        def leaves(told):
            seen.append(told.data["n"])
            raise error

        subscription = await emitter.subscribe(KIND, leaves)
        for n in range(2):
            await emitter.emit(event(n))
        await emitter.drain()
        assert (seen, emitter.failures(subscription)) == ([0, 1], 2)

    asyncio.run(main())


def test_a_handler_may_wait_for_the_other_handlers():
    async def main():
        emitter, seen = EventEmitter(), []

        async def waits(told):
            await emitter.drain()
            seen.append("all others are through")

        await emitter.subscribe(KIND, waits)
        await emitter.subscribe(KIND, lambda told: seen.append("other"))
        await emitter.emit(event())
        async with asyncio.timeout(10):
            await emitter.drain()
        assert seen == ["other", "all others are through"]

    asyncio.run(main())


@pytest.mark.parametrize("error", [ValueError("bad"), StopIteration(), KeyError()])
@pytest.mark.parametrize("is_async", [True, False])
def test_a_subscriber_that_raises_is_logged_counted_and_goes_on(caplog, error, is_async):
    async def main():
        emitter, seen = EventEmitter(), []

        def raises(told):
            seen.append(told.data["n"])
            if told.data["n"] % 2:
                raise error

        async def raises_later(told):
            raises(told)

        subscription = await emitter.subscribe(KIND, raises_later if is_async else raises)
        for n in range(4):
            await emitter.emit(event(n))
        async with asyncio.timeout(10):
            await emitter.drain()
        assert seen == [0, 1, 2, 3]
        assert emitter.failures(subscription) == 2
        assert emitter.dropped(subscription) == 0
        await no_task_is_left()

    asyncio.run(main())
    assert caplog.text.count("a subscriber of storage_complete events failed") == 2


def test_the_oldest_events_are_dropped_and_counted():
    async def main():
        emitter, may_go_on, began, seen = EventEmitter(capacity=3), asyncio.Event(), asyncio.Event(), []

        async def slow(told):
            began.set()
            await may_go_on.wait()
            seen.append(told.data["n"])

        subscription = await emitter.subscribe(KIND, slow)
        await emitter.emit(event(0))
        await began.wait()
        for n in range(1, 11):
            await emitter.emit(event(n))
        assert emitter.dropped(subscription) == 7
        may_go_on.set()
        await emitter.drain()
        assert seen == [0, 8, 9, 10]

    asyncio.run(main())


@settings(max_examples=100, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(EventType), max_size=40),
    subscribed=st.lists(st.tuples(st.sampled_from(EventType), st.booleans()), min_size=1, max_size=6),
    capacity=st.integers(1, 50),
)
def test_each_subscriber_gets_its_events_in_order_or_they_are_counted(kinds, subscribed, capacity):
    async def main():
        emitter, got = EventEmitter(capacity), [[] for _ in subscribed]
        ids = []
        for (kind, is_async), into in zip(subscribed, got, strict=True):

            async def later(told, into=into):
                into.append(told.data["n"])

            def plain(told, into=into):
                into.append(told.data["n"])

            ids.append(await emitter.subscribe(kind, later if is_async else plain))
        for n, kind in enumerate(kinds):
            await emitter.emit(event(n, kind))
        await emitter.drain()
        for (kind, _), into, subscription in zip(subscribed, got, ids, strict=True):
            due = [n for n, each in enumerate(kinds) if each is kind]
            dropped = emitter.dropped(subscription)
            assert into == due[dropped:]
            assert dropped == max(0, len(due) - capacity)
        await emitter.close()
        await no_task_is_left()

    asyncio.run(main())


def test_what_is_queued_is_not_delivered_after_unsubscribing():
    async def main():
        emitter, began, never, seen = EventEmitter(), asyncio.Event(), asyncio.Event(), []

        async def stuck(told):
            seen.append(told.data["n"])
            began.set()
            await never.wait()

        subscription = await emitter.subscribe(KIND, stuck)
        for n in range(3):
            await emitter.emit(event(n))
        await began.wait()
        await emitter.unsubscribe(subscription)
        await emitter.drain()
        assert seen == [0]
        await no_task_is_left()
        for ask in (emitter.dropped, emitter.failures):
            with pytest.raises(KeyError):
                ask(subscription)

    asyncio.run(main())


def test_a_subscriber_may_unsubscribe_itself():
    async def main():
        emitter, seen = EventEmitter(), []

        async def once(told):
            seen.append(told.data["n"])
            await emitter.unsubscribe(subscription)
            seen.append("unsubscribed")

        subscription = await emitter.subscribe(KIND, once)
        for n in range(3):
            await emitter.emit(event(n))
        (worker,) = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(worker, 10)
        assert seen == [0, "unsubscribed"]

    asyncio.run(main())


def test_a_closed_emitter_raises():
    async def main():
        emitter = EventEmitter()
        await emitter.subscribe(KIND, print)
        await emitter.close()
        await emitter.close()
        with pytest.raises(RuntimeError, match="closed"):
            await emitter.emit(event())

    asyncio.run(main())


@pytest.mark.parametrize("bad", [None, {}, "storage_complete", SystemEvent("x", datetime.now(UTC), "s", {})])
def test_what_is_no_event_is_refused(bad):
    async def main():
        with pytest.raises(ValueError, match="SystemEvent"):
            await EventEmitter().emit(bad)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "handler"), [("storage_complete", print), (None, print), (KIND, None), (KIND, 7)]
)
def test_what_cannot_be_subscribed_is_refused(kind, handler):
    async def main():
        with pytest.raises(ValueError, match="expected"):
            await EventEmitter().subscribe(kind, handler)

    asyncio.run(main())


def test_an_object_with_an_async_call_is_a_handler():
    async def main():
        emitter, seen = EventEmitter(), []

        class Handler:
            async def __call__(self, told):
                seen.append(told.data["n"])

        await emitter.subscribe(KIND, Handler())
        await emitter.emit(event(1))
        await emitter.drain()
        assert seen == [1]

    asyncio.run(main())
