"""The byte budget: nothing is admitted beyond it, everybody gets in, nothing leaks."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.runtime.budget import Budget


def test_waits_until_there_is_room():
    async def scenario():
        budget = Budget(100)
        first, second = budget.share(), budget.share()
        await first.acquire(75)
        waiting = asyncio.ensure_future(second.acquire(60))
        await asyncio.sleep(0)
        assert not waiting.done()
        first.release(75)
        await waiting
        assert budget.used == 60

    asyncio.run(scenario())


def test_a_chunk_larger_than_the_budget_goes_alone():
    async def scenario():
        budget = Budget(100)
        share = budget.share()
        await share.acquire(1000)
        other = asyncio.ensure_future(share.acquire(1))
        await asyncio.sleep(0)
        assert not other.done()
        share.release(1000)
        await other

    asyncio.run(scenario())


def test_a_full_flow_leaves_the_others_their_floor():
    async def scenario():
        budget = Budget(1000)
        hog, other = budget.share(), budget.share()
        floor = 1000 // 2 // 2
        await hog.acquire(500 + floor)
        full = asyncio.ensure_future(hog.acquire(1))
        await asyncio.wait_for(other.acquire(floor), 1)
        assert not full.done()
        full.cancel()

    asyncio.run(scenario())


def test_a_cancelled_wait_leaves_nothing_charged():
    async def scenario():
        budget = Budget(10)
        share = budget.share()
        await share.acquire(10)
        waiting = asyncio.ensure_future(share.acquire(5))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        share.release(10)
        assert budget.used == 0
        await asyncio.wait_for(share.acquire(10), 1)

    asyncio.run(scenario())


def test_cancelled_in_the_moment_of_being_admitted():
    async def scenario():
        budget = Budget(10)
        share = budget.share()
        await share.acquire(10)
        waiting = asyncio.ensure_future(share.acquire(5))
        await asyncio.sleep(0)
        share.release(10)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert budget.used == 0

    asyncio.run(scenario())


@settings(max_examples=150, deadline=None)
@given(
    st.integers(50, 500),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 120)), min_size=1, max_size=40),
)
def test_everybody_gets_in_and_the_limit_holds(limit, wishes):
    async def scenario():
        budget = Budget(limit)
        shares = [budget.share() for _ in range(4)]

        async def work(share, size):
            await share.acquire(size)
            assert budget.used <= max(limit, size)
            await asyncio.sleep(0)
            share.release(size)

        await asyncio.wait_for(asyncio.gather(*(work(shares[flow], size) for flow, size in wishes)), 5)
        assert budget.used == 0
        assert budget.peak <= max(limit, *(size for _, size in wishes))

    asyncio.run(scenario())


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_only_so_much_is_decoded_at_once_and_in_turn(sizes):
    async def scenario():
        budget = Budget(16 * 16)
        under_way, begun = [], []

        async def decode(number, size):
            async with budget.share().decoding(size):
                begun.append(number)
                under_way.append(size)
                assert len(under_way) == 1 or sum(under_way) <= 16
                await asyncio.sleep(0)
                under_way.remove(size)

        async with asyncio.TaskGroup() as tasks:
            for number, size in enumerate(sizes):
                tasks.create_task(decode(number, size))
        assert begun == list(range(len(sizes)))

    asyncio.run(scenario())
