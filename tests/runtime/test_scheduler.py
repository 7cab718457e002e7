"""Schedules: intervals with jitter, cron over the change of clocks, mistakes that are named."""

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from collectors import registry
from collectors.collection.base import Source, SourceConfig
from collectors.errors import ConfigurationError
from collectors.runtime.scheduler import Schedule, check_schedule, is_endless
from collectors.testing.clock import ManualEnv


def seconds_to_next(source, env):
    return Schedule(source, env, lambda _: None).seconds_to_next()


class Polled(Source[SourceConfig]):
    def read(self, since):
        return iter(())


def test_a_source_without_a_schedule_ends():
    source = Polled()
    assert seconds_to_next(source, ManualEnv()) is None
    assert not is_endless(source)


@pytest.mark.parametrize("name", ["webhook", "socket"])
def test_one_that_listens_goes_on(name):
    address = {"listen": "127.0.0.1:1"} if name == "webhook" else {"listen": "tcp://127.0.0.1:1"}
    assert is_endless(registry.create("source", name, address))


def test_interval_and_jitter():
    source = Polled(every="5s", jitter="2s")
    assert seconds_to_next(source, ManualEnv()) == 6.0
    assert is_endless(source)


def test_readings_are_due_at_fixed_times_however_long_each_takes():
    asyncio.run(_fixed_times())


async def _fixed_times():
    env, missed = ManualEnv(), []
    schedule = Schedule(Polled(every="5s"), env, missed.append)
    schedule.begin(anew=False)
    for took, wait in ((1.0, 4.0), (4.5, 0.5), (0.0, 5.0), (5.0, 5.0), (16.0, 4.0)):
        await env.advance(took)
        assert schedule.seconds_to_next() == pytest.approx(wait)
        await env.advance(wait)
        schedule.begin(anew=False)
    assert missed == [1, 3]


def test_after_a_failure_the_times_are_counted_anew():
    asyncio.run(_counted_anew())


async def _counted_anew():
    env, missed = ManualEnv(), []
    schedule = Schedule(Polled(every="5s"), env, missed.append)
    schedule.begin(anew=False)
    await env.advance(63.0)
    schedule.begin(anew=True)
    await env.advance(2.0)
    assert (schedule.seconds_to_next(), missed) == (3.0, [])


def test_cron_waits_for_its_time():
    source = Polled(cron="30 * * * *")
    assert seconds_to_next(source, ManualEnv(datetime(2026, 5, 1, 12, 0, tzinfo=UTC))) == 1800.0
    assert is_endless(source)


@pytest.fixture
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    os.environ.pop("TZ", None)
    time.tzset()


@pytest.mark.usefixtures("berlin")
def test_cron_fires_once_when_clocks_go_back():
    """On 2026-10-25 02:30 local time comes twice in Berlin; the second one is skipped."""
    source = Polled(cron="30 2 * * *")
    before = ManualEnv(datetime(2026, 10, 25, 0, 0, tzinfo=UTC))
    assert seconds_to_next(source, before) == 1800.0
    after = ManualEnv(datetime(2026, 10, 25, 0, 30, 1, tzinfo=UTC))
    assert seconds_to_next(source, after) == 25 * 3600 - 1


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize("start", [datetime(2026, 3, 27, tzinfo=UTC), datetime(2026, 10, 23, tzinfo=UTC)])
def test_cron_fires_once_a_day_over_a_change_of_clocks(start):
    source, now, fired = Polled(cron="30 4 * * *"), start, []
    while len(fired) < 5:
        now += timedelta(seconds=seconds_to_next(source, ManualEnv(now)))
        fired.append(now.astimezone())
    assert [(at.day, at.hour, at.minute) for at in fired] == [(start.day + n, 4, 30) for n in range(5)]


def test_both_is_refused():
    with pytest.raises(ConfigurationError, match="either `every` or `cron`"):
        check_schedule(Polled(every="1s", cron="* * * * *"))


def test_bad_cron_is_named():
    with pytest.raises(ConfigurationError, match=r"cron '61 \* \* \* \*'.*expected five fields"):
        check_schedule(Polled(cron="61 * * * *"))
