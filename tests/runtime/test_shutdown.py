"""Stopping: the first request drains, the second one or the deadline ends it."""

import asyncio

from collectors.runtime.shutdown import Shutdown
from collectors.testing.clock import ManualEnv


def test_second_request_expires_at_once():
    async def scenario():
        with Shutdown(ManualEnv()) as shutdown:
            shutdown.request()
            assert shutdown.requested.is_set()
            assert not shutdown.expired.is_set()
            shutdown.request()
            assert shutdown.expired.is_set()

    asyncio.run(scenario())


def test_deadline():
    async def scenario():
        env = ManualEnv()
        with Shutdown(env, deadline=30) as shutdown:
            shutdown.request()
            await asyncio.sleep(0)
            await env.advance(29)
            assert not shutdown.expired.is_set()
            await env.advance(1)
            assert shutdown.expired.is_set()

    asyncio.run(scenario())


def test_limit():
    async def scenario():
        env = ManualEnv()
        with Shutdown(env, limit=10) as shutdown:
            await asyncio.sleep(0)
            await env.advance(10)
            assert shutdown.requested.is_set()

    asyncio.run(scenario())
