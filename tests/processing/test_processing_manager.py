"""Processors and pipelines by id, functions as processors, and reports that break nothing."""

from __future__ import annotations

import asyncio
import functools
import threading
from datetime import UTC, datetime

import pytest

from collectors.enums import EventType
from collectors.mocks import MockEventEmitter, MockProcessor
from collectors.processing.manager import FunctionProcessor, ProcessingManager, check_function


def one(data):
    return data


def two(data, extra):
    return data


class Callable:
    def __call__(self, data):
        return data

    def method(self, data):
        return data

    @staticmethod
    def static(data):
        return data

    @classmethod
    def of_class(cls, data):
        return data


async def later(data):
    return data


def generator(data):
    yield data


async def async_generator(data):
    yield data


GOOD = [
    one,
    later,
    lambda data: data,
    lambda data=None, *rest, key=1, **more: data,
    lambda *rest: rest,
    lambda data, /: data,
    functools.partial(two, extra=1),
    functools.partial(two, 1),
    Callable(),
    Callable().method,
    Callable.static,
    Callable.of_class,
    len,
    str.upper,
    print,
]
BAD = [
    two,
    Callable.method,
    functools.partial(one, 1),
    functools.partial(generator),
    lambda: 1,
    lambda *, data: data,
    lambda data, *, key: data,
    generator,
    async_generator,
    Callable,
    int,
    None,
    "one",
    {},
]


@pytest.mark.parametrize("function", GOOD)
def test_functions_that_fit(function):
    check_function(function)
    assert FunctionProcessor(function).get_processor_name()


@pytest.mark.parametrize("function", BAD)
def test_functions_that_do_not_fit_are_told_what_would(function):
    with pytest.raises(ValueError, match=r"expected a function of one argument, for example `def clean\("):
        check_function(function)


def test_the_message_shows_the_signature():
    with pytest.raises(ValueError, match=r"got two\(data, extra\): missing a required argument: 'extra'"):
        check_function(two)


@pytest.mark.parametrize("function", [one, later, Callable(), lambda data: later(data)])
def test_what_a_function_returns_is_the_processed_data(function):
    data = {"n": 1}
    result = asyncio.run(FunctionProcessor(function).process(data))
    assert (result.success, result.error) == (True, None)
    assert result.processed_data is data
    assert result.processing_time > 0


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("n"), "KeyError: 'n'"),
        (StopIteration(), "StopIteration: "),
        (StopAsyncIteration(), "StopAsyncIteration: "),
        (ExceptionGroup("all", [ValueError()]), "ExceptionGroup: all (1 sub-exception)"),
    ],
)
def test_what_a_function_raises_is_the_error(error, text):
    def fails(data):
        raise error

    async def main():
        async with asyncio.timeout(10):
            return await FunctionProcessor(fails).process({})

    result = asyncio.run(main())
    assert (result.success, result.processed_data, result.error) == (False, None, text)


def test_a_plain_function_runs_in_a_worker_thread_and_an_async_one_in_the_loop():
    async def where(data):
        return threading.current_thread()

    async def main():
        plain = await FunctionProcessor(lambda data: threading.current_thread()).process({})
        loop = await FunctionProcessor(where).process({})
        assert plain.processed_data is not threading.current_thread()
        assert loop.processed_data is threading.current_thread()

    asyncio.run(main())


def test_a_function_takes_anything_but_none():
    assert not FunctionProcessor(one).validate_input(None)
    assert FunctionProcessor(one).validate_input(0)


def test_processors_are_kept_by_name():
    async def main():
        manager = ProcessingManager()
        assert await manager.register_processor(one) == "one"
        for again in (one, MockProcessor("one"), FunctionProcessor(later, "one")):
            with pytest.raises(ValueError, match="'one' is registered already"):
                await manager.register_processor(again)
        await manager.unregister_processor("one")
        assert await manager.register_processor(MockProcessor("one")) == "one"
        with pytest.raises(KeyError):
            await manager.unregister_processor("other")

    asyncio.run(main())


@pytest.mark.parametrize("name", ["", " ", None, 7])
def test_names_and_ids_are_texts_that_are_not_empty(name):
    async def main():
        manager = ProcessingManager()
        with pytest.raises(ValueError, match="not empty"):
            await manager.register_processor(MockProcessor(name))
        with pytest.raises(ValueError, match="not empty"):
            await manager.create_pipeline(name)

    asyncio.run(main())


def test_pipelines_are_kept_by_id():
    async def main():
        manager = ProcessingManager()
        made = await manager.create_pipeline("p")
        assert await manager.get_pipeline("p") is made
        with pytest.raises(ValueError, match="'p' exists"):
            await manager.create_pipeline("p")
        await manager.delete_pipeline("p")
        for call in (manager.get_pipeline, manager.delete_pipeline, manager.get_statistics):
            with pytest.raises(KeyError):
                await call("p")
        assert await manager.create_pipeline("p") is not made

    asyncio.run(main())


def test_a_pipeline_keeps_a_processor_that_is_unregistered():
    async def main():
        manager = ProcessingManager()
        await manager.create_pipeline("p")
        await manager.add_step("p", await manager.register_processor(MockProcessor("m")), 1)
        await manager.unregister_processor("m")
        result = await (await manager.get_pipeline("p")).execute({})
        assert result.final_data == {"processed_by_m": True}
        for arguments in (("p", "m", 2), ("q", "m", 2)):
            with pytest.raises(KeyError):
                await manager.add_step(*arguments)

    asyncio.run(main())


def test_events_tell_the_pipeline_and_what_failed():
    async def main():
        emitter, moment = MockEventEmitter(), datetime(2024, 1, 1, tzinfo=UTC)
        manager = ProcessingManager(events=emitter, now=lambda: moment)
        pipeline = await manager.create_pipeline("p")
        await pipeline.add_step(MockProcessor("bad", should_fail=True), 1)
        result = await pipeline.execute({})
        start, failure, complete = emitter.get_emitted_events()
        assert [start.event_type, failure.event_type, complete.event_type] == [
            EventType.PROCESSING_START,
            EventType.ERROR_OCCURRED,
            EventType.PROCESSING_COMPLETE,
        ]
        assert (failure.source, failure.data["failed_step"]) == ("p", "bad")
        assert "failed" in failure.data["message"]
        assert (complete.source, complete.timestamp) == ("p", moment)
        assert complete.data == {"success": False, "failed_step": "bad", "seconds": result.total_time}

    asyncio.run(main())


def test_an_emitter_that_fails_is_logged_and_breaks_nothing(caplog):
    class Broken(MockEventEmitter):
        async def emit(self, event):
            raise RuntimeError("the emitter is closed")

    async def main():
        pipeline = await ProcessingManager(events=Broken()).create_pipeline("p")
        await pipeline.add_step(MockProcessor("m"), 1)
        assert (await pipeline.execute({})).final_data == {"processed_by_m": True}

    asyncio.run(main())
    assert "cannot report processing_complete of 'p'" in caplog.text
