"""A run that is stopped while its source has received more than it has handed on."""

from __future__ import annotations

import asyncio
from collections import Counter

from _broker_pipeline import stored

from collectors.config.load import from_mapping
from collectors.runtime.engine import Engine
from collectors.storage.backends.sqlite import SqliteBackend
from collectors.testing.clock import ManualEnv


def stored_when_stopped(source, folder, wait=lambda: True) -> Counter:
    """Run until a stop that is asked for at the source's first chunk, once `wait` has returned; return what is stored."""
    store = SqliteBackend(path=str(folder / "out.db"), table="numbers")
    config = from_mapping({"sources": [source], "storage": [store]}, folder=folder, name="test")
    engine = Engine(config, env=ManualEnv())
    usual, stopped = source.chunk, []

    def chunk(*about, **more):
        if not stopped:
            assert wait()
            stopped.append(engine.stop())
        return usual(*about, **more)

    source.chunk = chunk
    assert asyncio.run(asyncio.wait_for(engine.run(), 20)).balanced
    return stored(folder)
