"""What is deleted by its location stays deleted, and nothing else goes, whoever comes between two requests."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from msgspec.structs import replace

from collectors.errors import FatalError
from collectors.storage.backends._object_store_client import Objects
from collectors.storage.backends.object_store import ObjectStoreBackend
from collectors.testing.deliveries import delivery, everything

FLOW = "contract/source"
CALLS = ["put", "put_new", "upload", "delete", "get", "range", "names", "first", "folders"]


def opened(folder: Path) -> ObjectStoreBackend:
    backend = ObjectStoreBackend(url=folder.as_uri(), max_rows=1)
    backend.open()
    return backend


def fill(folder: Path, values: list[Any]) -> None:
    """Store each value in an object of its own, with a dead letter each."""
    backend = opened(folder)
    checkpoint = backend.claim(FLOW)
    for seq, value in enumerate(values, checkpoint.seq + 1):
        backend.commit(replace(delivery(seq, seq, checkpoint.epoch), table=pa.table({"n": [value]})))
    backend.close()


def compacting(folder: Path) -> None:
    backend = opened(folder)
    backend.compact("contract", 2**20, lambda _: None, dry_run=False)
    backend.close()


def deleted(folder: Path, seq: int) -> bool:
    """Delete a location; False: it says that its rows were merged with others."""
    backend = opened(folder)
    try:
        backend.remove(f"{FLOW}:{seq}")
    except FatalError as error:
        if "were merged with others" not in str(error):
            raise
        return False
    finally:
        backend.close()
    return True


def rows(folder: Path) -> list[Any]:
    backend = opened(folder)
    found = [row["n"] for row in backend.select(everything())]
    backend.close()
    return found


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("part-*") if "_collectors" not in path.parts]


@contextmanager
def before_each_request(monkeypatch: pytest.MonkeyPatch, do: Callable[[int], None]) -> Iterator[None]:
    """Call `do` before each request to the store, but for those that it makes itself."""
    numbers = itertools.count(1)
    busy = [False]

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def request(*args: Any) -> Any:
            if not busy[0]:
                busy[0] = True
                try:
                    do(next(numbers))
                finally:
                    busy[0] = False
            return real(*args)

        return request

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(Objects, name, wrapped(getattr(Objects, name)))
        patch.setattr(Objects, "each", lambda _, function, items: [function(item) for item in items])
        yield


def interrupted(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: list[Any],
    one: Callable[[Path], Any],
    other: Callable[[Path], Any],
) -> Iterator[tuple[Path, Any, Any]]:
    """Let the other one come before each request of the first in turn; yields what both returned."""
    for moment in itertools.count(1):
        store = folder / str(moment)
        fill(store, values)
        came: list[Any] = []

        def come(number: int, store: Path = store, moment: int = moment, came: list[Any] = came) -> None:
            if number == moment:
                came.append(other(store))

        with before_each_request(monkeypatch, come):
            result = one(store)
        if not came:
            return
        yield store, result, came[0]


def see_the_end(store: Path, expected: list[Any], where: Any) -> None:
    """See the rows at once, and that other compactions bring nothing back and leave nothing behind."""
    for _ in range(3):
        assert rows(store) == expected, where
        compacting(store)
    assert len(parts(store)) == 2, where


def test_rows_that_are_deleted_while_they_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Counter[bool]()
    values = [1, 2, 3, "x", "y"]
    for store, _, gone in interrupted(
        tmp_path, monkeypatch, values, compacting, lambda store: deleted(store, 2)
    ):
        ended[gone] += 1
        see_the_end(store, [1, 3, "x", "y"] if gone else values, store.name)
    assert ended[True] > 15
    assert ended[False] > 5


def test_rows_that_are_merged_while_they_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Counter[bool]()
    values = [1, 2, 3, "x", "y"]
    for store, gone, _ in interrupted(
        tmp_path, monkeypatch, values, lambda store: deleted(store, 2), compacting
    ):
        ended[gone] += 1
        see_the_end(store, [1, 3, "x", "y"] if gone else values, store.name)
    assert ended[True]
    assert ended[False]


def test_rows_that_are_deleted_while_others_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow stays its owner's, who stores all of it, once."""

    def store_more(store: Path) -> list[str]:
        backend = opened(store)
        epoch = backend.claim(FLOW).epoch
        for seq in (4, 5):
            backend.commit(replace(delivery(seq, seq, epoch), table=pa.table({"n": [seq]})))
        letters = [letter.seq for letter in backend.dead_letters("contract")]
        backend.close()
        return letters

    moments = 0
    for store, letters, gone in interrupted(
        tmp_path, monkeypatch, [1, 2, 3], store_more, lambda store: deleted(store, 2)
    ):
        moments += 1
        assert gone
        assert letters == [1, 2, 3, 4, 5], store.name
        assert rows(store) == [1, 3, 4, 5], store.name
        opened(store).claim(FLOW)
        assert rows(store) == [1, 3, 4, 5], store.name
        assert len(parts(store)) == 4, store.name
        assert list((store / "_collectors/intent").rglob("*.json")) == []
    assert moments > 10


class KilledError(BaseException):
    pass


def test_a_deletion_that_is_killed_at_every_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is done or not; what is left of the objects of one that is done, the next compaction deletes."""
    seen = Counter[int]()
    for moment in itertools.count(1):
        store = tmp_path / str(moment)
        fill(store, [1, 2, "x"])

        def die(number: int, moment: int = moment) -> None:
            if number >= moment:
                raise KilledError

        with before_each_request(monkeypatch, die):
            try:
                deleted(store, 2)
            except KilledError:
                killed = True
            else:
                killed = False
        left = rows(store)
        assert left in ([1, 2, "x"], [1, "x"])
        seen[len(left)] += 1
        compacting(store)
        assert rows(store) == left
        assert len(parts(store)) == 2, moment
        if not killed:
            break
    assert seen[2] > 1
    assert seen[3] > 1
