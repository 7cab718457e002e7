"""Chunks without bytes: they move the position, and say nothing of what columns there are."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing

import pytest

from collectors.collection.base import Source, SourceConfig
from collectors.config.load import from_mapping
from collectors.errors import CollectorsError
from collectors.runtime.engine import Engine
from collectors.runtime.sampling import sample


class MovingConfig(SourceConfig):
    """Settings of the source."""

    chunks: list[str]
    """What it gives, each as a chunk."""


class Moving(Source[MovingConfig]):
    """Gives its chunks with their numbers as positions, and tells and counts something."""

    def format(self):
        return {"type": "ndjson", "columns": {"key": "string"}}

    def read(self, since):
        for number in range(since["n"] if since else 0, len(self.config.chunks)):
            yield self.chunk(self.config.chunks[number].encode(), {"n": number + 1})
        self.tell("that was all")
        self.count_lost(3)


def config(folder, chunks, **more):
    storage = [{"type": "sqlite", "path": str(folder / "out.db"), "table": "rows"}]
    processors = [{"type": "filter", "where": "id > 0"}]
    mapping = {
        "name": "p",
        "sources": [Moving(id="s", chunks=chunks)],
        "processors": processors,
        "storage": storage,
    }
    return from_mapping(mapping | more, folder=folder)


def run(folder, chunks):
    return asyncio.run(Engine(config(folder, chunks)).run())


def question(folder, text):
    with closing(sqlite3.connect(folder / "out.db")) as database:
        return database.execute(text).fetchall()


def position(folder):
    ((found,),) = question(folder, "select position from _collectors_checkpoint")
    return json.loads(found)


@pytest.mark.parametrize(
    "chunks", [["", ""], ["", '{"id": 1}\n', ""], ['{"id": 1}\n{"id": 2}', "", "", '{"id": 3}\n']]
)
def test_moves_the_position(tmp_path, chunks):
    report = run(tmp_path, chunks)
    assert report.balanced
    assert not report.failed
    assert position(tmp_path) == {"n": len(chunks)}
    records = sum(chunk.count("id") for chunk in chunks)
    assert report.flows[0].read == records
    if records:
        assert question(tmp_path, "select id from rows") == [(n + 1,) for n in range(records)]
    assert run(tmp_path, [*chunks, '{"id": 9}']).flows[0].read == 1


def test_is_no_sample(tmp_path):
    (found,) = asyncio.run(sample(config(tmp_path, ["", '{"id": 1}\n']), 5.0))
    assert (found.read, found.problem) == (1, None)


def test_columns_that_are_not_there_are_still_told(tmp_path):
    report = run(tmp_path, ["", '{"other": 1}\n'])
    assert isinstance(report.failed[0].error, CollectorsError)
    assert "no column 'id'" in str(report.failed[0].error)


def test_what_a_source_without_a_spool_tells_is_in_the_report(tmp_path):
    (flow,) = run(tmp_path, [""]).flows
    assert "that was all" in flow.notices
    assert flow.lost == 3
