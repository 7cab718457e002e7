"""Simulated stores, which outlive every process, and the backends through which processes reach them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import pyarrow as pa
from msgspec import Struct, field
from msgspec.structs import replace

from collectors.chunks import Checkpoint, ChunkKey, DeadLetter, Delivery
from collectors.errors import DataError, FencedError
from collectors.storage.base import Backend, BackendConfig, KeepsDeadLetters, KeepsPosition
from collectors.storage.positions import check_follows, is_of
from collectors.testing.deliveries import everything

__all__ = ["Kind", "OutsideStore", "Store", "make_backend", "outside_store"]

Kind = Literal["transactional", "lettered", "buffering", "plain"]


class Store(Struct):
    """What is durable: rows as (source, number, run), letters, positions, keys of what was written without one.

    A `plain` store keeps no positions; a `buffering` one makes deliveries durable in groups of `batch` rows, for all others
    that is what a commit waits for; a `lettered` one keeps dead letters too. Every `refuses`-th number is refused, none for 0; `names` says whether the store tells which.
    """

    id: str
    kind: Kind
    refuses: int
    batch: int
    names: bool = True
    rows: list[tuple[str, int, str]] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    positions: dict[str, Checkpoint] = field(default_factory=dict)
    keys: set[ChunkKey] = field(default_factory=set)

    def takes(self, n: int) -> bool:
        """Return whether the store takes a number."""
        return not self.refuses or n % self.refuses != 0

    def numbers(self, source: str) -> list[int]:
        """Return the numbers of a source in the order in which they were stored."""
        return [n for name, n, _ in self.rows if name == source]

    def kept_letters(self, pipeline: str) -> list[DeadLetter]:
        """Return the dead letters that the store keeps."""
        return [letter for letter in self.letters if letter.pipeline == pipeline]

    def check(self, table: pa.Table) -> list[tuple[str, int]]:
        """Return the rows as pairs. Raises DataError for those that are refused."""
        if not table.num_rows:
            return []
        pairs = list(zip(table["s"].to_pylist(), table["n"].to_pylist(), strict=True))
        bad = {row: "a number that is not taken" for row, (_, n) in enumerate(pairs) if not self.takes(n)}
        if bad:
            raise DataError("refused", rows=bad if self.names else {})
        return pairs

    def publish(self, delivery: Delivery) -> None:
        """Make a delivery durable, as a whole."""
        key = delivery.key
        if not check_follows(self.positions.get(key.flow, Checkpoint(0)), delivery):
            return
        self.rows += [(source, n, delivery.run) for source, n in self.check(delivery.table)]
        self.letters = [letter for letter in self.letters if letter not in delivery.resolved]
        self.letters += delivery.dead_letters
        self.positions[key.flow] = Checkpoint(key.epoch, key.seq, delivery.position, delivery.schema)


def _unmade() -> Backend[Any]:
    raise NotImplementedError


class OutsideStore(Store):
    """What is durable in a store of somebody else's; `make` returns a new process's way to it.

    Rows and letters are read back through a backend of its own, whose methods must be plain ones; `select` must give
    rows in the order in which they were stored.
    """

    make: Callable[[], Backend[Any]] = _unmade

    def numbers(self, source: str) -> list[int]:
        """Return the numbers of a source in the order in which they were stored."""
        return [row["n"] for row in self._read(lambda each: each.select(everything())) if row["s"] == source]

    def kept_letters(self, pipeline: str) -> list[DeadLetter]:
        """Return the dead letters that the store keeps."""
        return self._read(lambda each: list(each.dead_letters(pipeline)) if self.kind == "lettered" else [])

    def _read(self, what: Callable[[Any], list[Any]]) -> list[Any]:
        backend = self.make()
        backend.open()
        try:
            return what(backend)
        finally:
            backend.close()


def outside_store(name: str, make: Callable[[], Backend[Any]]) -> OutsideStore:
    """Return the store behind a backend; what it promises is seen from its methods."""
    backend = make()
    kind: Kind = "lettered" if isinstance(backend, KeepsDeadLetters) else "transactional"
    if not isinstance(backend, KeepsPosition):
        kind = "plain"
    return OutsideStore(name, kind, 0, 0, make=make)


class _Base(Backend[BackendConfig]):
    def __init__(self, store: Store) -> None:
        super().__init__(BackendConfig(id=store.id))
        self.store_ = store
        self.commit_rows = 0 if store.kind == "buffering" else store.batch

    def write(self, table: pa.Table, key: ChunkKey) -> int:
        pairs = self.store_.check(table)
        if key in self.store_.keys:
            return 0
        self.store_.keys.add(key)
        self.store_.rows += [(source, n, "") for source, n in pairs]
        return len(pairs)


class _Transactional(_Base):
    def claim(self, flow: str) -> Checkpoint:
        stored = self.stored(flow)
        self.store_.positions[flow] = replace(stored, epoch=stored.epoch + 1)
        return self.store_.positions[flow]

    def stored(self, flow: str) -> Checkpoint:
        return self.store_.positions.get(flow, Checkpoint(0))

    def flows(self, source: str) -> list[str]:
        positions = self.store_.positions.items()
        return [flow for flow, stored in positions if stored.seq and is_of(flow, source)]

    def commit(self, delivery: Delivery) -> int:
        self.store_.publish(delivery)
        return self.stored(delivery.key.flow).seq


class _Lettered(_Transactional):
    def dead_letters(self, pipeline: str) -> Iterator[DeadLetter]:
        yield from self.store_.kept_letters(pipeline)

    def forget_letters(self, letters: Sequence[DeadLetter]) -> None:
        self.store_.letters = [letter for letter in self.store_.letters if letter not in letters]


class _Buffering(_Transactional):
    """Takes deliveries into the process's memory and publishes them in groups."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._taken: dict[str, list[Delivery]] = {}

    def claim(self, flow: str) -> Checkpoint:
        self._taken[flow] = []
        return super().claim(flow)

    def commit(self, delivery: Delivery) -> int:
        flow = delivery.key.flow
        taken = self._taken.setdefault(flow, [])
        last = taken[-1].key.seq if taken else self.stored(flow).seq
        if check_follows(replace(self.stored(flow), seq=last), delivery):
            self.store_.check(delivery.table)
            taken.append(delivery)
        if sum(each.table.num_rows for each in taken) >= self.store_.batch:
            self._publish(flow)
        return self.stored(flow).seq

    def flush(self) -> None:
        for flow in self._taken:
            self._publish(flow)

    def flush_interval(self) -> float:
        return 10.0

    def _publish(self, flow: str) -> None:
        try:
            while self._taken[flow]:
                self.store_.publish(self._taken[flow][0])
                del self._taken[flow][0]
        except FencedError:
            self._taken[flow] = []
            raise


def make_backend(store: Store) -> Backend[Any]:
    """Return a new process's way to the store."""
    if isinstance(store, OutsideStore):
        return store.make()
    kinds = {"transactional": _Transactional, "lettered": _Lettered, "buffering": _Buffering, "plain": _Base}
    return kinds[store.kind](store)
