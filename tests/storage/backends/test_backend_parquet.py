from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Callable, Coroutine
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from collectors.chunks import Checkpoint, ChunkKey, Counts, Delivery
from collectors.errors import DataError, FatalError, FencedError, TransientError
from collectors.models import QueryCriteria
from collectors.storage.backends import _parquet_flow, _parquet_log
from collectors.storage.backends.parquet import ParquetBackend
from collectors.testing.backend_contract import BackendContract
from collectors.testing.crashes import find_crash_losses
from collectors.testing.deliveries import delivery, everything

FLOW = "contract/source"


class TestParquet(BackendContract):
    """With a bound at which some deliveries are published by `commit`, others by `flush`."""

    component = "parquet"

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"path": str(folder / "lake"), "max_rows": 4}

    def test_dying_at_any_moment_loses_and_doubles_nothing(self, tmp_path: Path) -> None:
        super().test_dying_at_any_moment_loses_and_doubles_nothing(tmp_path)
        see_no_leftovers(tmp_path)


def run(
    folder: Path, scenario: Callable[[ParquetBackend], Coroutine[Any, Any, None]], **settings: Any
) -> None:
    async def main() -> None:
        backend = ParquetBackend(path=str(folder / "lake"), **settings)
        await backend.connect()
        try:
            await scenario(backend)
        finally:
            await backend.disconnect()

    asyncio.run(main())


def chunk(seq: int, table: pa.Table, epoch: int = 1) -> Delivery:
    counts = Counts(read=table.num_rows, stored=table.num_rows)
    return Delivery(ChunkKey(FLOW, epoch, seq), seq, table, {"offset": seq}, None, "run", counts)


def data_files(folder: Path) -> list[str]:
    lake = folder / "lake"
    return sorted(str(path.relative_to(lake)) for path in lake.rglob("*.parquet"))


def scratch_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "lake" / "_collectors" / "tmp").iterdir())


def see_no_leftovers(folder: Path) -> None:
    """See that readers who take every file find each row once, and that nothing but rows and log is left."""
    for moment in folder.iterdir():
        found = ds.dataset(moment / "lake", format="parquet").to_table(columns=["text"])
        assert sorted(found["text"].to_pylist()) == [f"row {number}" for number in range(9)], moment
        assert scratch_files(moment) == []
        assert list((moment / "lake" / "_collectors" / "intent").iterdir()) == []


def test_folders_are_named_as_hive_names_them_and_nothing_leaves_the_lake(tmp_path: Path) -> None:
    names = [
        "../../etc",
        "a/b",
        "..",
        "",
        "a b",
        "é",
        "%41",
        "x=y",
        "__HIVE_DEFAULT_PARTITION__",
        None,
        "\0",
        "CON",
        "~",
    ]
    table = pa.table({"n": range(len(names)), "name": names, "day": [date(2026, 1, 2)] * len(names)})

    async def scenario(backend: ParquetBackend) -> None:
        await backend.store(table)
        found = await backend.query(QueryCriteria({}, "n", None, None))
        assert [row["name"] for row in found] == names
        assert {row["day"] for row in found} == {date(2026, 1, 2)}
        for name in names:
            assert len(await backend.query(QueryCriteria({"name": name}, None, None, None))) == 1
        assert await backend.query(QueryCriteria({"day": {">": date(2026, 1, 2)}}, None, None, None)) == []

    run(tmp_path, scenario, partition_by=["name", "day"])
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]
    folders = {file.split("/")[0] for file in data_files(tmp_path)}
    assert {"name=..%2F..%2Fetc", "name=a%2Fb", "name=..", "name=__HIVE_DEFAULT_PARTITION__"} < folders
    assert len(folders) == len(names)
    assert all(file.count("/") == 2 and "/day=2026-01-02/" in file for file in data_files(tmp_path))
    by_others = ds.dataset(tmp_path / "lake", partitioning="hive", format="parquet").to_table()
    assert by_others.num_rows == len(names)
    read = dict(zip(by_others["n"].to_pylist(), by_others["name"].to_pylist(), strict=True))
    assert read == dict(enumerate(names)) | {8: read[8]}


def test_the_rows_of_a_folder_keep_their_order_and_values_their_types(tmp_path: Path) -> None:
    rows = [
        {"n": n, "flag": n % 2 == 0, "code": None if n % 3 == 0 else n % 3, "x": f"x{n}"} for n in range(50)
    ]

    async def scenario(backend: ParquetBackend) -> None:
        await backend.store(rows)
        found = await backend.query(QueryCriteria({"flag": True, "code": {"!=": None}}, None, None, None))
        expected = [row for code in (1, 2) for row in rows if row["flag"] and row["code"] == code]
        assert sorted(found, key=lambda row: row["n"]) == sorted(expected, key=lambda row: row["n"])
        for code in (1, 2):
            numbers = [row["n"] for row in found if row["code"] == code]
            assert numbers == sorted(numbers)

    run(tmp_path, scenario, partition_by=["flag", "code"])


def test_what_cannot_be_a_folder_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    async def scenario(backend: ParquetBackend) -> None:
        with pytest.raises(FatalError, match="no column 'd' to partition by; there are: n"):
            await backend.store({"n": 1})
        with pytest.raises(FatalError, match="column 'd' is double, which makes no folders"):
            await backend.store({"d": 1.5})
        with pytest.raises(DataError, match=r"row 1.*too long") as caught:
            await backend.store([{"d": "a"}, {"d": "é" * 100}, {"d": "b"}, {"d": "é" * 100}])
        assert set(caught.value.rows) == {1, 3}
        assert await backend.query(everything()) == []

    run(tmp_path, scenario, partition_by=["d"])
    assert data_files(tmp_path) == []


@pytest.mark.slow
def test_dying_at_any_moment_with_folders(tmp_path: Path) -> None:
    settings = {"path": "{folder}/lake", "partition_by": ["even"], "max_rows": 6}
    moments, losses = find_crash_losses("parquet", settings, tmp_path)
    assert losses == []
    assert moments > 50
    see_no_leftovers(tmp_path)


def test_rows_wait_in_scratch_files_until_a_file_is_full(tmp_path: Path) -> None:
    async def scenario(backend: ParquetBackend) -> None:
        await backend.call(backend.claim, FLOW)
        seqs = [await backend.call(backend.commit, delivery(seq, seq)) for seq in range(1, 8)]
        assert seqs == [0, 0, 3, 3, 3, 6, 6]
        assert len(await backend.query(everything())) == 18
        assert (await backend.call(backend.stored, FLOW)).seq == 6
        await backend.call(backend.flush)
        assert (await backend.call(backend.stored, FLOW)).seq == 7
        assert backend.flush_interval() == 300

    run(tmp_path, scenario, max_rows=9)
    assert [pq.read_metadata(tmp_path / "lake" / name).num_rows for name in data_files(tmp_path)] == [9, 9, 3]
    assert scratch_files(tmp_path) == []


def test_a_file_is_closed_at_its_size_and_large_chunks_become_row_groups(tmp_path: Path) -> None:
    table = pa.table({"text": [os.urandom(32).hex() for _ in range(60_000)]})

    async def scenario(backend: ParquetBackend) -> None:
        await backend.call(backend.claim, FLOW)
        seqs = [await backend.call(backend.commit, chunk(seq, table)) for seq in range(1, 8)]
        assert max(seqs) == 5
        await backend.call(backend.flush)

    run(tmp_path, scenario, max_bytes="12 MiB")
    metadata = [pq.read_metadata(tmp_path / "lake" / name) for name in data_files(tmp_path)]
    assert sum(each.num_rows for each in metadata) == 420_000
    assert max(each.num_row_groups for each in metadata) > 1
    assert metadata[0].row_group(0).column(0).compression == "ZSTD"


def test_only_columns_of_few_values_get_a_dictionary(tmp_path: Path) -> None:
    async def scenario(backend: ParquetBackend) -> None:
        rows = range(20_000)
        coming_back = [row % 6000 for row in rows]
        table = {
            "id": rows,
            "status": ["ok", "fail"] * 10_000,
            "level": coming_back,
            "place": [row % 9000 for row in rows],
        }
        await backend.store(pa.table(table))

    run(tmp_path, scenario)
    group = pq.read_metadata(tmp_path / "lake" / data_files(tmp_path)[0]).row_group(0)
    assert [group.column(index).has_dictionary_page for index in range(4)] == [False, True, True, False]


def test_another_schema_begins_another_file(tmp_path: Path) -> None:
    tables = [
        pa.table({"a": [1]}),
        pa.table({"a": [2]}),
        pa.table({"a": ["x"]}),
        pa.table({"a": ["y"], "b": [1.5]}),
    ]

    async def scenario(backend: ParquetBackend) -> None:
        await backend.call(backend.claim, FLOW)
        seqs = [await backend.call(backend.commit, chunk(seq, table)) for seq, table in enumerate(tables, 1)]
        assert seqs == [0, 0, 2, 3]
        await backend.call(backend.flush)
        assert await backend.query(everything()) == [
            {"a": 1, "b": None},
            {"a": 2, "b": None},
            {"a": "x", "b": None},
            {"a": "y", "b": 1.5},
        ]
        assert backend.preview(pa.table({"a": ["z"], "b": [True], "c": [1]}), FLOW) == [
            "= a string",
            "~ b: files have double, rows bring bool; readers of all files must convert one of the two",
            "+ c int64 (new)",
        ]

    run(tmp_path, scenario)


def test_null_columns_and_empty_objects_are_written_so_that_readers_can(tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": [1, 2],
            "nothing": pa.nulls(2),
            "object": pa.array([{}, None], pa.struct([])),
            "list": pa.array([[{}, None], []], pa.list_(pa.struct([]))),
            "code": pa.array(["a", "b"]).dictionary_encode(),
        }
    )

    async def scenario(backend: ParquetBackend) -> None:
        await backend.store(table)
        await backend.store(pa.table({"nothing": pa.nulls(3)}))
        found = await backend.query(everything())
        assert found[:2] == [
            {"n": 1, "object": {}, "list": [{}, None], "code": "a"},
            {"n": 2, "object": None, "list": [], "code": "b"},
        ]
        assert found[2:] == [{"n": None, "object": None, "list": None, "code": None}] * 3
        with pytest.raises(FatalError, match="'_empty' is a name"):
            await backend.store({"_empty": 1})
        with pytest.raises(FatalError, match="'x' is there twice"):
            await backend.store(pa.table([[1], [2]], ["x", "x"]))
        with pytest.raises(FatalError, match=r"month_day_nano_interval.*cast it"):
            await backend.store(pa.table({"i": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}))

    run(tmp_path, scenario)
    schemas = [pq.read_schema(tmp_path / "lake" / name) for name in data_files(tmp_path)]
    assert ["n", "object", "list", "code"] in [schema.names for schema in schemas]


def test_a_full_disk_loses_nothing_and_needs_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [400]
    real = os.pwrite

    def pwrite(descriptor: int, content: bytes, offset: int) -> int:
        if not free[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, content[: free[0]], offset)
        free[0] -= written
        return written

    monkeypatch.setattr(os, "pwrite", pwrite)
    table = pa.table({"n": range(140_000), "text": [f"{n * n}" for n in range(140_000)]})

    async def scenario(backend: ParquetBackend) -> None:
        await backend.call(backend.claim, FLOW)
        await backend.call(backend.commit, chunk(1, table.slice(0, 3)))
        for _ in range(3):
            with pytest.raises(TransientError, match=r"cannot write to .*lake: No space left on device"):
                await backend.call(backend.commit, chunk(2, table))
            assert (await backend.call(backend.stored, FLOW)).seq == 0
            free[0] = 1000
        free[0] = 10**9
        assert await backend.call(backend.commit, chunk(2, table)) == 0
        await backend.call(backend.flush)
        assert (await backend.call(backend.stored, FLOW)).seq == 2
        found = await backend.query(QueryCriteria({}, None, None, None))
        assert [row["n"] for row in found] == [0, 1, 2, *range(140_000)]

    run(tmp_path, scenario)


class Failing:
    """A call that fails once when it is told to, before or behind what it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *places: tuple[Any, str]) -> None:
        self.when = ""
        for owner, name in places:
            monkeypatch.setattr(owner, name, self._wrapped(getattr(owner, name)))

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            when, self.when = self.when, ""
            result = real(*args, **kwargs) if when != "before" else None
            if when:
                raise OSError(errno.EIO, "Input/output error")
            return result

        return wrapped


@pytest.mark.parametrize(
    "places",
    [
        [(os, "link")],
        [(Path, "rename")],
        [(Path, "replace")],
        [(_parquet_log, "sync_folder")],
        [(_parquet_flow, "sync_folder")],
        [(_parquet_log, "put_new")],
    ],
    ids=lambda places: places[0][1],
)
def test_any_failing_call_of_a_publication_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: list[tuple[Any, str]]
) -> None:
    """Whether the failed call had done its work or not: retried in the way of the runtime, each row is there once."""
    failing = Failing(monkeypatch, *places)

    async def scenario(backend: ParquetBackend) -> None:
        await backend.call(backend.claim, FLOW)
        for seq in range(1, 7):
            failing.when = ["before", "behind"][seq % 2]
            with pytest.raises(TransientError):
                await backend.call(backend.commit, delivery(seq, seq))
            if (await backend.call(backend.stored, FLOW)).seq < seq:
                assert await backend.call(backend.commit, delivery(seq, seq)) == seq
        assert [row["n"] for row in await backend.query(everything())] == list(range(18))

    run(tmp_path, scenario, max_rows=1)
    assert scratch_files(tmp_path) == []


def test_a_flush_whose_outcome_is_unknown_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is there, and the call that put it failed: its owner must know it for its own."""
    failing = Failing(monkeypatch, (_parquet_log, "put_new"))

    async def scenario(backend: ParquetBackend) -> None:
        await backend.call(backend.claim, FLOW)
        for seq in (1, 2):
            await backend.call(backend.commit, delivery(seq, seq))
            failing.when = "behind"
            with pytest.raises(TransientError):
                await backend.call(backend.flush)
            await backend.call(backend.flush)
        assert (await backend.call(backend.stored, FLOW)).seq == 2
        assert [row["n"] for row in await backend.query(everything())] == list(range(6))

    run(tmp_path, scenario)


@pytest.mark.parametrize("call", ["link", "pwrite"])
def test_a_flush_of_one_flow_that_fails_at_another_loses_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Its files are closed then, on the disk or not, and what comes next is taken: it begins files of its own."""
    failing = Failing(monkeypatch, (os, call))

    async def scenario(backend: ParquetBackend) -> None:
        for flow in ("contract/a", "contract/b"):
            backend.claim(flow)
            backend.commit(delivery(1, 1, flow=flow))
        failing.when = "before"
        with pytest.raises(TransientError):
            backend.flush()
        backend.commit(delivery(2, 2, flow="contract/a"))
        backend.commit(delivery(2, 2, flow="contract/b"))
        backend.flush()
        found = await backend.query(everything())
        assert sorted(row["n"] for row in found) == sorted([*range(6)] * 2)

    run(tmp_path, scenario)


def test_each_step_is_on_the_disk_before_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut could take back must never be what a later step relies on."""
    steps: list[str] = []
    lake = tmp_path / "lake"

    def told(path: Any) -> str:
        name = str(Path(path).relative_to(lake))
        if "/tmp/" in name and ".parquet" in name:
            return "scratch"
        return re.sub(r",[0-9a-f]{16}\.", ",….", name.partition("0000")[0])

    def fsync(descriptor: int, real: Callable[[int], None] = os.fsync) -> None:
        steps.append(f"sync {told(Path(f'/proc/self/fd/{descriptor}').readlink())}")
        real(descriptor)

    def rename(path: Path, target: Path, real: Callable[[Path, Path], Path] = Path.rename) -> Path:
        steps.append(f"rename {told(path)} to {told(target)}")
        return real(path, target)

    def link(path: Path, target: Path, real: Callable[[Path, Path], None] = os.link) -> None:
        steps.append(f"link {told(target)}")
        real(path, target)

    async def scenario(backend: ParquetBackend) -> None:
        await backend.call(backend.claim, FLOW)
        await backend.call(backend.commit, delivery(1, 1))
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Path, "rename", rename)
        monkeypatch.setattr(os, "link", link)
        await backend.call(backend.flush)
        monkeypatch.undo()

    run(tmp_path, scenario)
    log = "_collectors/log/contract~source"
    assert steps == [
        "sync scratch",
        "sync _collectors/tmp/contract~source,1,.json.tmp",
        "sync _collectors/intent",
        "rename scratch to part-contract~source-",
        "sync .",
        "sync _collectors/tmp/contract~source,1,2,….json.tmp",
        f"link {log}/",
        f"sync {log}",
    ]


def test_a_failed_fsync_is_never_taken_for_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [True]
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if broken[0] and ".parquet" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    async def scenario(backend: ParquetBackend) -> None:
        await backend.call(backend.claim, FLOW)
        monkeypatch.setattr(os, "fsync", fsync)
        await backend.call(backend.commit, delivery(1, 1))
        with pytest.raises(FatalError, match="the disk failed to keep what was written"):
            await backend.call(backend.flush)
        broken[0] = False
        await backend.call(backend.flush)
        assert (await backend.call(backend.stored, FLOW)).seq == 0
        await backend.call(backend.commit, delivery(1, 1))
        await backend.call(backend.flush)
        assert [row["n"] for row in await backend.query(everything())] == [0, 1, 2]

    run(tmp_path, scenario)
    assert scratch_files(tmp_path) == []


def test_a_folder_that_is_away_is_waited_for_and_never_made_anew(tmp_path: Path) -> None:
    async def scenario(backend: ParquetBackend) -> None:
        await backend.call(backend.claim, FLOW)
        await backend.call(backend.commit, delivery(1, 1))
        (tmp_path / "lake").rename(tmp_path / "away")
        for _ in range(2):
            with pytest.raises(TransientError, match="lake: No such file"):
                await backend.call(backend.commit, delivery(2, 2))
            with pytest.raises(TransientError, match="lake: No such file"):
                await backend.call(backend.flush)
        assert not (tmp_path / "lake").exists()
        (tmp_path / "away").rename(tmp_path / "lake")
        await backend.call(backend.commit, delivery(2, 2))
        await backend.call(backend.flush)
        assert [row["n"] for row in await backend.query(everything())] == list(range(6))

    run(tmp_path, scenario)


def test_scratch_files_that_somebody_deleted_are_told(tmp_path: Path) -> None:
    table = pa.table({"n": range(140_000)})

    async def scenario(backend: ParquetBackend) -> None:
        await backend.call(backend.claim, FLOW)
        await backend.call(backend.commit, chunk(1, table))
        for path in (tmp_path / "lake" / "_collectors" / "tmp").iterdir():
            path.unlink()
        with pytest.raises(FatalError, match="chunks 1 to 1 are not stored; start again"):
            await backend.call(backend.flush)
        await backend.call(backend.claim, FLOW)
        await backend.call(backend.commit, chunk(1, table, 2))
        await backend.call(backend.flush)
        assert len(await backend.query(everything())) == 140_000

    run(tmp_path, scenario)


@pytest.mark.parametrize("sweeps", [True, False])
def test_an_owner_that_wakes_up_just_before_its_entry_stores_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweeps: bool
) -> None:
    """The first owner has named its files and stops; the second claims, which ends the first one's commit.

    Where the second one dies before it sweeps, the first cleans up after itself.
    """
    real = _parquet_log.FlowLog.put

    async def scenario(first: ParquetBackend) -> None:
        await first.call(first.claim, FLOW)
        await first.call(first.commit, delivery(1, 1))
        second = ParquetBackend(path=str(tmp_path / "lake"))
        await second.connect()

        def claimed_before(*args: Any) -> Any:
            monkeypatch.undo()
            with monkeypatch.context() as patch:
                if not sweeps:
                    patch.setattr(_parquet_log.FlowLog, "sweep", lambda *_: None)
                assert second.claim(FLOW).epoch == 2
            return real(*args)

        monkeypatch.setattr(_parquet_log.FlowLog, "put", claimed_before)
        with pytest.raises(FencedError, match="another process has taken this flow over"):
            await first.call(first.flush)
        assert data_files(tmp_path) == []
        await second.call(second.commit, delivery(1, 1, 2))
        await second.call(second.flush)
        with pytest.raises(FencedError):
            await first.call(first.commit, delivery(1, 1))
        await first.call(first.flush)
        assert [row["n"] for row in await second.query(everything())] == [0, 1, 2]
        await second.disconnect()

    run(tmp_path, scenario)
    assert len(data_files(tmp_path)) == 1


def test_two_that_claim_at_the_same_moment_write_a_file_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file for both, written by both at once, would be an entry that nobody can read."""
    written: list[str] = []
    real = os.link

    async def scenario(first: ParquetBackend) -> None:
        second = ParquetBackend(path=str(tmp_path / "lake"))
        await second.connect()

        def link(path: Path, target: Path) -> None:
            written.append(path.name)
            if len(written) == 1:
                assert second.claim(FLOW).epoch == 1
            real(path, target)

        monkeypatch.setattr(os, "link", link)
        with pytest.raises(TransientError, match="No such file"):
            await first.call(first.claim, FLOW)
        assert len(set(written)) == 2
        assert await first.call(first.claim, FLOW) == Checkpoint(2)
        await second.disconnect()

    run(tmp_path, scenario)
    assert list((tmp_path / "lake/_collectors/tmp").iterdir()) == []


def test_a_claim_that_died_leaves_no_file_behind_the_next_one(
    tmp_path: Path,
) -> None:
    async def scenario(backend: ParquetBackend) -> None:
        backend.claim("contract/other")
        left = (
            tmp_path
            / "lake/_collectors/tmp"
            / f"{_parquet_log.file_name(FLOW)},1,1,0123456789abcdef.json.tmp"
        )
        ahead = left.with_name(left.name.replace(",1,1,", ",2,2,"))
        left.touch()
        ahead.touch()
        await backend.call(backend.claim, FLOW)
        assert not left.exists()
        assert ahead.exists(), "it may be of one that claims just now"

    run(tmp_path, scenario)


def test_a_lake_in_a_folder_of_another_one_keeps_its_files(tmp_path: Path) -> None:
    """Both have files of a flow of the same name; only the outer one has an intent of an owner that died."""

    async def scenario(outer: ParquetBackend) -> None:
        inner = ParquetBackend(path=str(tmp_path / "lake/inner/most"))
        await inner.connect()
        for backend in (inner, outer):
            backend.claim(FLOW)
            backend.commit(delivery(1, 1))
        inner.flush()
        outer._flow(FLOW)._log.intend(1, [])
        left = tmp_path / "lake/year=2026" / _parquet_log.part_name(FLOW, 1, 1)
        left.parent.mkdir()
        left.touch()
        outer.claim(FLOW)
        assert not left.exists()
        assert [row["n"] for row in await inner.query(everything())] == [0, 1, 2]
        await inner.disconnect()

    run(tmp_path, scenario)


@pytest.mark.parametrize("folder", ["", "year=2026"])
def test_files_of_another_flow_whose_name_begins_alike_stay(tmp_path: Path, folder: str) -> None:
    """They end like what an owner that died has left, too; only those of the flow itself go."""
    others = [f"{FLOW}-x", f"{FLOW}-000000000001", f"{FLOW}-000000000001-1", f"{FLOW}-000000000001-1.parquet"]

    async def scenario(backend: ParquetBackend) -> None:
        for flow in others:
            backend.claim(flow)
            backend.commit(delivery(1, 1, flow=flow))
        backend.flush()
        theirs = data_files(tmp_path)
        backend.claim(FLOW)
        backend._flow(FLOW)._log.intend(1, [])
        left = tmp_path / "lake" / folder / _parquet_log.part_name(FLOW, 1, 1)
        left.parent.mkdir(exist_ok=True)
        left.touch()
        backend.claim(FLOW)
        assert data_files(tmp_path) == theirs
        assert len(await backend.query(everything())) == 3 * len(others)

    run(tmp_path, scenario)


def test_what_was_left_is_looked_for_until_every_folder_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    async def scenario(backend: ParquetBackend) -> None:
        backend.claim(FLOW)
        backend._flow(FLOW)._log.intend(1, [])
        left = tmp_path / "lake/year=2026" / _parquet_log.part_name(FLOW, 1, 1)
        left.parent.mkdir()
        left.touch()

        def scandir(path: Any) -> Any:
            if Path(path) == left.parent:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path)

        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", scandir)
            with pytest.raises(FatalError, match=r"year=2026: Permission denied"):
                backend.claim(FLOW)
        backend.claim(FLOW)
        assert not left.exists()

    run(tmp_path, scenario)


def test_an_owner_whose_scratch_files_were_swept_is_fenced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _parquet_log.FlowLog.intend

    async def scenario(first: ParquetBackend) -> None:
        await first.call(first.claim, FLOW)
        await first.call(first.commit, delivery(1, 1))
        second = ParquetBackend(path=str(tmp_path / "lake"))
        await second.connect()

        def claimed_before(*args: Any) -> None:
            monkeypatch.undo()
            second.claim(FLOW)
            real(*args)

        monkeypatch.setattr(_parquet_log.FlowLog, "intend", claimed_before)
        with pytest.raises(TransientError):
            await first.call(first.flush)
        with pytest.raises(FencedError, match="epoch 2, ours is 1"):
            await first.call(first.flush)
        assert await second.query(everything()) == []
        await second.disconnect()

    run(tmp_path, scenario)
    assert data_files(tmp_path) == []


def test_rows_for_many_folders_do_not_pile_up_in_memory(tmp_path: Path) -> None:
    table = pa.table({"part": [number % 40 for number in range(40_000)], "text": ["x" * 1000] * 40_000})

    async def scenario(backend: ParquetBackend) -> None:
        await backend.call(backend.claim, FLOW)
        for seq in range(1, 4):
            await backend.call(backend.commit, chunk(seq, table))
            waiting = sum(part.file.waiting_bytes for part in backend._flows[FLOW]._waiting.parts.values())
            assert waiting <= 16 * 2**20
        await backend.call(backend.flush)

    run(tmp_path, scenario, partition_by=["part"])
    assert len(data_files(tmp_path)) == 40


def test_flows_whose_names_are_alike_do_not_touch_each_other(tmp_path: Path) -> None:
    flows = [
        "p",
        "p/s",
        "p~s",
        "p/s/1",
        "p,1",
        "../x",
        "..",
        ".",
        "",
        "p/" + "long" * 100,
        "p/" + "long" * 100 + "!",
    ]

    async def scenario(backend: ParquetBackend) -> None:
        for flow in flows:
            await backend.call(backend.claim, flow)
            await backend.call(backend.commit, delivery(1, 1, flow=flow))
        for flow in flows:
            other = ParquetBackend(path=str(tmp_path / "lake"))
            other.open()
            assert other.claim(flow).epoch == 2
        for flow in flows:
            with pytest.raises(FencedError):
                await backend.call(backend.commit, delivery(2, 2, flow=flow))

    run(tmp_path, scenario)
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]


def test_a_damaged_log_or_file_is_named(tmp_path: Path) -> None:
    async def store(backend: ParquetBackend) -> None:
        await backend.store({"n": 1})
        await backend.store({"n": 2})

    async def read(backend: ParquetBackend) -> None:
        await backend.query(everything())

    run(tmp_path, store)
    for pattern, message in (("*.parquet", "cannot be read .*it holds 1 rows"), ("*.json", "is damaged")):
        victim = next((tmp_path / "lake").rglob(pattern))
        whole = victim.read_bytes()
        victim.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(FatalError, match=message) as caught:
            run(tmp_path, read)
        assert str(victim) in str(caught.value)
        victim.write_bytes(whole)
    run(tmp_path, read)


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("x")

    async def scenario(backend: ParquetBackend) -> None:
        pass

    with pytest.raises(FatalError, match="lake: it is a file, not a folder"):
        run(tmp_path, scenario)


def test_a_delete_that_died_half_way_can_be_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(backend: ParquetBackend) -> None:
        location = await backend.store({"n": 1})
        with monkeypatch.context() as patch:
            patch.setattr(
                Path, "unlink", lambda *_args, **_kwargs: (_ for _ in ()).throw(OSError(errno.EIO, "x"))
            )
            with pytest.raises(TransientError):
                await backend.delete(location.location_id)
        assert await backend.query(everything()) == []
        assert len(data_files(tmp_path)) == 1
        await backend.delete(location.location_id)
        assert data_files(tmp_path) == []
        with pytest.raises(KeyError):
            await backend.delete(location.location_id)

    run(tmp_path, scenario)
