"""Properties P10 to P17 of the specification (errors, statistics, events), over generated inputs and histories."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.collection.manager import CollectionManager
from collectors.crosscutting.error_handler import ErrorHandler, ErrorHandlerRegistry
from collectors.crosscutting.event_emitter import EventEmitter
from collectors.enums import CollectionStatus, ErrorType, EventType
from collectors.errors import ConfigurationError, DataError, FatalError, FencedError, TransientError, to_info
from collectors.interfaces import IDataSource, IErrorHandler, IProcessor
from collectors.mocks import MockErrorHandler, MockEventEmitter, MockProcessor, MockStorageBackend
from collectors.models import CollectedData, ErrorInfo, ProcessingResult
from collectors.processing.manager import ProcessingManager
from collectors.storage.backends.memory import MemoryBackend
from collectors.storage.backends.sqlite import SqliteBackend
from collectors.storage.manager import StorageManager

thorough = settings(max_examples=100, deadline=None)
odd_texts = st.text(max_size=20) | st.sampled_from(["", "\0", "\ud800", "a" * 10_000, "{}%s"])
own = [ConfigurationError, TransientError, DataError, FatalError, FencedError]
foreign = [
    ValueError,
    KeyError,
    ConnectionError,
    TimeoutError,
    OSError,
    RecursionError,
    UnicodeError,
    Exception,
]
exceptions = st.one_of(
    st.builds(lambda kind, text: kind(text), st.sampled_from(own + foreign), odd_texts),
    st.builds(
        lambda kind, text, error_type: kind(text, error_type=error_type),
        st.sampled_from(own),
        odd_texts,
        st.sampled_from(ErrorType),
    ),
    st.sampled_from([ValueError(), ValueError(1, 2), StopIteration(), ExceptionGroup("all", [OSError()])]),
)


def check_info(info, layer, operation):
    """P10 to P12 in one place: nothing is missing, and the type is one of the five."""
    assert isinstance(info, ErrorInfo)
    assert info.error_type in set(ErrorType)
    assert info.timestamp.tzinfo is not None
    assert (info.layer_name, info.operation) == (layer, operation)
    assert isinstance(info.message, str)
    assert info.message
    assert info.details["exception"]
    assert isinstance(info.is_critical, bool)


names = st.text(min_size=1, max_size=20)


@thorough
@given(error=exceptions, layer=names, operation=names, critical=st.none() | st.booleans())
def test_p10_every_error_is_structured(error, layer, operation, critical):
    info = to_info(error, layer=layer, operation=operation, critical=critical, file="a.csv")
    check_info(info, layer, operation)
    assert info.details == {"exception": type(error).__name__, "file": "a.csv"}
    assert critical is None or info.is_critical is critical


@thorough
@given(error=exceptions)
def test_p11_every_error_has_one_of_the_five_types(error):
    info = to_info(error, layer="storage", operation="store")
    expected = getattr(error, "error_type", None)
    if expected is None:
        kinds = {ValueError: "VALIDATION", ConnectionError: "CONNECTION", TimeoutError: "CONNECTION"}
        found = [ErrorType[name] for kind, name in kinds.items() if isinstance(error, kind)]
        expected = found[0] if found else ErrorType.PROCESSING
    assert info.error_type is expected


class Scripted(IDataSource):
    """Gives chunks, then raises if it is told to, at the place it is told to."""

    def __init__(self, source_id):
        self.source_id, self.script = source_id, (0, None, "stream")

    async def connect(self):
        self._fail("connect")

    async def disconnect(self):
        self._fail("disconnect")

    async def collect(self):
        return CollectedData(self.source_id, datetime.now(UTC), "lines", "reading", b"x", {})

    async def collect_stream(self):
        for _ in range(self.script[0]):
            yield await self.collect()
        self._fail("stream")

    def get_source_id(self):
        return self.source_id

    def _fail(self, place):
        if self.script[1] is not None and self.script[2] == place:
            raise self.script[1]


places = st.sampled_from(["connect", "stream", "disconnect"])
# a StopIteration that leaves a coroutine is a RuntimeError already
runs = st.lists(st.tuples(st.integers(0, 4), st.none() | exceptions, places), max_size=6)


def outcome(script):
    """Return what has to come of a run: chunks, and whether it fails."""
    count, error, place = script
    return 0 if error is not None and place == "connect" else count, error is not None


@thorough
@given(error=exceptions, place=places)
def test_p12_an_error_of_a_source_has_time_layer_operation_and_details(error, place):
    async def main():
        before, handler = datetime.now(UTC), MockErrorHandler()
        manager, source = CollectionManager(errors=handler), Scripted("s")
        source.script = (1, error, place)
        await manager.register_source(source, {})
        status = await manager.wait(await manager.start_collection("s"))
        assert status is CollectionStatus.ERROR
        (info,) = handler.get_handled_errors()
        check_info(info, "collection", "collect")
        assert before <= info.timestamp <= datetime.now(UTC)
        assert info.details["source"] == "s"

    asyncio.run(main())


class Breaks(IErrorHandler):
    """A handler that raises when it handles, or when it is asked whether it can."""

    def __init__(self, kinds, when):
        self.kinds, self.when, self.asked = kinds, when, 0

    async def handle_error(self, error):
        self.asked += 1
        raise RuntimeError("the pager is out of reach")

    def can_handle(self, error_type):
        if self.when == "asked":
            raise KeyError(error_type)
        return error_type in self.kinds

    def get_error_count(self):
        return self.asked


kinds = st.frozensets(st.sampled_from(ErrorType))
handlers = st.lists(
    st.tuples(st.sampled_from(["good", "good", "handles", "asked"]), kinds), min_size=1, max_size=6
)


@pytest.mark.parametrize("make", [ErrorHandler, MockErrorHandler])
@thorough
@given(wanted=handlers, error_type=st.sampled_from(ErrorType), critical=st.booleans())
def test_p13_a_critical_error_reaches_every_handler_that_can_handle_it(make, wanted, error_type, critical):
    async def main():
        registry = ErrorHandlerRegistry()
        made = [make(types) if how == "good" else Breaks(types, how) for how, types in wanted]
        for handler in made:
            registry.register(handler)
        info = ErrorInfo(error_type, datetime.now(UTC), "storage", "store", "no space", {}, critical)
        good = [how == "good" and error_type in types for how, types in wanted]
        able = [how != "asked" and error_type in types for how, types in wanted]
        if not critical and True in good:  # it is handled once the first good one has had it
            last = good.index(True)
            able = [can and place <= last for place, can in enumerate(able)]
        assert await registry.dispatch(info) == (sum(good) if critical else int(any(good)))
        assert [handler.get_error_count() for handler in made] == [int(can) for can in able]

    asyncio.run(main())


@thorough
@given(scripts=runs, broken=st.frozensets(st.integers(0, 20), max_size=3))
def test_p14_collection_statistics_match_what_happened(scripts, broken):
    async def main():
        delivered, attempts = 0, 0

        async def deliver(chunk):
            nonlocal delivered, attempts
            attempts += 1
            if attempts in broken:
                raise OSError("disk")
            delivered += 1

        manager, source, failures = CollectionManager(deliver), Scripted("s"), 0
        await manager.register_source(source, {})
        for script in scripts:
            source.script, before = script, (attempts, delivered)
            status = await manager.wait(await manager.start_collection("s"))
            lost = (attempts - before[0]) - (delivered - before[1])
            expected, fails = outcome(script)
            assert lost in {0, 1}
            assert lost or delivered - before[1] == expected
            assert status is (CollectionStatus.ERROR if fails or lost else CollectionStatus.STOPPED)
            failures += bool(fails or lost)
        found = await manager.get_statistics("s")
        assert (found.success_count, found.failure_count) == (delivered, failures)
        assert (found.average_processing_time > 0) is (delivered > 0)
        assert (found.last_collection_time is not None) is (delivered > 0)

    asyncio.run(main())


class Sometimes(IProcessor):
    """Fails for some numbers, in the time it says."""

    def __init__(self, name, bad, seconds):
        self.name, self.bad, self.seconds = name, bad, seconds

    async def process(self, data):
        if data["n"] in self.bad:
            return ProcessingResult(False, None, "bad number", self.seconds)
        return ProcessingResult(True, data, None, self.seconds)

    def get_processor_name(self):
        return self.name

    def validate_input(self, data):
        return True


steps = st.lists(
    st.tuples(odd_texts, st.frozensets(st.integers(0, 5)), st.floats(0, 1e6)), min_size=1, max_size=4
)


@thorough
@given(wanted=steps, inputs=st.lists(st.integers(0, 5), max_size=12))
def test_p15_processing_statistics_match_what_happened(wanted, inputs):
    async def main():
        manager = ProcessingManager()
        pipeline = await manager.create_pipeline("p")
        for order, step in enumerate(wanted):
            await pipeline.add_step(Sometimes(*step), order)
        executions, failures = Counter(), Counter()
        for n in inputs:
            await pipeline.execute({"n": n})
            for place, (_, bad, _) in enumerate(wanted):
                executions[place] += 1
                failures[place] += n in bad
                if n in bad:
                    break
        found = await manager.get_statistics("p")
        assert len({each.step_name for each in found}) == len(found) == len(wanted)
        for place, each in enumerate(found):
            assert each.step_name.startswith(wanted[place][0])
            assert (each.execution_count, each.failure_count) == (executions[place], failures[place])
            assert each.success_count == each.execution_count - each.failure_count
            assert each.average_time == pytest.approx(wanted[place][2] if executions[place] else 0.0)

    asyncio.run(main())


def memory(folder):
    return MemoryBackend()


def sqlite(folder):
    return SqliteBackend(path=str(Path(folder) / "rows.db"), table="rows")


def mock(folder):
    return MockStorageBackend("mock")


odd_values = st.sampled_from(
    [object(), 10**400, "\ud800", float("nan"), {1: 2}, {(1,): 2}, b"\xff", {"\ud800": b""}, [..., set()]]
)
rows = st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers(-(2**63), 2**63 - 1), min_size=1)
stores = st.lists(rows | odd_values | st.none(), max_size=6)


@pytest.mark.parametrize("make", [memory, sqlite, mock])
@thorough
@given(items=stores)
def test_p16_storage_statistics_match_what_happened(make, items):
    async def main(folder):
        manager, stored = StorageManager(), []
        name = await manager.register_backend(make(folder), {"connect": True})
        for item in items:
            try:
                await manager.store_data(name, item)
            except ValueError:
                assert make is not mock
            else:
                stored.append(item)
        found = await manager.get_statistics(name)
        assert (found.backend_id, found.stored_count) == (name, len(stored))
        assert (found.last_storage_time is not None) is bool(stored)
        plain = [item for item in stored if isinstance(item, dict) and all(map(str.isalpha, map(str, item)))]
        least = sum(len(json.dumps(item, separators=(",", ":"))) for item in plain if "\ud800" not in item)
        assert found.storage_usage_bytes >= least
        if plain == stored:
            assert found.storage_usage_bytes == least
        await manager.unregister_backend(name)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(folder))


operations = st.lists(
    st.one_of(
        st.tuples(st.just("collect"), st.tuples(st.integers(0, 3), st.none() | exceptions, places)),
        st.tuples(st.just("process"), st.booleans()),
        st.tuples(st.just("store"), st.booleans()),
    ),
    max_size=6,
)


async def perform(operation, argument, emitter):
    """Do one operation with a manager of its own and return the events that have to come."""
    if operation == "collect":
        manager, source = CollectionManager(events=emitter), Scripted("s")
        source.script = argument
        await manager.register_source(source, {})
        await manager.wait(await manager.start_collection("s"))
        failed = [EventType.ERROR_OCCURRED] if argument[1] is not None else []
        return [EventType.COLLECTION_START, *failed, EventType.COLLECTION_COMPLETE]
    if operation == "process":
        processing = ProcessingManager(events=emitter)
        pipeline = await processing.create_pipeline("p")
        await pipeline.add_step(MockProcessor("m", argument), 1)
        assert (await pipeline.execute({})).success is not argument
        failed = [EventType.ERROR_OCCURRED] if argument else []
        return [EventType.PROCESSING_START, *failed, EventType.PROCESSING_COMPLETE]
    storage = StorageManager(events=emitter)
    await storage.register_backend(MockStorageBackend("b"), {"connect": argument})
    if argument:
        await storage.store_data("b", {"n": 1})
        return [EventType.STORAGE_START, EventType.STORAGE_COMPLETE]
    with pytest.raises(ConnectionError):
        await storage.store_data("b", {"n": 1})
    return [EventType.STORAGE_START, EventType.ERROR_OCCURRED]


@pytest.mark.parametrize("make", [EventEmitter, MockEventEmitter])
@thorough
@given(history=operations)
def test_p17_every_significant_operation_emits_its_event(make, history):
    async def main():
        emitter, seen = make(), Counter()

        async def note(event):
            assert event.timestamp.tzinfo is not None
            assert event.source in {"s", "p", "b"}
            seen[event.event_type] += 1

        for kind in EventType:
            await emitter.subscribe(kind, note)
        expected = Counter()
        for operation, argument in history:
            expected.update(await perform(operation, argument, emitter))
        if make is EventEmitter:
            await emitter.drain()
            await emitter.close()
        else:
            assert Counter(event.event_type for event in emitter.get_emitted_events()) == expected
        assert seen == expected

    asyncio.run(main())
