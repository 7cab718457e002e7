"""Cutting short what a task awaits: the task itself goes on, and nobody else's cancelling is taken for ours."""

from __future__ import annotations

import asyncio

import pytest

from collectors.runtime.reading import Interrupt


def test_work_that_is_done_first_gives_its_result():
    async def main():
        interrupt = Interrupt(asyncio.Event())
        assert [await interrupt.cut(asyncio.sleep(0, n)) for n in range(3)] == [0, 1, 2]
        interrupt.close()

    asyncio.run(main())


def test_the_event_cuts_it_short_and_the_task_goes_on():
    async def main():
        event = asyncio.Event()
        interrupt = Interrupt(event)
        asyncio.get_running_loop().call_soon(event.set)
        assert await interrupt.cut(asyncio.Event().wait()) is None
        assert await interrupt.cut(asyncio.Event().wait()) is None  # it stays set
        assert asyncio.current_task().cancelling() == 0
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        interrupt.close()

    asyncio.run(main())


@pytest.mark.parametrize("error", [ConnectionError, asyncio.CancelledError])
def test_work_that_answers_with_an_error_leaves_nothing_behind(error):
    async def work():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise error from None

    async def main():
        event = asyncio.Event()
        interrupt = Interrupt(event)
        asyncio.get_running_loop().call_soon(event.set)
        if error is ConnectionError:
            with pytest.raises(ConnectionError):
                await interrupt.cut(work())
        else:
            assert await interrupt.cut(work()) is None
        assert asyncio.current_task().cancelling() == 0

    asyncio.run(main())


def test_a_cancelled_task_is_cancelled_even_when_the_event_is_set_too():
    async def main():
        event, began = asyncio.Event(), asyncio.Event()

        async def read():
            interrupt = Interrupt(event)
            began.set()
            await interrupt.cut(asyncio.Event().wait())
            return "went on"

        task = asyncio.ensure_future(read())
        await began.wait()
        event.set()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
