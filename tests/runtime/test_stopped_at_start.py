"""A stop that is asked for while sources and stores are being reached."""

from __future__ import annotations

import asyncio

import pytest

from collectors.collection.base import Source, SourceConfig
from collectors.config.load import from_mapping
from collectors.runtime.engine import Engine
from collectors.testing._sim_stores import Store, make_backend
from collectors.testing.clock import ManualEnv


class Silent(Source[SourceConfig]):
    """Is never reached."""

    def __init__(self):
        super().__init__(SourceConfig(id="silent"))
        self.tried = asyncio.Event()

    async def open(self):
        self.tried.set()
        await asyncio.Event().wait()

    async def read(self, since):
        yield self.chunk(b"", None)


@pytest.mark.parametrize("turns", range(6))
def test_a_stop_before_the_run_has_begun_is_not_lost(tmp_path, turns):
    config = from_mapping(
        {"sources": [Silent()], "storage": [make_backend(Store("one", "lettered", 0, 1))]},
        folder=tmp_path,
        name="test",
    )
    engine = Engine(config, env=ManualEnv())

    async def main():
        running = asyncio.create_task(engine.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        engine.stop()
        return await asyncio.wait_for(running, 10)

    assert asyncio.run(main()).flows[0].status == "stopped"


def test_a_source_that_does_not_answer_does_not_keep_the_run_from_ending(tmp_path):
    source = Silent()
    config = from_mapping(
        {"sources": [source], "storage": [make_backend(Store("one", "lettered", 0, 1))]},
        folder=tmp_path,
        name="test",
    )
    engine = Engine(config, env=ManualEnv())

    async def main():
        running = asyncio.create_task(engine.run())
        await source.tried.wait()
        engine.stop()
        return await asyncio.wait_for(running, 10)

    report = asyncio.run(main())
    assert report.flows[0].status == "stopped"
