"""Small files become few large ones: no reader of the log sees a row twice or misses one, whoever comes in between."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec.structs import replace

from collectors.chunks import Counts
from collectors.cli.main import main
from collectors.errors import CollectorsError, FatalError, FencedError, TransientError
from collectors.models import QueryCriteria
from collectors.runtime.env import Env
from collectors.storage import files
from collectors.storage.backends import _compaction, _parquet_flow, _parquet_log
from collectors.storage.backends._parquet_file import PartFile
from collectors.storage.backends.parquet import ParquetBackend
from collectors.storage.base import Compacted
from collectors.testing.deliveries import delivery, everything

FLOW = "contract/source"


def opened(lake: Path, **settings: Any) -> ParquetBackend:
    backend = ParquetBackend(path=str(lake), max_rows=1, **settings)
    backend.open()
    return backend


def fill(lake: Path, tables: list[pa.Table], flow: str = FLOW, **settings: Any) -> None:
    """Store each table in files of its own."""
    backend = opened(lake, **settings)
    checkpoint = backend.claim(flow)
    for seq, table in enumerate(tables, checkpoint.seq + 1):
        backend.commit(replace(delivery(seq, seq, checkpoint.epoch, flow=flow), table=table))


def compacting(
    lake: Path, target: int = 2**20, *, dry_run: bool = False, tell: Callable[[Compacted], None] = str
) -> list[Compacted]:
    return opened(lake).compact("contract", target, tell, dry_run=dry_run)


def state(lake: Path) -> Any:
    """Return all that has to stay as it is: rows in their order, counts, and how far the flow is stored."""
    backend = opened(lake)
    return (
        backend.select(everything()),
        backend.ledger("run-1"),
        replace(backend.stored(FLOW), epoch=0),
        backend.schema_history(),
    )


def parts(lake: Path) -> list[Path]:
    """Return the files that are seen by who takes all of them."""
    return sorted(lake.rglob("*.parquet"))


def see_nothing_left(lake: Path) -> None:
    assert [path for path in (lake / "_collectors").rglob("*") if path.suffix not in {"", ".json"}] == []
    assert list((lake / "_collectors/intent").iterdir()) == []


def numbered(count: int, rows: int = 3) -> list[pa.Table]:
    return [pa.table({"n": [seq * rows + row for row in range(rows)]}) for seq in range(count)]


def test_rows_counts_and_positions_stay_as_they_are(tmp_path: Path) -> None:
    fill(tmp_path, numbered(5))
    before = state(tmp_path)
    assert before[1] == {FLOW: Counts(read=20, stored=15, set_aside=5)}
    planned = compacting(tmp_path, dry_run=True)
    assert len(parts(tmp_path)) == 5
    told: list[Compacted] = []
    (done,) = compacting(tmp_path, tell=told.append)
    assert told == [done]
    assert (done.files_before, done.files_after, done.rows) == (5, 1, 15)
    assert [replace(done, bytes_after=0)] == planned
    (made,) = parts(tmp_path)
    assert done.bytes_after == made.stat().st_size < done.bytes_before
    assert state(tmp_path) == before
    see_nothing_left(tmp_path)
    log = sorted((tmp_path / "_collectors/log").rglob("*.json"))
    assert compacting(tmp_path) == []
    assert sorted((tmp_path / "_collectors/log").rglob("*.json")) == log


def test_a_pipeline_goes_on_behind_it_and_so_does_the_next_one(tmp_path: Path) -> None:
    for number in range(1, 4):
        fill(tmp_path, [pa.table({"n": [n]}) for n in range(3 * number - 3, 3 * number)])
        assert [step.files_before for step in compacting(tmp_path)] == [3 if number == 1 else 4]
        assert [row["n"] for row in state(tmp_path)[0]] == list(range(3 * number))
    assert len(parts(tmp_path)) == 1
    assert state(tmp_path)[2].seq == 9


def test_only_neighbours_with_the_same_columns_are_merged_and_rows_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the clock stood still."""
    monkeypatch.setattr(_parquet_flow, "_now", lambda: "2026-01-02T00:00:00+00:00")
    large = pa.table({"n": [10_000 + n for n in range(5000)]})
    tables = [
        *numbered(2),
        pa.table({"n": ["x"]}),
        pa.table({"n": ["y"]}),
        *numbered(2),
        pa.table({"n": [1], "m": [2]}),
        large,
        *numbered(1),
        large,
        *numbered(3),
    ]
    fill(tmp_path, tables)
    before = state(tmp_path)
    done = compacting(tmp_path, target=2 * 5000)
    assert [step.files_before for step in done] == [2, 2, 2, 3]
    assert state(tmp_path) == before
    assert [pq.read_metadata(path).num_rows for path in parts(tmp_path)].count(5000) == 2


def test_flows_stay_for_themselves_in_the_order_of_their_rows(tmp_path: Path) -> None:
    for number in range(4):
        fill(tmp_path, [pa.table({"n": [number]})], flow=f"contract/{'ab'[number % 2]}")
        fill(tmp_path, [pa.table({"n": [100 + number]})], flow="contracts/a")
    done = compacting(tmp_path)
    assert [(step.flow, step.files_before) for step in done] == [("contract/a", 2), ("contract/b", 2)]
    assert [row["n"] for row in opened(tmp_path).select(everything())] == [0, 2, 100, 1, 3, 101, 102, 103]


def test_each_folder_has_its_own(tmp_path: Path) -> None:
    days = {"partition_by": ["day"]}
    fill(
        tmp_path,
        [pa.table({"day": ["a", "b"], "n": [n, n + 1]}) for n in (0, 2, 4)]
        + [pa.table({"day": ["b"], "n": [7]})],
        **days,
    )
    assert [step.files_before for step in compacting(tmp_path)] == [3, 4]
    assert [path.parent.name for path in parts(tmp_path)] == ["day=a", "day=b"]
    rows = [(row["day"], row["n"]) for row in state(tmp_path)[0]]
    assert rows == [("a", 0), ("a", 2), ("a", 4), ("b", 1), ("b", 3), ("b", 5), ("b", 7)]


def test_values_of_folders_keep_their_types(tmp_path: Path) -> None:
    tables = [pa.table({"code": [code], "n": [n]}) for n, code in enumerate([1, 1])]
    tables += [pa.table({"code": [code], "n": [n]}) for n, code in enumerate(["1", "1"], 2)]
    fill(tmp_path, tables, partition_by=["code"])
    assert [step.files_before for step in compacting(tmp_path)] == [2, 2]
    assert [row["code"] for row in state(tmp_path)[0]] == [1, 1, "1", "1"]


def test_files_become_as_large_as_wanted(tmp_path: Path) -> None:
    fill(tmp_path, numbered(12))
    size = parts(tmp_path)[0].stat().st_size
    assert [step.files_before for step in compacting(tmp_path, target=4 * size + 10)] == [4, 4, 4]
    assert compacting(tmp_path, target=size) == []


def test_values_of_every_kind_come_back(tmp_path: Path) -> None:
    rows = [
        {"f": math.nan, "s": {"a": [1, None], "b": {}}, "t": "é\0", "b": b"\xff", "l": [{"x": math.nan}]},
        {"f": None, "s": None, "t": None, "b": None, "l": []},
    ]
    fill(tmp_path, [pa.Table.from_pylist(rows) for _ in range(3)] + [pa.table({"none": pa.nulls(2)})] * 2)
    before = repr(state(tmp_path)[0])
    assert [step.files_before for step in compacting(tmp_path)] == [3, 2]
    assert repr(state(tmp_path)[0]) == before


def test_memory_is_bounded_by_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = ["x" * 1000] * 20_000
    fill(tmp_path, [pa.table({"n": range(20_000), "text": text}) for _ in range(3)])
    waited = []
    real = PartFile.add

    def add(self: PartFile, table: pa.Table) -> None:
        real(self, table)
        waited.append(max(table.nbytes, self.waiting_bytes))

    monkeypatch.setattr(PartFile, "add", add)
    assert [step.rows for step in compacting(tmp_path, target=2**30)] == [60_000]
    assert max(waited) < 32 * 2**20
    assert pq.read_metadata(parts(tmp_path)[0]).num_row_groups >= 3


def test_what_was_merged_cannot_be_deleted_by_its_location_and_the_rest_can(tmp_path: Path) -> None:
    fill(tmp_path, [*numbered(3), pa.table({"other": [1]})])
    compacting(tmp_path)
    for seq in (1, 3):
        with pytest.raises(
            FatalError, match=rf"source:{seq} were merged with others by `collectors compact`"
        ):
            opened(tmp_path).remove(f"{FLOW}:{seq}")
    assert len(state(tmp_path)[0]) == 10
    opened(tmp_path).remove(f"{FLOW}:4")
    with pytest.raises(KeyError):
        opened(tmp_path).remove(f"{FLOW}:4")
    assert len(state(tmp_path)[0]) == 9
    with pytest.raises(KeyError):
        opened(tmp_path).remove("nobody/here:1")
    assert not (tmp_path / "_collectors/log/nobody~here").exists()


def test_what_was_deleted_is_not_brought_back(tmp_path: Path) -> None:
    fill(tmp_path, numbered(4))
    opened(tmp_path).remove(f"{FLOW}:2")
    assert [step.files_before for step in compacting(tmp_path)] == [3]
    assert [row["n"] for row in state(tmp_path)[0]] == [0, 1, 2, *range(6, 12)]


def test_nothing_is_deleted_by_location_while_it_is_merged(tmp_path: Path) -> None:
    fill(tmp_path, [*numbered(2), *[pa.table({"n": [text]}) for text in "xy"]])
    refused = []

    def tell(_: Compacted) -> None:
        with pytest.raises(TransientError, match="merged or deleted by another process now") as caught:
            opened(tmp_path).remove(f"{FLOW}:3")
        refused.append(caught)
        with pytest.raises(TransientError):
            compacting(tmp_path)

    assert len(compacting(tmp_path, tell=tell)) == len(refused) == 2
    assert len(state(tmp_path)[0]) == 8


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_file_systems_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*_: Any) -> None:
        raise OSError(number, "x")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    fill(tmp_path, numbered(2))
    assert len(compacting(tmp_path)) == 1


def test_files_that_are_not_as_the_log_says_are_named_and_nothing_is_changed(tmp_path: Path) -> None:
    fill(tmp_path, numbered(3))
    victim = parts(tmp_path)[1]
    whole = victim.read_bytes()

    def refused(why: str) -> None:
        there = parts(tmp_path)
        with pytest.raises(FatalError, match=f"{why}.*the log says that it holds 3 rows") as caught:
            compacting(tmp_path)
        assert str(victim) in str(caught.value)
        assert parts(tmp_path) == there
        assert list((tmp_path / "_collectors").rglob("*.tmp")) == []

    victim.write_bytes(whole[: len(whole) // 2])
    refused("cannot be merged")
    pq.write_table(pa.table({"n": [1, 2]}), victim)
    refused("it has 2 rows")
    victim.unlink()
    refused("No such file")
    victim.write_bytes(whole)
    assert len(compacting(tmp_path)) == 1
    assert [row["n"] for row in state(tmp_path)[0]] == list(range(9))


def test_rows_that_were_written_wrongly_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, numbered(3))
    before = state(tmp_path)
    real = PartFile.add
    for change in (lambda table: table.slice(0, 2), lambda table: pa.table({"n": [7] * table.num_rows})):
        with monkeypatch.context() as patch:
            patch.setattr(PartFile, "add", lambda self, table, change=change: real(self, change(table)))
            with pytest.raises(FatalError, match="does not have the rows that were written to it"):
                compacting(tmp_path)
        assert state(tmp_path) == before
        assert len(parts(tmp_path)) == 3
        assert list((tmp_path / "_collectors").rglob("*.tmp")) == []


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(), st.just(math.nan)), min_size=1, max_size=12),
    st.data(),
)
def test_rows_are_compared_however_they_are_split(values: list[float | None], data: st.DataObject) -> None:
    table = pa.table({"f": pa.array(values, pa.float64()), "n": range(len(values))})

    def split(rows: pa.Table) -> Iterator[pa.Table]:
        at = 0
        while at < rows.num_rows:
            size = data.draw(st.integers(1, rows.num_rows))
            yield rows.slice(at, size)
            at += size

    same = _compaction.same
    assert same(split(table), split(table))
    row = data.draw(st.integers(0, len(values) - 1))
    short = pa.concat_tables([table.slice(0, row), table.slice(row + 1)])
    assert not same(split(table), split(short))
    assert not same(split(short), split(table))
    other = [*values[:row], 1.5 if values[row] != 1.5 else None, *values[row + 1 :]]
    changed = table.set_column(0, "f", pa.array(other, pa.float64()))
    assert not same(split(table), split(changed))


# Others come in between, at every call that changes a file.

CALLS = ["link", "unlink", "replace", "rename", "mkdir", "fsync", "pwrite"]


@contextmanager
def before_each_call(monkeypatch: pytest.MonkeyPatch, do: Callable[[int, str], None]) -> Iterator[None]:
    """Call `do` before each call of a compaction that changes files, but for those that it makes itself."""
    numbers = itertools.count(1)
    busy = [False]

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not busy[0]:
                busy[0] = True
                try:
                    do(next(numbers), name)
                finally:
                    busy[0] = False
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrapped(name, getattr(os, name)))
        patch.setattr(files.fcntl, "flock", lambda *_: None)  # they are on different machines
        yield


def test_readers_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads by the log sees each row once. Who takes every file does, too, but while old ones are being deleted."""
    fill(tmp_path, [pa.table({"day": ["a", "b"], "n": [n, n + 1]}) for n in (0, 2, 4)], partition_by=["day"])
    before = [(row["day"], row["n"]) for row in state(tmp_path)[0]]
    others: list[tuple[str, Counter[int]]] = []

    def read(_: int, name: str) -> None:
        rows = [(row["day"], row["n"]) for row in state(tmp_path)[0]]
        assert sorted(rows) == sorted(before)
        for day in "ab":
            assert [n for each, n in rows if each == day] == [n for each, n in before if each == day]
        everyone = [n for path in parts(tmp_path) for n in pq.ParquetFile(path).read(["n"])["n"].to_pylist()]
        others.append((name, Counter(everyone)))

    with before_each_call(monkeypatch, read):
        assert len(compacting(tmp_path)) == 2
    assert len(others) > 20
    doubled = [name for name, seen in others if max(seen.values()) > 1]
    assert all(set(seen) == set(range(6)) and max(seen.values()) <= 2 for _, seen in others)
    assert doubled == 2 * ["fsync", *["unlink"] * 3], "from its name until the old ones are deleted"


def test_a_query_that_has_begun_reads_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, numbered(4))
    backend, real = opened(tmp_path), pq.ParquetFile
    merged: list[Any] = []

    def file(path: Any) -> Any:
        if "part-" in str(path) and not merged:
            merged.append(None)
            merged[:] = compacting(tmp_path)
        return real(path)

    monkeypatch.setattr(pq, "ParquetFile", file)
    assert [row["n"] for row in backend.select(everything())] == list(range(12))
    assert len(merged) == 1
    parts(tmp_path)[0].unlink()
    with pytest.raises(FatalError, match=r"part-\S* cannot be read .*it holds 12 rows"):
        backend.select(everything())
    with pytest.raises(FatalError, match="cannot be read"):
        backend.select(QueryCriteria({"n": 1}, None, None, None))


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_is_merged_while_it_looks_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    fill(tmp_path, numbered(4))
    real = pq.read_schema

    def read_schema(path: Path) -> pa.Schema:
        monkeypatch.undo()
        assert len(compacting(tmp_path)) == 1
        return real(path)

    monkeypatch.setattr(files.fcntl, "flock", lambda *_: None)
    monkeypatch.setattr(pq, "read_schema", read_schema)
    assert compacting(tmp_path, dry_run=dry_run) == []


def interrupted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, other: Callable[[Path], None]
) -> Iterator[tuple[Path, Exception | None]]:
    """Let the other one come before each call of a compaction in turn."""
    for moment in itertools.count(1):
        lake = folder / str(moment)
        fill(lake, [*numbered(2), *[pa.table({"n": [text]}) for text in "xy"]])
        came = []

        def come(
            number: int, _: str, lake: Path = lake, moment: int = moment, came: list[Any] = came
        ) -> None:
            if number == moment:
                came.append(number)
                other(lake)

        failed: Exception | None = None
        with before_each_call(monkeypatch, come):
            try:
                compacting(lake)
            except CollectorsError as error:
                failed = error
        if not came:
            assert moment > 25
            return
        yield lake, failed


def end_well(lake: Path, expected: list[Any], parts_left: int) -> None:
    for _ in range(2):
        assert [row["n"] for row in state(lake)[0]] == expected
        compacting(lake)
    assert len(parts(lake)) == parts_left
    opened(lake).claim(FLOW)
    see_nothing_left(lake)


def test_another_compaction_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Counter[type]()
    for lake, failed in interrupted(tmp_path, monkeypatch, lambda lake: str(compacting(lake))):
        ended[type(failed)] += 1
        assert failed is None or isinstance(failed, FencedError), failed
        end_well(lake, [*range(6), "x", "y"], 2)
    assert ended[FencedError] > 5


def test_a_pipeline_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the flow over; what it stores is there, and the compaction stops where it is."""
    ended = Counter[type]()
    for lake, failed in interrupted(tmp_path, monkeypatch, lambda lake: fill(lake, [pa.table({"n": ["z"]})])):
        ended[type(failed)] += 1
        assert failed is None or isinstance(failed, FencedError), failed
        end_well(lake, [*range(6), "x", "y", "z"], 2)
    assert ended[FencedError] > 5


def test_a_deletion_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has deleted stays deleted; what was merged before it stays."""
    gone: list[bool] = []

    def delete(lake: Path) -> None:
        try:
            opened(lake).remove(f"{FLOW}:2")
        except FatalError as error:
            gone.append("merged" not in str(error))
        else:
            gone.append(True)

    for lake, failed in interrupted(tmp_path, monkeypatch, delete):
        assert failed is None
        end_well(lake, [*range(3), "x", "y"] if gone[-1] else [*range(6), "x", "y"], 2)
    assert gone.count(True) > 5
    assert gone.count(False) > 5


def test_a_deletion_while_others_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow stays its owner's, who stores all of it, once."""
    for moment in itertools.count(1):
        lake = tmp_path / str(moment)
        fill(lake, numbered(2))
        came = []

        def come(
            number: int, _: str, lake: Path = lake, moment: int = moment, came: list[Any] = came
        ) -> None:
            if number == moment:
                came.append(number)
                opened(lake).remove(f"{FLOW}:2")

        with before_each_call(monkeypatch, come):
            fill(lake, numbered(3)[1:])
        if not came:
            break
        assert [row["n"] for row in state(lake)[0]] == [0, 1, 2, 3, 4, 5, 6, 7, 8], moment
        assert len(parts(lake)) == 3, moment
        opened(lake).claim(FLOW)
        see_nothing_left(lake)
    assert moment > 15


def test_a_deletion_while_rows_wait(tmp_path: Path) -> None:
    fill(tmp_path, numbered(2))
    backend = ParquetBackend(path=str(tmp_path))
    backend.open()
    epoch = backend.claim(FLOW).epoch
    tables = numbered(5)
    backend.commit(replace(delivery(3, 3, epoch), table=tables[2]))
    opened(tmp_path).remove(f"{FLOW}:1")
    backend.commit(replace(delivery(4, 4, epoch), table=tables[3]))
    opened(tmp_path).remove(f"{FLOW}:2")
    backend.flush()
    backend.commit(replace(delivery(5, 5, epoch), table=tables[4]))
    backend.flush()
    assert [row["n"] for row in state(tmp_path)[0]] == list(range(6, 15))
    opened(tmp_path).claim(FLOW)
    with pytest.raises(FencedError):
        backend.commit(delivery(6, 6, epoch))


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 20))])
def test_another_compaction_that_dies_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The first one, which knows nothing of it, goes on; then a third one does what is left to do."""
    chance = random.Random(seed)
    deaths = 0

    def die_on_the_way(lake: Path) -> None:
        nonlocal deaths
        moment = chance.randint(1, 40)

        def die(number: int, _: str) -> None:
            if number == moment:
                raise KilledError

        with before_each_call(monkeypatch, die):
            try:
                compacting(lake)
            except KilledError:
                deaths += 1

    for lake, failed in interrupted(tmp_path, monkeypatch, die_on_the_way):
        assert failed is None or isinstance(failed, FencedError), failed
        end_well(lake, [*range(6), "x", "y"], 2)
    assert deaths > 5


def test_an_owner_that_still_writes_is_fenced(tmp_path: Path) -> None:
    fill(tmp_path, numbered(2))
    backend = opened(tmp_path)
    epoch = backend.claim(FLOW).epoch
    backend.commit(delivery(3, 3, epoch))
    compacting(tmp_path)
    with pytest.raises(FencedError):
        backend.commit(delivery(4, 4, epoch))
    assert len(state(tmp_path)[0]) == 9


def test_an_owner_in_the_middle_of_its_commit_is_fenced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files have their names already, and are deleted by one of the two."""
    real = _parquet_log.FlowLog.put

    def put(*args: Any) -> Any:
        monkeypatch.undo()
        assert len(compacting(tmp_path)) == 1
        return real(*args)

    fill(tmp_path, numbered(2))
    backend = opened(tmp_path)
    epoch = backend.claim(FLOW).epoch
    monkeypatch.setattr(_parquet_log.FlowLog, "put", put)
    with pytest.raises(FencedError):
        backend.commit(replace(delivery(3, 3, epoch), table=pa.table({"n": [9]})))
    end_well(tmp_path, list(range(6)), 1)


def test_a_full_disk_ends_it_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, numbered(3))

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(TransientError, match=r"cannot write to .*: No space left on device"):
            compacting(tmp_path)
    assert list((tmp_path / "_collectors/merged").iterdir()) == []
    end_well(tmp_path, list(range(9)), 1)


PIPELINE = """
name: contract
sources: [{{type: stdin, id: source}}]
storage: [{{type: {type}, path: "{place}"}}]
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "lake", [*numbered(3), *[pa.table({"n": [text]}) for text in "xy"]])
    (tmp_path / "p.yaml").write_text(PIPELINE.format(type="parquet", place=tmp_path / "lake"))

    def told(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["compact", *arguments])
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return told


def test_the_command(tmp_path: Path, told: Any) -> None:
    (tmp_path / "q.yaml").write_text(PIPELINE.format(type="sqlite", place="x.db"))
    state_before = sorted(tmp_path.rglob("*"))
    assert told("p.yaml", "--dry-run") == (0, f"{FLOW}: 5 files → 2, 11 rows, planned\n", "")
    assert sorted(tmp_path.rglob("*")) == state_before
    code, out, err = told("p.yaml", "--json")
    steps = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [(step["storage"], step["flow"], step["files_before"]) for step in steps] == [
        ("parquet", FLOW, 3),
        ("parquet", FLOW, 2),
    ]
    assert told("p.yaml") == (0, "storage parquet: there is nothing to merge\n", "")
    assert told("q.yaml")[0] == 2
    assert "types parquet and object_store" in told("q.yaml")[2]


def test_the_command_refuses_beside_a_run_and_says_which(tmp_path: Path, told: Any) -> None:
    env = Env()
    with env.lock(tmp_path / ".collectors/contract/lock"):
        code, out, err = told("p.yaml")
        assert (code, out) == (2, "")
        assert f"the pipeline 'contract' is running (process {os.getpid()}, since" in err
        assert len(parts(tmp_path / "lake")) == 5
        assert told("p.yaml", "--dry-run")[0] == 0
    env.close()
    assert told("p.yaml")[0] == 0


def test_the_command_tells_what_was_done_before_it_failed(
    told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collectors.cli.compact._PROGRESS_SECONDS", 0)
    victim = next(path for path in parts(tmp_path / "lake") if "000004" in path.name)
    whole = victim.read_bytes()
    schema = pq.read_schema(victim)
    pq.write_table(schema.empty_table(), victim)
    code, out, err = told("p.yaml")
    assert code == 1
    assert out.startswith(f"{FLOW}: 3 files → 1, 9 rows, ")
    assert f"{FLOW}: 3 files were merged" in err
    assert "it has 0 rows" in err
    victim.write_bytes(whole)
    assert told("p.yaml")[1].startswith(f"{FLOW}: 2 files → 1, 2 rows, ")
