"""Every Python block of the published specification runs as it stands there; its text stays in its own place."""

from __future__ import annotations

import asyncio
import inspect
import re
from contextlib import aclosing
from pathlib import Path

import pytest

from collectors.interfaces import IDataSource, IProcessor, IStorageBackend
from collectors.models import CollectedData, QueryCriteria, StorageLocation

SPECIFICATION = Path(__file__).parents[2].parent / "shared" / "spec" / "data-collector-module.md"


def blocks():
    """Return (line, code) of each block; one marked as skipped where the page is not there."""
    if not SPECIFICATION.is_file():
        reason = "the specification is not beside the repository (../shared/spec/data-collector-module.md)"
        return [pytest.param(0, "", marks=pytest.mark.skip(reason=reason))]
    text = SPECIFICATION.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [(text.count("\n", 0, match.start()) + 2, match[1]) for match in found]
    return [pytest.param(line, code, id=f"line-{line}") for line, code in lines]


@pytest.mark.parametrize(("line", "code"), blocks())
def test_block(line, code, capsys):
    space = {"__name__": "reader"}
    exec(compile("\n" * (line - 1) + code, SPECIFICATION.name, "exec"), space)
    made = [thing for thing in space.values() if getattr(thing, "__module__", "") == "reader"]
    for thing in made:
        if inspect.iscoroutinefunction(thing):
            asyncio.run(thing())
        elif inspect.isclass(thing):
            asyncio.run(use(thing()))
    if any(inspect.iscoroutinefunction(thing) for thing in made):
        assert capsys.readouterr().out
    if not made:
        assert any(getattr(thing, "__module__", "").startswith("collectors.") for thing in space.values())


async def use(thing):
    if isinstance(thing, IDataSource):
        await use_source(thing)
    elif isinstance(thing, IProcessor):
        result = await thing.process({"a": 1})
        assert thing.validate_input({"a": 1})
        assert not thing.validate_input(None)
        assert (result.success, result.processed_data) == (True, {"processed": True, "data": {"a": 1}})
        assert thing.get_processor_name() == "my_processor"
    elif isinstance(thing, IStorageBackend):
        await use_backend(thing)
    else:
        pytest.fail(f"the specification has a class that this test does not know: {type(thing).__name__}")


async def use_source(source):
    await source.connect()
    chunk = await source.collect()
    async with aclosing(source.collect_stream()) as stream:
        first = await anext(stream)
    for each in (chunk, first):
        assert isinstance(each, CollectedData)
        assert (each.source_id, each.raw_data) == (source.get_source_id(), b"your_data")
    await source.disconnect()


async def use_backend(backend):
    await backend.connect()
    location = await backend.store({"a": 1})
    assert isinstance(location, StorageLocation)
    assert location.backend_id == backend.get_backend_id()
    assert await backend.query(QueryCriteria({}, None, None, None)) == []
    await backend.delete(location.location_id)
    await backend.disconnect()


@pytest.mark.skipif(not SPECIFICATION.is_file(), reason="the specification is not beside the repository")
def test_no_block_is_overlooked():
    assert len(blocks()) == SPECIFICATION.read_text(encoding="utf-8").count("```python")
