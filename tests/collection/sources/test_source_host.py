"""Readings of this machine: what is in them, and what they survive."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from types import SimpleNamespace

import psutil
import pytest

from collectors.collection.sources import host
from collectors.collection.sources.host import HostSource
from collectors.testing.source_contract import SourceContract

LIVE = "each reading is a new one; there are no records that wait"


class TestHost(SourceContract):
    component = "host"
    waive = {
        "position_survives_json": LIVE,
        "resume_from_every_position": LIVE,
        "read_again_from_earlier_position": LIVE,
        "nothing_twice_at_the_end": LIVE,
    }

    @asynccontextmanager
    async def rig(self, ids):
        yield {"metrics": ["load"]}

    def ids_of(self, chunk):
        return self.ids if b"load_1m" in chunk.raw_data else []

    def test_every_reading_is_whole(self):
        self.test_collect_gives_the_next_chunk()


def readings(count=1, **settings):
    async def main():
        source = HostSource(**settings)
        await source.connect()
        chunks = [await source.collect() for _ in range(count)]
        await source.disconnect()
        return [[json.loads(line) for line in chunk.raw_data.splitlines()] for chunk in chunks]

    return asyncio.run(main())


def test_every_record_says_when_where_and_what():
    (records,) = readings(metrics=["cpu", "load", "memory", "disk", "network", "processes"])
    assert {record["kind"] for record in records} >= {"cpu", "load", "memory", "disk", "process"}
    assert len({record["time"] for record in records}) == 1
    assert records[0]["time"].endswith("Z")
    assert all(record["host"] and record["name"] for record in records)


def test_every_column_is_described():
    (records,) = readings(metrics=["cpu", "load", "memory", "disk", "network", "processes"], per_cpu=True)
    columns = {column for record in records for column in record}
    assert not [column for column in columns if f"`{column}`" not in host.__doc__]


def test_only_what_is_asked_for_is_measured():
    (records,) = readings(metrics=["memory"])
    assert [(record["kind"], record["name"]) for record in records] == [
        ("memory", "physical"),
        ("memory", "swap"),
    ]
    assert records[0]["total_bytes"] == psutil.virtual_memory().total


def test_cpu_time_is_shared_out_between_two_readings(monkeypatch):
    cpu = psutil.cpu_times()._replace(user=10.0, system=5.0, idle=80.0, iowait=5.0)
    later = cpu._replace(user=16.0, system=6.0, idle=82.0, iowait=6.0)
    times = iter([cpu, later])
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu=False: next(times))
    (first,), (second,) = readings(2, metrics=["cpu"])
    assert first["percent"] is None
    assert (second["percent"], second["user_percent"], second["system_percent"]) == (70.0, 60.0, 10.0)
    assert second["iowait_percent"] == 10.0


def test_rates_are_per_second_and_unknown_at_first_and_after_a_reset(monkeypatch):
    names = ["bytes_sent", "packets_sent", "packets_recv", "errin", "errout", "dropin", "dropout"]

    def moved(received):
        return {"eth0": SimpleNamespace(**dict.fromkeys(names, 0), bytes_recv=received)}

    counters = iter([moved(1000), moved(4000), moved(10)])
    clock = iter([100.0, 102.0, 104.0])
    monkeypatch.setattr(psutil, "net_io_counters", lambda pernic: next(counters))
    monkeypatch.setattr(host, "monotonic", lambda: next(clock))
    rates = [records[0]["received_bytes_per_second"] for records in readings(3, metrics=["network"])]
    assert rates == [None, 1500.0, None]


def test_processes_that_use_most_come_first_and_no_more_than_asked_for():
    (records,) = readings(metrics=["processes"], top=3)
    assert len(records) <= 3
    memory = [record["memory_bytes"] for record in records]
    assert memory == sorted(memory, reverse=True)


@pytest.mark.parametrize("error", [psutil.NoSuchProcess(1), psutil.AccessDenied(1), psutil.ZombieProcess(1)])
def test_a_process_that_vanishes_is_left_out(monkeypatch, error):
    def vanish(_self):
        raise error

    monkeypatch.setattr(psutil.Process, "username", vanish)
    assert readings(metrics=["processes"]) == [[]]


def test_a_disk_that_is_unmounted_meanwhile_is_left_out(monkeypatch):
    def gone(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr(psutil, "disk_usage", gone)
    monkeypatch.setattr(psutil, "disk_io_counters", lambda perdisk: None)
    assert readings(metrics=["disk"]) == [[]]


def test_it_reads_every_ten_seconds_unless_told():
    assert HostSource().poll_interval() == 10.0
    assert HostSource(every="1s").poll_interval() == 1.0
    assert HostSource(once=True).poll_interval() is None


def test_a_metric_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="metrics"):
        HostSource(metrics=["cpus"])
