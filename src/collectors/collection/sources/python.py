"""A Python function or generator of yours: what it gives are the records.

    source:
      type: python
      function: "weather:stations"

`weather.py` lies beside the pipeline file, or is installed. The function takes no argument, or one named `since`. It
returns or yields dicts, lists of dicts, Arrow tables, or bytes in the `format` of the settings; it may be `async`. A
generator is read to its end, which may never come; with `every` or `cron` the function is called again. Plain functions
run in a thread of their own, so they may block.

With the parameter `since` it gets the last position (None at first) and yields pairs `(records, position)`: a dict,
stored together with the records, with which it can go on behind them. What it yields without a position belongs to the
next one.

    def orders(since):
        for page in range(since["page"] + 1 if since else 0, 100):
            yield fetch(page), {"page": page}

Records are written as JSON: times in ISO 8601, Decimal as text so that no digit is lost. NaN and infinite numbers are
no JSON; such records are set aside, with everything else that is not a record.

Delivery: with positions exactly once; without them exactly once from the spool on, since a function cannot be asked
again.
Position: what the function gives.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import functools
import importlib
import inspect
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import field_validator

from collectors.collection.base import ByteSourceConfig, Source
from collectors.collection.sources._intake import Intake
from collectors.collection.sources._items import Parcel, parcels_of
from collectors.errors import CollectorsError, ConfigurationError, FatalError
from collectors.models import CollectedData, Position
from collectors.workers import Workers

__all__ = ["COMPONENT", "PythonConfig", "PythonSource"]

_JOIN_SECONDS = 0.5
_SMALL = 4096
"""Records, or bytes, that are taken at once; of more, a chunk at a time is made when there is room for it."""
_threads = Workers("python-source", most=None)
"""Of thousands of functions that return at once, few threads make more than many, which take turns."""


class PythonConfig(ByteSourceConfig):
    """Settings of the python source."""

    function: Any
    """`module:name` of the function; from Python the function itself."""

    @field_validator("function")
    @classmethod
    def _check(cls, value: Any) -> Any:
        if callable(value) or (isinstance(value, str) and all(part for part in value.partition(":"))):
            return value
        raise ValueError("expected 'module:name', or from Python a function")


class PythonSource(Source[PythonConfig]):
    """Calls the function and hands on what it gives, as it comes."""

    def __init__(self, config: PythonConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        spec = self.format()
        self._bytes_format = spec if isinstance(spec, str) else str(spec.get("type"))
        self.data_format = self._bytes_format
        self._function = _load(self.config.function)
        self._positions = "since" in _parameters(self._function)
        self._is_async = _is_async(self._function)
        self._producer: _Producer | None = None
        self._parcels: deque[Parcel] = deque()
        self._behind: Position | None = None

    def needs_spool(self) -> bool:
        """Return whether the function has no `since`: then it cannot be asked again."""
        return not self._positions

    def format(self) -> str | dict[str, Any]:
        """Return the codec of bytes that the function gives; its records are NDJSON."""
        return self.config.format or "ndjson"

    async def open(self) -> None:
        """Have the function ended with the source."""
        stack = await self.enter(contextlib.AsyncExitStack())
        stack.push_async_callback(self._stop)

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        """Call the function, unless it still runs since the last time, and yield what it gives."""
        if self._producer is not None and since != self._behind:
            await self._stop()
        if self._producer is None:
            self._behind = since
            call = self._function
            if not self._is_async:
                given = await _threads.call(self._call, since)
                if isinstance(given, list):
                    self._parcels.extend(given)
                    while self._parcels and (chunk := self._next_chunk(False)) is not None:
                        yield chunk
                    return
                call = given
            self._producer = _Producer(
                call,
                self._arguments(since),
                self.config.chunk_size,
                self._bytes_format,
                is_async=self._is_async,
            )
        producer = self._producer
        try:
            while True:
                ended = producer.ended
                while (chunk := self._next_chunk(producer.positions and not ended)) is not None:
                    yield chunk
                if ended:
                    break
                self._parcels.extend(await producer.take())
        except asyncio.CancelledError:
            await self._stop()
            raise
        await self._stop()
        if producer.error is not None:
            raise producer.error

    async def rest(self) -> AsyncIterator[CollectedData]:
        """End the function, and yield what it has given; with positions it is asked for that again."""
        if self._positions:
            return
        await self._stop()
        while self._parcels and (chunk := self._next_chunk(False)) is not None:
            yield chunk

    def _arguments(self, since: Position | None) -> dict[str, Any]:
        return {"since": since} if self._positions else {}

    def _call(self, since: Position | None) -> list[Parcel] | Callable[..., Any]:
        """Call the function, in a thread; what it gives as parcels, or, of what may be much, something that returns it."""
        try:
            result = self._function(**self._arguments(since))
        except CollectorsError:
            raise
        except Exception as error:  # a user's function may raise anything
            raise _explained(error, self._function) from error
        small = result[0] if isinstance(result, tuple) and result else result
        if type(small) is dict or (isinstance(small, (list, bytes)) and len(small) <= _SMALL):
            return parcels_of(
                result,
                positions=self._positions,
                bytes_format=self._bytes_format,
                limit=self.config.chunk_size,
            )
        return functools.wraps(self._function)(lambda **_: result)

    def _next_chunk(self, whole: bool) -> CollectedData | None:
        """Return the next chunk; with `whole` it must end at a position, unless it is too large to wait for one."""
        taken = size = best = 0
        full = False
        for parcel in self._parcels:
            alone = parcel.data_format is not None or parcel.reason is not None
            full = size >= self.config.chunk_size or (alone and taken > 0)
            if full:
                break
            taken, size = taken + 1, size + len(parcel.raw)
            if alone or parcel.position is not None or not whole:
                best = taken
            if alone:
                break
        best = best or (taken if full else 0)
        if not best:
            return None
        return self._chunk([self._parcels.popleft() for _ in range(best)])

    def _chunk(self, parcels: list[Parcel]) -> CollectedData:
        position = parcels[-1].position
        self._behind = position if position is not None else self._behind
        raw = parcels[0].raw if len(parcels) == 1 else b"".join(parcel.raw for parcel in parcels)
        first = parcels[0]
        if first.reason is not None:
            return self.refuse(raw, self._behind, first.reason)
        return self.chunk(raw, self._behind, data_format=first.data_format or "ndjson")

    async def _stop(self) -> None:
        """End the function; what it has given is kept, unless it can be asked for that again."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()
            self._parcels.extend(await producer.rest())
        if self._positions:
            self._parcels.clear()


class _Producer:
    """Runs the function, in a thread or as a task, and buffers what it gives."""

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: dict[str, Any],
        limit: int,
        bytes_format: str,
        *,
        is_async: bool,
    ) -> None:
        self.positions = bool(arguments)
        self.ended = False
        self.error: Exception | None = None
        self._function = function
        self._arguments = arguments
        self._limit = limit
        self._bytes_format = bytes_format
        self._intake: Intake[Parcel] = Intake(limit)
        self._left: deque[Parcel] = deque()
        self._is_async = is_async
        self._running = asyncio.ensure_future(self._run_async()) if is_async else _threads.call(self._run)

    async def take(self) -> list[Parcel]:
        """Return what has come since the last time; `ended` is set with the last of it."""
        parcels = await self._intake.take()
        self.ended = not parcels
        return parcels

    async def rest(self) -> list[Parcel]:
        """Return what the function has given by now, once it was stopped, with what there was no room for."""
        parcels = await self._intake.take() + list(self._left)
        self._left.clear()
        return parcels

    async def stop(self) -> None:
        """End the function: a task is cancelled, a thread ends at the next thing that it gives."""
        self._intake.end()
        if self._running.done():
            return
        if self._is_async:
            self._running.cancel()
        await asyncio.wait([self._running], timeout=None if self._is_async else _JOIN_SECONDS)

    def _run(self) -> None:
        try:
            result = self._function(**self._arguments)
            if inspect.iscoroutine(result):
                result.close()
            if inspect.isawaitable(result) or hasattr(result, "__aiter__"):
                raise FatalError(f"function '{_name(self._function)}': define it with `async def`")
            if not isinstance(result, Iterator):
                self._put_all(result)
                return
            try:
                for item in result:
                    if not self._put_all(item):
                        break
            finally:
                if hasattr(result, "close"):
                    result.close()
        except Exception as error:  # noqa: BLE001  # a user's function may raise anything
            self.error = _explained(error, self._function)
        finally:
            self._intake.end()

    async def _run_async(self) -> None:
        try:
            result = self._function(**self._arguments)
            if inspect.isawaitable(result):
                result = await result
            if hasattr(result, "__aiter__"):
                closing = (
                    contextlib.aclosing(result) if hasattr(result, "aclose") else contextlib.nullcontext()
                )
                async with closing:
                    async for item in result:
                        await self._put(item)
            else:
                await self._put(result)
        except Exception as error:  # noqa: BLE001  # a user's function may raise anything
            self.error = _explained(error, self._function)
        finally:
            self._intake.end()

    def _put_all(self, item: Any) -> bool:
        self._left.extend(self._parcels(item))
        while self._left and self._intake.put(self._left[0]):
            self._left.popleft()
        return not self._left

    async def _put(self, item: Any) -> None:
        self._left.extend(self._parcels(item))
        while self._left and await self._intake.put_soon(self._left[0]):
            self._left.popleft()

    def _parcels(self, item: Any) -> list[Parcel]:
        return parcels_of(item, positions=self.positions, bytes_format=self._bytes_format, limit=self._limit)


def _load(function: Any) -> Callable[..., Any]:
    """Return the function, imported if need be. Raises ConfigurationError when it is not there or needs arguments."""
    found = function
    if isinstance(function, str):
        module_name, _, name = function.partition(":")
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"function '{function}': there is no module '{error.name}' to import; "
                "it must lie beside the pipeline file, or be installed"
            ) from error
        except Exception as error:  # a user's module may raise anything
            raise ConfigurationError(f"function '{function}': {_place(error, None)}") from error
        found = getattr(module, name, None)
        if not callable(found):
            near = difflib.get_close_matches(
                name, [each for each in vars(module) if callable(getattr(module, each))], 1
            )
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigurationError(f"function '{function}': '{module_name}' has no function '{name}'{hint}")
    needed = [
        name
        for name, parameter in _parameters(found).items()
        if name != "since"
        and parameter.default is parameter.empty
        and parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    ]
    if needed:
        raise ConfigurationError(
            f"function '{_name(found)}' must take no argument, or one named `since`; it needs {', '.join(needed)}"
        )
    return found  # type: ignore[no-any-return]


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {}


def _is_async(function: Callable[..., Any]) -> bool:
    each = (function, getattr(function, "__call__", None))  # noqa: B004  # an object may be called asynchronously
    return any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in each)


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", None) or type(function).__name__)


def _explained(error: Exception, function: Callable[..., Any]) -> Exception:
    if isinstance(error, CollectorsError):
        return error
    fatal = FatalError(f"function '{_name(function)}' failed: {_place(error, function)}")
    fatal.__cause__ = error
    return fatal


def _place(error: Exception, function: Callable[..., Any] | None) -> str:
    """Return the error with the line of the user's own code that it comes from."""
    code = getattr(inspect.unwrap(function), "__code__", None) if function is not None else None
    here = str(Path(__file__).parent)
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(here)
    ]
    own = [frame for frame in frames if code is not None and frame.filename == code.co_filename] or frames
    where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{where}"


COMPONENT = PythonSource
