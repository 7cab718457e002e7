"""Sources of one group: read each by itself, kept, stored and reported as one; nothing of any is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

import pytest

from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError, FatalError, TransientError
from collectors.runtime.engine import Engine
from collectors.testing.clock import ManualEnv

SIZE = 50


class Sensors:
    """Functions that count their calls; `broken` is the number of one that fails for good behind its second reading."""

    def __init__(self, broken=None, away=None):
        self.calls = [0] * SIZE
        self.broken, self.away = broken, away

    def sensor(self, number):
        def read():
            self.calls[number] += 1
            if number == self.broken and self.calls[number] > 2:
                raise FatalError("burnt out")
            if number == self.away and self.calls[number] == 2:
                raise TransientError("no answer")
            return {"sensor": number, "n": self.calls[number]}

        return read

    def sources(self, **settings):
        return [
            {"type": "python", "id": f"s{n}", "function": self.sensor(n), "every": "1s", "group": "sensors"}
            | settings
            for n in range(SIZE)
        ]


def stored(folder):
    with contextlib.closing(sqlite3.connect(folder / "out.db")) as connection:
        return connection.execute("select sensor, n from sensors order by sensor, n").fetchall()


async def run_until(engine, env, done):
    work = asyncio.ensure_future(engine.run())
    while not done() and not work.done():
        await env.advance(0.25)
        await asyncio.to_thread(int)
    engine.stop()
    return await work


def run(tmp_path, sensors, done, **settings):
    env = ManualEnv()
    storage = [{"type": "sqlite", "path": "out.db"}]
    config = from_mapping(
        {"sources": sensors.sources(**settings), "storage": storage}, folder=tmp_path, name="test"
    )
    return asyncio.run(run_until(Engine(config, env=env), env, done))


def test_each_reading_is_stored_once_and_reported_as_one_source(tmp_path):
    sensors = Sensors()
    report = run(tmp_path, sensors, lambda: min(sensors.calls) >= 5)
    assert report.balanced
    (flow,) = report.flows
    assert (flow.source, flow.read) == ("sensors", sum(sensors.calls))
    assert stored(tmp_path) == [(s, n + 1) for s, calls in enumerate(sensors.calls) for n in range(calls)]
    assert [path.name for path in (tmp_path / ".collectors/test/spool").iterdir()] == ["sensors"]

    again = Sensors()
    report = run(tmp_path, again, lambda: min(again.calls) >= 1)
    assert report.balanced
    assert len(stored(tmp_path)) == sum(sensors.calls) + sum(again.calls)


def test_one_that_cannot_go_on_leaves_the_others_alone(tmp_path):
    sensors = Sensors(broken=7)
    report = run(tmp_path, sensors, lambda: min(sensors.calls[:7]) >= 6)
    (failed,) = report.failed
    assert "burnt out" in str(failed.error)
    rows = stored(tmp_path)
    assert [n for sensor, n in rows if sensor == 7] == [1, 2]
    assert {sensor for sensor, n in rows if n >= 5} == set(range(SIZE)) - {7}


def test_one_that_is_away_is_read_again(tmp_path):
    sensors = Sensors(away=3)
    report = run(tmp_path, sensors, lambda: sensors.calls[3] >= 4)
    assert report.balanced
    assert [n for sensor, n in stored(tmp_path) if sensor == 3][:3] == [1, 3, 4]


def test_bad_records_of_all_of_them_are_in_the_dead_letters(tmp_path):
    class Odd(Sensors):
        def sensor(self, number):
            return super().sensor(number) if number else lambda: {"sensor": float("nan"), "n": 1}

    sensors = Odd()
    report = run(tmp_path, sensors, lambda: min(sensors.calls[1:]) >= 3)
    assert report.balanced
    assert report.set_aside >= 2
    assert report.flows[0].read == report.set_aside + sum(sensors.calls)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"every": None}, r"sources\[1\]\.group.*'b' is not polled"),
        ({"function": lambda since: None}, r"sources\[1\]\.group.*a position of its own"),
        ({"format": "csv"}, r"sources\[1\]\.group.*another `format`"),
        ({"stop_above": "1%"}, r"sources\[1\]\.group.*`stop_above`"),
        (
            {"type": "webhook", "listen": "127.0.0.1:1", "function": None},
            r"sources\[1\]\.group.*answers its senders",
        ),
        ({"group": None, "id": "g"}, r"sources\[0\]\.group.*a source of this name already"),
    ],
)
def test_what_cannot_be_in_a_group_is_told(tmp_path, change, words):
    first = {"type": "python", "id": "a", "function": dict, "every": "1s", "group": "g"}
    second = {key: value for key, value in ({**first, "id": "b"} | change).items() if value is not None}
    with pytest.raises(ConfigurationError, match=words):
        from_mapping({"sources": [first, second], "storage": ["memory"]}, folder=tmp_path)


def test_routes_name_the_group(tmp_path):
    sources = [{"type": "python", "id": name, "function": dict, "every": "1s", "group": "g"} for name in "ab"]
    mapping = {"sources": sources, "storage": ["memory"], "pipelines": {"one": {"from": "g"}}}
    assert from_mapping(mapping, folder=tmp_path).routes[0].sources == ("g",)
    mapping["pipelines"]["one"]["from"] = "a"
    with pytest.raises(ConfigurationError, match="there is no such id"):
        from_mapping(mapping, folder=tmp_path)
