"""Properties P1 to P4 and P7 to P9 of the specification, over generated inputs, for implementations and mocks."""

from __future__ import annotations

import asyncio
import inspect
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.collection.manager import CollectionManager
from collectors.collection.metadata import MetadataParser
from collectors.crosscutting.task_tracker import TaskTracker
from collectors.interfaces import IDataSource
from collectors.mocks import (
    MockDataSource,
    MockMetadataParser,
    MockStorageBackend,
    MockTaskTracker,
)
from collectors.models import CollectedData, QueryCriteria
from collectors.processing.manager import FunctionProcessor, ProcessingManager, check_function
from collectors.storage.backends.memory import MemoryBackend
from collectors.storage.backends.sqlite import SqliteBackend
from collectors.storage.manager import StorageManager

ALL = QueryCriteria({}, None, None, None)
thorough = settings(max_examples=100, deadline=None)

odd_texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "\t\n", "a/b", "../..", "ä\u0301", "\ud800", "\0", "a" * 10_000, "{source}", "'"]
    ),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | odd_texts | st.binary(max_size=20)
configs = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "max_chunks": st.integers(-2, 3) | st.sampled_from([True, "3", 3.0, None]) | scalars,
            "connect": st.booleans() | st.sampled_from(["yes", "true", 1, 0.0, None]) | scalars,
            "tags": st.dictionaries(odd_texts, odd_texts | st.integers(), max_size=2) | scalars,
        },
    ),
    st.dictionaries(odd_texts | st.integers(), scalars, max_size=2),
    scalars,
)


def is_tags(value):
    return isinstance(value, dict) and all(type(text) is str for pair in value.items() for text in pair)


def is_source_config(config):
    return isinstance(config, dict) and all(
        (name == "max_chunks" and (value is None or (type(value) is int and value >= 1)))
        or (name == "tags" and is_tags(value))
        for name, value in config.items()
    )


def is_backend_config(config):
    return isinstance(config, dict) and all(
        (name == "connect" and type(value) is bool) or (name == "tags" and is_tags(value))
        for name, value in config.items()
    )


async def accepts(registration):
    try:
        await registration
    except ValueError as error:
        return not str(error)  # a refusal without a word is none
    return True


class Silent(IDataSource):
    """A source of any number of chunks, given as bytes."""

    def __init__(self, source_id, chunks=()):
        self.source_id, self.chunks = source_id, chunks

    async def connect(self):
        pass

    async def disconnect(self):
        pass

    async def collect(self):
        return CollectedData(self.source_id, datetime.now(UTC), "lines", "reading", self.chunks[0], {})

    async def collect_stream(self):
        for raw in self.chunks:
            yield CollectedData(self.source_id, datetime.now(UTC), "lines", "reading", raw, {})

    def get_source_id(self):
        return self.source_id


@pytest.mark.parametrize("make", [Silent, MockDataSource])
@settings(max_examples=400, deadline=None)
@given(source_id=odd_texts | st.none() | st.integers(), config=configs)
def test_p01_registration_accepts_exactly_the_valid_sources(make, source_id, config):
    async def main():
        manager = CollectionManager()
        valid = isinstance(source_id, str) and bool(source_id.strip()) and is_source_config(config)
        assert await accepts(manager.register_source(make(source_id), config)) is valid
        assert not await accepts(manager.register_source("no source", {}))
        if valid:
            assert (await manager.get_statistics(source_id)).success_count == 0
            assert not await accepts(manager.register_source(make(source_id), config))

    asyncio.run(main())


@pytest.mark.parametrize("make", [Silent, MockDataSource])
@thorough
@given(source_id=odd_texts.filter(str.strip), raw=st.binary(max_size=100_000))
def test_p02_collected_data_says_where_when_and_how(make, source_id, raw):
    async def main():
        got = []

        async def deliver(chunk):
            got.append(chunk)

        manager = CollectionManager(deliver)
        source = MockDataSource(source_id, raw) if make is MockDataSource else make(source_id, [raw] * 3)
        await manager.register_source(source, {})
        await manager.wait(await manager.start_collection(source_id))
        assert len(got) == 3
        for chunk in got:
            assert (chunk.source_id, chunk.raw_data) == (source_id, raw)
            assert chunk.timestamp.tzinfo is not None
            assert isinstance(chunk.data_format, str)
            assert isinstance(chunk.collection_method, str)
            assert chunk.data_format
            assert chunk.collection_method

    asyncio.run(main())


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
documents = st.one_of(
    st.binary(max_size=200),
    st.lists(json_like, max_size=6).map(lambda items: "\n".join(map(json.dumps, items)).encode()),
    json_like.map(lambda item: json.dumps(item).encode()),
    st.lists(st.lists(st.text("ab,\"\n;'"), max_size=4), max_size=4).map(
        lambda rows: "\n".join(",".join(row) for row in rows).encode()
    ),
)


@pytest.mark.parametrize("make", [MetadataParser, MockMetadataParser])
@settings(max_examples=300, deadline=None)
@given(
    raw=documents,
    data_format=st.sampled_from(["ndjson", "json", "csv", "lines", "mock", "", "parquet"]),
    source_id=odd_texts,
    metadata=st.dictionaries(odd_texts, scalars, max_size=3),
)
def test_p03_parsed_metadata_is_complete(make, raw, data_format, source_id, metadata):
    async def main():
        parser = make()
        chunk = CollectedData(source_id, datetime.now(UTC), data_format, "test", raw, metadata)
        parsed = await parser.parse(chunk)
        assert isinstance(parsed.schema, dict)
        assert parsed.quality_indicators
        assert all(0.0 <= value <= 1.0 for value in parsed.quality_indicators.values())
        assert "completeness" in parsed.quality_indicators
        assert parsed.source_attributes["source_id"] == source_id
        assert parsed.is_valid is not bool(parsed.validation_errors)
        assert await parser.validate(parsed) in {parsed.is_valid, bool(parsed.is_valid and source_id)}
        if make is MetadataParser:
            assert all(isinstance(name, str) for name in parsed.schema)
            assert parsed.is_valid or not (source_id and data_format and data_format in {"mock", "parquet"})

    asyncio.run(main())


@st.composite
def functions(draw):
    """Return a function with a generated signature; it returns 1 if it is called at all."""
    positional = draw(st.integers(0, 3))
    defaults = draw(st.integers(0, positional))
    names = [f"p{n}" + ("=0" if n >= positional - defaults else "") for n in range(positional)]
    if positional and draw(st.booleans()):
        names.insert(draw(st.integers(1, positional)), "/")
    star = draw(st.sampled_from(["", "*rest", "*"]))
    keywords = draw(st.lists(st.sampled_from(["k{}", "k{}=0"]), min_size=star == "*", max_size=2))
    if keywords and not star:
        star = "*"
    names += [star] if star else []
    names += [keyword.format(n) for n, keyword in enumerate(keywords)]
    names += ["**more"] if draw(st.booleans()) else []
    kind = draw(st.sampled_from(["def", "async def", "lambda", "method", "callable", "generator"]))
    signature, space = ", ".join(names), {}
    if kind == "lambda":
        exec(f"f = lambda {signature}: 1", space)
    elif kind in {"method", "callable"}:
        name = "f" if kind == "method" else "__call__"
        inside = f"self, {signature}" if not signature.startswith("/") else signature
        exec(f"class C:\n    def {name}({inside}): return 1\nf = C()" + ".f" * (kind == "method"), space)
    else:
        body = "yield 1" if kind == "generator" else "return 1"
        exec(f"{kind.replace('generator', 'def')} f({signature}): {body}", space)
    return kind, space["f"]


def can_be_called(kind, function):
    """Try: the answer does not come from the signature."""
    if kind == "generator":
        return False
    try:
        result = function({})
    except TypeError:
        return False
    if inspect.iscoroutine(result):
        result.close()
    return True


@settings(max_examples=400, deadline=None)
@given(made=functions())
def test_p04_a_function_is_accepted_exactly_when_its_signature_fits(made):
    kind, function = made
    fits = can_be_called(kind, function)

    async def main():
        manager = ProcessingManager()
        assert await accepts(manager.register_processor(function)) is fits
        if fits:
            result = await FunctionProcessor(function).process({})
            assert (result.success, result.processed_data, result.error) == (True, 1, None)

    asyncio.run(main())


@thorough
@given(thing=scalars | st.lists(scalars) | st.sampled_from([object(), ..., int, {}, NotImplemented]))
def test_p04_what_is_no_function_is_refused(thing):
    with pytest.raises(ValueError, match="function of one argument"):
        check_function(thing)


@settings(max_examples=400, deadline=None)
@given(backend_id=odd_texts | st.none() | st.integers(), config=configs)
def test_p07_registration_accepts_exactly_the_valid_backends(backend_id, config):
    async def main():
        manager = StorageManager()
        valid = isinstance(backend_id, str) and bool(backend_id.strip()) and is_backend_config(config)
        assert await accepts(manager.register_backend(MockStorageBackend(backend_id), config)) is valid
        assert not await accepts(manager.register_backend("no backend", {}))
        if valid:
            assert (await manager.get_statistics(backend_id)).stored_count == 0
            with pytest.raises(RuntimeError):
                await manager.register_backend(MockStorageBackend(backend_id), config)

    asyncio.run(main())


def memory(folder):
    return MemoryBackend()


def sqlite(folder):
    return SqliteBackend(path=str(Path(folder) / "rows.db"), table="rows")


def mock(folder):
    return MockStorageBackend("mock")


column_names = st.text("abcxyz_ é'\"", min_size=1, max_size=8).filter(str.strip)
records = st.lists(
    st.dictionaries(column_names, st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("make", [memory, sqlite, mock])
@thorough
@given(rows=records, choice=st.randoms(use_true_random=False))
def test_p08_the_location_of_a_stored_item_can_be_used(make, rows, choice):
    async def main(folder):
        backend = make(folder)
        await backend.connect()
        try:
            locations = [await backend.store(row) for row in rows]
            assert len({location.location_id for location in locations}) == len(rows)
            assert {location.backend_id for location in locations} == {backend.get_backend_id()}
            assert len(await backend.query(ALL)) == len(rows)
            left = list(range(len(rows)))
            for gone in choice.sample(left, len(left)):
                await backend.delete(locations[gone].location_id)
                left.remove(gone)
                found = [
                    {name: value for name, value in row.items() if value is not None}
                    for row in await backend.query(ALL)
                ]
                assert found == [rows[n] for n in left]
                with pytest.raises(KeyError):
                    await backend.delete(locations[gone].location_id)
        finally:
            await backend.disconnect()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(folder))


@pytest.mark.parametrize("make", [TaskTracker, MockTaskTracker])
@thorough
@given(kinds=st.lists(odd_texts.filter(str.strip), min_size=1, max_size=30))
def test_p09_each_task_has_an_id_of_its_own(make, kinds):
    async def main():
        tracker = make()
        ids = await asyncio.gather(*(tracker.create_task(kind) for kind in kinds))
        assert len(set(ids)) == len(kinds)
        assert [(await tracker.get_task_info(task_id)).task_type for task_id in ids] == kinds

    asyncio.run(main())


@pytest.mark.parametrize("make", [Silent, MockDataSource])
@thorough
@given(
    names=st.lists(odd_texts.filter(str.strip), min_size=1, max_size=4, unique=True), runs=st.integers(1, 3)
)
def test_p09_each_collection_has_a_task_id_of_its_own(make, names, runs):
    async def main():
        manager, ids = CollectionManager(), []
        for name in names:
            await manager.register_source(make(name), {})
        for _ in range(runs):
            ids += (started := [await manager.start_collection(name) for name in names])
            for task_id in started:
                await manager.wait(task_id)
        assert len(set(ids)) == len(names) * runs
        assert [manager.get_task(task_id).source_id for task_id in ids] == names * runs

    asyncio.run(main())
