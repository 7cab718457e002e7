"""Back-off: within its ceiling, patient as long as told, and as long as the other side asks."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.errors import ConfigurationError, DataError, FatalError, FencedError, TransientError
from collectors.runtime.env import Env
from collectors.runtime.retry import LONGEST_SECONDS, Backoff, decide
from collectors.testing.clock import ManualEnv


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (TransientError("away"), "again"),
        (DataError("bad"), "aside"),
        (FatalError("no"), "stop"),
        (FencedError("taken"), "stop"),
        (ConfigurationError("wrong"), "stop"),
        (KeyError("a bug"), "stop"),
        (ConnectionError("not ours"), "stop"),
    ],
)
def test_decide(error, what):
    assert decide(error) == what


def test_grows_to_its_ceiling_and_starts_anew_after_success():
    backoff = Backoff(ManualEnv(), lambda: None)
    waits = [backoff.failed(TransientError("away")) for _ in range(12)]
    assert waits[:4] == [0.25, 0.5, 1.0, 2.0]
    assert waits[-1] == LONGEST_SECONDS / 2
    backoff.succeeded()
    assert backoff.failed(TransientError("away")) == 0.25


def test_retry_after_is_obeyed():
    assert Backoff(ManualEnv(), lambda: None).failed(TransientError("busy", retry_after=17)) == 17


def test_patience_ends():
    async def scenario():
        env = ManualEnv()
        backoff = Backoff(env, lambda: 60)
        assert backoff.failed(TransientError("away")) is not None
        await env.advance(59)
        assert backoff.failed(TransientError("away")) is not None
        await env.advance(1)
        assert backoff.failed(TransientError("away")) is None

    asyncio.run(scenario())


def test_while_patience_is_for_ever_no_time_is_counted():
    async def scenario():
        env, patience = ManualEnv(), [None]
        backoff = Backoff(env, lambda: patience[0])
        for _ in range(10):
            assert backoff.failed(TransientError("away")) is not None
            await env.advance(60)
        patience[0] = 60
        assert backoff.failed(TransientError("away")) is not None
        await env.advance(59)
        assert backoff.failed(TransientError("away")) is not None
        await env.advance(1)
        assert backoff.failed(TransientError("away")) is None

    asyncio.run(scenario())


@settings(max_examples=200)
@given(st.integers(1, 10_000))
def test_never_longer_than_a_minute(failures):
    backoff = Backoff(Env(), lambda: None)
    backoff.failures = failures - 1
    wait = backoff.failed(TransientError("away"))
    assert wait is not None
    assert 0 <= wait <= LONGEST_SECONDS
