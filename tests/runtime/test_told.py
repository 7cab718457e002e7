"""What a source has to tell is shown and stands in the report of the run, with a spool and without one."""

from __future__ import annotations

import asyncio

import pytest

from collectors.collection.base import Source, SourceConfig
from collectors.config.load import from_mapping
from collectors.runtime.engine import Engine


class Telling(Source[SourceConfig]):
    """Tells something while it reads."""

    def __init__(self, spooled):
        super().__init__(SourceConfig(id="telling"))
        self.spooled = spooled

    def needs_spool(self):
        return self.spooled

    def read(self, since):
        if since is None:
            self.tell("the sea is rough")
            yield self.chunk(b'{"n": 1}\n', {"n": 1})


@pytest.mark.parametrize("spooled", [False, True])
def test_what_a_source_tells(tmp_path, spooled):
    shown = []
    config = from_mapping(
        {"sources": [Telling(spooled)], "storage": [{"type": "memory"}], "state": str(tmp_path)}, name="p"
    )
    (flow,) = asyncio.run(Engine(config, on_notice=shown.append).run()).flows
    assert flow.notices == ["the sea is rough"]
    assert shown == ["source 'telling': the sea is rough"]
