"""What the tests of the specification run against: each interface's mock and its real implementations."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from collectors.crosscutting.error_handler import ErrorHandler
from collectors.crosscutting.event_emitter import EventEmitter
from collectors.crosscutting.task_tracker import TaskTracker
from collectors.interfaces import IDataSource
from collectors.mocks import (
    MockDataSource,
    MockErrorHandler,
    MockEventEmitter,
    MockProcessor,
    MockStorageBackend,
    MockTaskTracker,
)
from collectors.models import CollectedData
from collectors.processing.manager import FunctionProcessor
from collectors.storage.backends.memory import MemoryBackend
from collectors.storage.backends.sqlite import SqliteBackend


class Letters(IDataSource):
    """A source that knows nothing but the interface: one chunk a letter, `fail_at` raises instead."""

    def __init__(self, source_id, text="abc", fail_at=None):
        self.source_id, self.text, self.fail_at = source_id, text, fail_at
        self.connected = False

    async def connect(self):
        self.connected = True

    async def disconnect(self):
        self.connected = False

    async def collect(self):
        return self._chunk(0)

    async def collect_stream(self):
        for index in range(len(self.text)):
            yield self._chunk(index)

    def get_source_id(self):
        return self.source_id

    def _chunk(self, index):
        if not self.connected:
            raise ConnectionError("not connected")
        if index == self.fail_at:
            raise ValueError(f"letter {index} is torn")
        raw = self.text[index].encode()
        return CollectedData(self.source_id, datetime.now(UTC), "lines", "reading", raw, {})


@pytest.fixture(params=[Letters, MockDataSource])
def make_source(request):
    """Make a source that gives three chunks, from its id."""
    return request.param


@pytest.fixture
def letters():
    return Letters


@pytest.fixture(params=["memory", "sqlite", "mock"])
def make_backend(request, tmp_path):
    """Make an empty backend from its id."""
    if request.param == "memory":
        return lambda name: MemoryBackend(id=name)
    if request.param == "sqlite":
        return lambda name: SqliteBackend(id=name, path=str(tmp_path / f"{name}.db"))
    return MockStorageBackend


def named_function(name):
    def mark(data):
        return {**data, f"processed_by_{name}": True}

    return FunctionProcessor(mark, name)


@pytest.fixture(params=[named_function, MockProcessor])
def make_processor(request):
    """Make a processor from its name, which adds `processed_by_{name}: True`."""
    return request.param


@pytest.fixture(params=[TaskTracker, MockTaskTracker])
def tracker(request):
    return request.param()


@pytest.fixture(params=[EventEmitter, MockEventEmitter])
def make_emitter(request):
    return request.param


@pytest.fixture(params=[ErrorHandler, MockErrorHandler])
def make_handler(request):
    """Make a handler from the types that it takes."""
    return request.param
