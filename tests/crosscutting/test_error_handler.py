"""Errors are logged with all that is known, and one handler never stands in the way of another."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import pytest

from collectors.crosscutting.error_handler import ErrorHandler, ErrorHandlerRegistry
from collectors.enums import ErrorType
from collectors.interfaces import IErrorHandler
from collectors.mocks import MockErrorHandler
from collectors.models import ErrorInfo


def info(error_type=ErrorType.STORAGE, critical=True):
    return ErrorInfo(error_type, datetime.now(UTC), "storage", "store", "no space", {"free": 0}, critical)


@pytest.mark.parametrize(("critical", "level"), [(True, logging.CRITICAL), (False, logging.ERROR)])
def test_an_error_is_logged_with_everything(caplog, critical, level):
    asyncio.run(ErrorHandler().handle_error(info(critical=critical)))
    (record,) = caplog.records
    assert record.levelno == level
    assert record.message == "storage error in storage (store): no space"
    assert record.details == {"free": 0}


def test_errors_are_counted_by_type():
    async def main():
        handler = ErrorHandler([ErrorType.STORAGE, ErrorType.VALIDATION])
        for kind in (ErrorType.STORAGE, ErrorType.STORAGE, ErrorType.VALIDATION):
            await handler.handle_error(info(kind))
        with pytest.raises(RuntimeError, match="connection"):
            await handler.handle_error(info(ErrorType.CONNECTION))
        assert handler.get_error_count() == 3
        assert [handler.get_error_count(kind) for kind in ErrorType] == [0, 0, 1, 0, 2]

    asyncio.run(main())


class Stuck(IErrorHandler):
    """Never comes back."""

    async def handle_error(self, error):
        await asyncio.Event().wait()

    def can_handle(self, error_type):
        return True


class Broken(Stuck):
    """Raises."""

    async def handle_error(self, error):
        raise OSError("no route to the pager")


@pytest.mark.parametrize(("bad", "reason"), [(Stuck, "TimeoutError"), (Broken, "no route to the pager")])
@pytest.mark.parametrize("critical", [True, False])
def test_a_handler_that_fails_or_hangs_is_logged_and_the_next_has_its_turn(caplog, bad, reason, critical):
    async def main():
        registry, good = ErrorHandlerRegistry(patience=0), MockErrorHandler()
        registry.register(bad())
        registry.register(good)
        assert await registry.dispatch(info(critical=critical)) == 1
        assert good.get_error_count() == 1

    asyncio.run(main())
    assert reason in caplog.text
    assert bad.__name__ in caplog.text


def test_handlers_are_called_in_the_order_of_their_registration():
    async def main():
        calls, registry = [], ErrorHandlerRegistry()

        class Named(MockErrorHandler):
            async def handle_error(self, error):
                calls.append(self)

        handlers = [Named() for _ in range(5)]
        for handler in handlers:
            registry.register(handler)
        await registry.dispatch(info())
        assert calls == handlers
        await registry.dispatch(info(critical=False))
        assert calls == [*handlers, handlers[0]]

    asyncio.run(main())


def test_a_handler_may_take_itself_out_while_it_handles():
    async def main():
        registry, last = ErrorHandlerRegistry(), MockErrorHandler()

        class Once(MockErrorHandler):
            async def handle_error(self, error):
                registry.unregister(first)

        first = registry.register(Once())
        registry.register(last)
        assert await registry.dispatch(info()) == 2
        assert await registry.dispatch(info()) == 1
        with pytest.raises(KeyError):
            registry.unregister(first)

    asyncio.run(main())


def test_a_registry_is_a_handler_of_what_its_handlers_take():
    async def main():
        registry, outer = ErrorHandlerRegistry(), ErrorHandlerRegistry()
        registry.register(MockErrorHandler([ErrorType.STORAGE]))
        outer.register(registry)
        assert [outer.can_handle(kind) for kind in (ErrorType.STORAGE, ErrorType.VALIDATION)] == [True, False]
        await outer.handle_error(info())
        with pytest.raises(RuntimeError, match="no handler took the validation error: no space"):
            await outer.handle_error(info(ErrorType.VALIDATION))

    asyncio.run(main())
