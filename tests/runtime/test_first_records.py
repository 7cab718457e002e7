"""What comes first decides nothing for what comes behind it: bad records, and records without a column that a step needs."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest
from _push_client import Client, free_port

from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError
from collectors.runtime.dead_letters import look
from collectors.runtime.engine import Engine

FILTER = {"type": "filter", "where": "t > 1"}
STORE = {"type": "sqlite", "path": "out.db", "table": "rows"}


def config(folder, source, *processors):
    return from_mapping(
        {"sources": [source | {"id": "in"}], "processors": list(processors), "storage": [STORE]},
        folder=folder,
        name="test",
    )


def rows(folder):
    with closing(sqlite3.connect(folder / "out.db")) as connection:
        return sorted(connection.execute("SELECT t FROM rows"))


def reasons(config):
    return [letter.reason for letter in asyncio.run(look(config)).letters]


def test_a_file_of_bad_records_comes_first(tmp_path):
    (tmp_path / "a.ndjson").write_text("bad\n")
    (tmp_path / "b.ndjson").write_text('{"t":2}\n{"t":0}\n')
    set_up = config(tmp_path, {"type": "file", "path": "*.ndjson"}, FILTER)
    report = asyncio.run(Engine(set_up).run())
    assert report.balanced
    (counts,) = report.totals().values()
    assert (counts.read, counts.stored, counts.filtered, counts.set_aside) == (3, 1, 1, 1)
    assert rows(tmp_path) == [(2,)]


def test_bad_records_are_all_there_is_until_the_next_run(tmp_path):
    (tmp_path / "a.ndjson").write_text("bad\n")
    set_up = config(tmp_path, {"type": "file", "path": "*.ndjson"}, FILTER)
    assert asyncio.run(Engine(set_up).run()).balanced
    (tmp_path / "b.ndjson").write_text('{"t":2}\n')
    assert asyncio.run(Engine(set_up).run()).balanced
    assert rows(tmp_path) == [(2,)]


def test_a_column_that_a_file_does_not_have_stops_the_run(tmp_path):
    """Its records can be read again when the settings are right."""
    (tmp_path / "a.ndjson").write_text('{"x":1}\n')
    set_up = config(tmp_path, {"type": "file", "path": "*.ndjson"}, FILTER)
    (flow,) = asyncio.run(Engine(set_up).run()).flows
    assert isinstance(flow.error, ConfigurationError)
    assert "no column 't'" in str(flow.error)


@pytest.mark.parametrize("first", [[b"bad"], [b'{"x":1}'], [b"bad", b'{"x":1}', b'{"x":2}']], ids=repr)
def test_a_sender_cannot_stop_a_pipeline(tmp_path, first):
    port = free_port()
    set_up = config(tmp_path, {"type": "webhook", "listen": f"127.0.0.1:{port}"}, FILTER)

    def send(body):
        while True:
            try:
                with Client(port) as client:
                    return client.request(body).status
            except ConnectionRefusedError:
                continue

    async def main():
        engine = Engine(set_up)
        work = asyncio.ensure_future(engine.run())
        for body in [*first, b'{"t":2}', b'{"t":0}']:
            assert await asyncio.to_thread(send, body) == 200
        engine.stop()
        return await work

    report = asyncio.run(main())
    assert report.balanced
    assert [flow.error for flow in report.flows] == [None]
    (counts,) = report.totals().values()
    # Beside others that have the column a record without it is one whose value is null: filtered.
    assert counts.stored == 1
    assert counts.filtered + counts.set_aside == len(first) + 1
    assert rows(tmp_path) == [(2,)]
    assert len(reasons(set_up)) == counts.set_aside
