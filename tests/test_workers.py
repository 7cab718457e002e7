"""Worker threads: results and errors come back, order where there is one, as many threads as are needed, none kept."""

import asyncio
import gc
import os
import threading
import time
import weakref
from contextvars import ContextVar

import pytest

from collectors import workers
from collectors.workers import Workers, resting


def refuse(value):
    raise ValueError(value)


def stop(value):
    raise StopIteration(value)


def test_results_and_errors_come_back():
    async def main():
        hands = Workers("test", 2)
        results = await asyncio.gather(*(hands.call(pow, 2, n) for n in range(500)))
        with pytest.raises(ValueError, match="no"):
            await hands.call(refuse, "no")
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            await hands.call(stop, 1)
        hands.close()
        with pytest.raises(RuntimeError, match="closed"):
            hands.call(int)
        return results

    assert asyncio.run(main()) == [2**n for n in range(500)]
    assert not [each for each in threading.enumerate() if each.name.startswith("test_")]


def test_one_thread_keeps_the_order_and_close_waits_for_what_is_there():
    async def main():
        hands, seen = Workers("test"), []
        calls = [hands.call(seen.append, n) for n in range(1000)]
        hands.close()
        assert seen == list(range(1000))
        await asyncio.gather(*calls)

    asyncio.run(main())


def test_what_is_cancelled_before_it_began_is_left_out():
    async def main():
        hands, go, seen = Workers("test"), threading.Event(), []
        first = hands.call(go.wait, 10)
        second = hands.call(seen.append, 2)
        third = hands.call(seen.append, 3)
        second.cancel()
        go.set()
        assert await first
        await third
        hands.close()
        return seen

    assert asyncio.run(main()) == [3]


def test_calls_that_block_do_not_keep_others_waiting():
    """Without a limit: fifty that wait for one another."""

    async def main():
        hands, together = Workers("test", None), threading.Barrier(50)
        await asyncio.wait_for(asyncio.gather(*(hands.call(together.wait, 10) for _ in range(50))), 10)
        quick = [hands.call(int) for _ in range(100)]
        await asyncio.gather(*quick)
        while not {thread.name for thread in resting()} >= {
            "test_1",
            "test_2",
        }:  # they go there behind their last call
            await asyncio.sleep(0)
        hands.close(wait=False)

    asyncio.run(main())


@pytest.mark.parametrize("most", [None, 8])
def test_one_that_is_about_to_be_busy_is_not_idle(most):
    """Two calls in one step while one thread is idle: the first may block for as long as it likes."""

    async def main():
        hands, go = Workers("test", most), threading.Event()
        for _ in range(20):
            await hands.call(int)
            blocked, quick = hands.call(go.wait, 10), hands.call(int, 7)
            assert await asyncio.wait_for(quick, 5) == 7
            go.set()
            await blocked
            go.clear()
        hands.close()

    asyncio.run(main())


def test_quick_calls_need_few_threads():
    async def main():
        hands = Workers("test", None)
        for _ in range(20):
            await asyncio.gather(*(hands.call(int) for _ in range(50)))
        made = hands._made
        hands.close()
        return made

    assert asyncio.run(main()) < 20


def test_threads_without_work_end_and_come_again(monkeypatch):
    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.01)

    async def main():
        hands, ended = Workers("test", None), 0
        for n in range(200):
            assert await asyncio.wait_for(hands.call(int, n), 10) == n
            if n % 20 == 0:
                # One that was woken for nothing at its last moment waits for the next call: CPython's queue then
                # forgets that it should not wait.
                latest = asyncio.get_running_loop().time() + 1
                while hands._threads and asyncio.get_running_loop().time() < latest:
                    await asyncio.sleep(0)
                ended += not hands._threads
        assert ended > 5
        hands.close()

    asyncio.run(main())


def test_a_thread_that_waits_keeps_nothing():
    class Large:
        pass

    async def main():
        hands, large = Workers("test"), Large()
        seen = weakref.ref(large)
        call = hands.call(lambda it: it, large)
        await call
        while not hands.idle:
            await asyncio.sleep(0)
        del call, large
        await asyncio.sleep(0)  # the event loop lets go of what has brought us here
        gc.collect()
        assert seen() is None
        hands.close()

    asyncio.run(main())


def test_another_loop_goes_on_with_the_same_workers():
    hands = Workers("test")

    async def main(n):
        return await hands.call(int, n)

    assert [asyncio.run(main(n)) for n in range(5)] == list(range(5))
    hands.close()


def test_event_loops_of_several_threads_share_them():
    """Each gets its own results, in its own thread."""
    hands, problems = Workers("test", most=None), []

    async def ask(first):
        here = threading.get_ident()
        for start in range(first, first + 2000, 20):
            numbers = range(start, start + 20)
            found = await asyncio.wait_for(asyncio.gather(*(hands.call(int, n) for n in numbers)), 30)
            if found != list(numbers) or threading.get_ident() != here:
                problems.append((first, found))

    loops = [
        threading.Thread(target=asyncio.run, args=(ask(n * 10_000),), kwargs={"debug": True}, daemon=True)
        for n in range(4)
    ]
    for each in loops:
        each.start()
    for each in loops:
        each.join(60)
    assert not any(each.is_alive() for each in loops)
    assert problems == []
    hands.close()


def test_an_event_loop_that_is_over_is_let_go():
    hands = Workers("test", most=None)

    async def main():
        await hands.call(int)
        return weakref.ref(asyncio.get_running_loop())

    gone = asyncio.run(main())
    gc.collect()
    assert gone() is None
    hands.close()


@pytest.mark.parametrize("closed", ["before", "behind"])
def test_what_came_too_late_for_an_event_loop_is_let_go(closed):
    """Before it has come, or behind that and in front of its delivery."""

    class Large:
        pass

    hands, go, made = Workers("test", most=None), threading.Event(), []

    def late():
        go.wait(10)
        large = Large()
        made.append(weakref.ref(large))
        return large

    async def ask(others):
        await others.call(int)
        others.close()

    async def leave():
        for _ in range(2):
            hands.call(late)
        while hands._jobs.qsize():
            await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    if closed == "before":
        loop.close()
    go.set()
    hands.close()
    loop.close()
    del loop
    asyncio.run(ask(Workers("another")))
    gc.collect()
    assert [each() for each in made] == [None, None]


def test_a_forked_child_has_threads_of_its_own():
    async def main():
        return await asyncio.wait_for(workers.in_thread(int, 7), 20)

    assert asyncio.run(main()) == 7
    while not workers._sources.idle:  # which the child must not take for one of its own
        time.sleep(0.001)
    child = os.fork()
    if not child:
        try:
            os._exit(asyncio.run(main()))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7


def test_a_thread_sees_the_context_of_who_calls_it_and_changes_none():
    tenant = ContextVar("tenant", default="nobody")

    async def main():
        tenant.set("acme")
        assert await workers.in_thread(tenant.get) == "acme"
        await workers.in_thread(tenant.set, "another")
        assert tenant.get() == "acme"
        assert await workers.in_thread(tenant.get) == "acme"

    asyncio.run(main())
