"""Objects read by ranges, several at once and a bounded way ahead, so that a store that is far away is read fast."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from collectors.collection.base import Room
from collectors.collection.sources._bookmarks import Key
from collectors.collection.sources._handle import Part
from collectors.collection.sources._object_bucket import Bucket, Found
from collectors.collection.sources._whole import WholeReader

__all__ = ["Fetcher", "ObjectHandle", "ObjectWholeReader"]

RANGE_BYTES = 4 * 2**20
"""Objects are asked for in ranges of so many bytes …"""
RANGES_AHEAD = 2
"""… so many of them before they are needed …"""
SMALL_BYTES = 2**20
"""… and, where one jumps about in an object, of so many."""
OBJECTS_AHEAD = 32
"""The beginnings of so many further objects are asked for, …"""
AHEAD_BYTES = 8 * 2**20
"""… of so many bytes in all."""
_REQUESTS = 16
"""So many requests are under way at a time."""


class Fetcher:
    """Asks for ranges of objects in threads of its own."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self._threads = ThreadPoolExecutor(_REQUESTS, thread_name_prefix="object_store")

    def ask(self, found: Found, start: int, end: int) -> Future[Any]:
        """Ask for a range."""
        return self._threads.submit(self.bucket.get, found, start, end)

    def close(self) -> None:
        """Forget what nobody waits for, and wait for what is under way."""
        self._threads.shutdown(cancel_futures=True)

    def ahead(self, objects: Iterable[Found | None]) -> Generator[ObjectHandle | None, None, None]:
        """Yield handles of the objects, in order; the beginnings of the next ones are being fetched meanwhile.

        None is handed through.
        """
        waiting: deque[ObjectHandle] = deque()
        size = 0
        try:
            for found in objects:
                if found is None:
                    yield None
                    continue
                handle = ObjectHandle(self, found)
                handle.begin(0)
                waiting.append(handle)
                size += handle.asked
                while size > AHEAD_BYTES or len(waiting) > OBJECTS_AHEAD:
                    size -= waiting[0].asked
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for handle in waiting:
                handle.close()


class ObjectHandle:
    """An object that is read like an open file, at any offset; in order it is fetched ahead.

    Once a range could not be had, nothing can: what reads from it may take the error for one of the content, so look
    at `check` before believing that.
    """

    def __init__(self, fetcher: Fetcher, found: Found) -> None:
        self.found = found
        self.path = fetcher.bucket.place.url(found.key)
        self.key: Key = (0, 0)
        self.asked = 0
        """How many bytes of the beginning were asked for."""
        self._fetcher = fetcher
        self._failure: BaseException | None = None
        self._ahead: deque[tuple[int, Future[Any]]] = deque()
        self._held: deque[tuple[int, memoryview]] = deque()
        self._start = self._end = self._next = 0
        self._beside: tuple[int, memoryview] = (0, memoryview(b""))
        self.keep = RANGE_BYTES
        """So many bytes before the place that is read are kept, since what reads looks back."""

    def begin(self, offset: int) -> None:
        """Expect to be read in order from an offset on; ask for what comes first."""
        self._start = self._end = self._next = offset
        self._ask()
        self.asked = self._next - offset

    def read_at(self, size: int, offset: int) -> bytes:
        """Return `size` bytes from the offset, less only at the end."""
        end = min(offset + size, self.found.size)
        if offset >= end:
            return b""
        if self._failure is not None:
            raise self._failure
        try:
            if offset < self._start or offset > self._end + self.keep or self._next == 0:
                return self._read_beside(offset, end)
            return self._read_on(offset, end)
        except BaseException as error:
            self._failure = error
            raise

    def size(self) -> int:
        """Return how long the object is."""
        return self.found.size

    def imprint(self, size: int) -> str:
        """Return what the object is known by."""
        return self.found.tag

    def check(self, size: int = 0) -> None:
        """Raise the error that a range could not be had for, if there was one: the store sees to all else."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Let go of what was fetched."""
        for _, future in self._ahead:
            future.cancel()
        self._ahead.clear()
        self._held.clear()

    def _ask(self) -> None:
        if self._next < self.found.size:
            end = min(self._next + RANGE_BYTES, self.found.size)
            self._ahead.append((self._next, self._fetcher.ask(self.found, self._next, end)))
            self._next = end

    def _read_on(self, offset: int, end: int) -> bytes:
        while self._held and self._start + len(self._held[0][1]) <= offset - self.keep:
            self._start += len(self._held.popleft()[1])
        while self._end < end:
            while len(self._ahead) <= RANGES_AHEAD and self._next < self.found.size:
                self._ask()
            start, future = self._ahead.popleft()
            data = memoryview(future.result())
            self._held.append((start, data))
            self._end = start + len(data)
        parts = [
            data[max(0, offset - start) : end - start]
            for start, data in self._held
            if start < end and start + len(data) > offset
        ]
        return parts[0].tobytes() if len(parts) == 1 else b"".join(parts)

    def _read_beside(self, offset: int, end: int) -> bytes:
        """Return bytes that lie elsewhere: small pieces out of a larger one, large ones by several ranges at once."""
        start, data = self._beside
        if start <= offset and end <= start + len(data):
            return data[offset - start : end - start].tobytes()
        if end - offset < SMALL_BYTES:
            last = min(offset + SMALL_BYTES, self.found.size)
            self._beside = (offset, memoryview(self._fetcher.ask(self.found, offset, last).result()))
            return self._beside[1][: end - offset].tobytes()
        asked = [
            self._fetcher.ask(self.found, place, min(place + RANGE_BYTES, end))
            for place in range(offset, end, RANGE_BYTES)
        ]
        try:
            return b"".join([future.result() for future in asked])
        finally:
            for future in asked:
                future.cancel()


class ObjectWholeReader(WholeReader[ObjectHandle]):
    """Reads an object whose format needs all of it. The store says by its tag whether it is still the same."""

    def read(self, path: str, *, final: bool, wait: bool) -> Iterator[Part | Room]:
        """Yield the slices behind the bookmark; the bookmark of the last one says that it is."""
        last: Part | None = None
        for part in super().read(path, final=final, wait=wait):
            if isinstance(part, Room):
                yield part
                continue
            if last is not None:
                yield last
            last = part
        self.handle.check()  # else the last one may be a refusal of what could not be had
        if last is not None:
            last.mark = last.mark._replace(size=self.handle.size())
            yield last

    def _take_imprint(self) -> str:
        return self.handle.found.tag
