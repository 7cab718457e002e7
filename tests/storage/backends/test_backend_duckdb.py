from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from msgspec.structs import replace

from collectors.errors import ConfigurationError, DataError, FatalError, TransientError
from collectors.models import QueryCriteria
from collectors.storage.backends import _duckdb_file
from collectors.storage.backends.duckdb import DuckdbBackend
from collectors.testing.backend_contract import BackendContract
from collectors.testing.deliveries import delivery, everything

FLOW = "contract/source"


class TestDuckdb(BackendContract):
    component = "duckdb"

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"path": str(folder / "new" / "test.duckdb"), "table": 'a "strange" table; --'}

    @pytest.mark.slow
    def test_dying_at_any_moment_loses_and_doubles_nothing(self, tmp_path: Path) -> None:
        super().test_dying_at_any_moment_loses_and_doubles_nothing(tmp_path)


def run(
    folder: Path, scenario: Callable[[DuckdbBackend], Coroutine[Any, Any, None]], **settings: Any
) -> None:
    async def main() -> None:
        backend = DuckdbBackend(path=str(folder / "test.duckdb"), **({"table": "rows"} | settings))
        await backend.connect()
        try:
            await scenario(backend)
        finally:
            await backend.disconnect()

    asyncio.run(main())


def sql(folder: Path, *statements: str) -> list[Any]:
    with duckdb.connect(str(folder / "test.duckdb")) as connection:
        for statement in statements:
            rows = connection.execute(statement).fetchall()
    return rows


async def rows_of(backend: DuckdbBackend) -> list[Any]:
    return await backend.query(everything())


EVERY_TYPE: dict[str, tuple[pa.Array, str, Any]] = {
    "i8": (pa.array([-1], pa.int8()), "TINYINT", -1),
    "u64": (pa.array([2**64 - 1], pa.uint64()), "UBIGINT", 2**64 - 1),
    "f16": (pa.array([1.5], pa.float32()).cast(pa.float16()), "FLOAT", 1.5),
    "nan": (pa.array([float("-inf")]), "DOUBLE", float("-inf")),
    "flag": (pa.array([True]), "BOOLEAN", True),
    "text": (pa.array(["00012"], pa.large_string()), "VARCHAR", "00012"),
    "view": (pa.array(["v"], pa.string_view()), "VARCHAR", "v"),
    "code": (pa.array(["c"]).dictionary_encode(), "VARCHAR", "c"),
    "raw": (pa.array([b"\0'"], pa.large_binary()), "BLOB", b"\0'"),
    "fixed": (pa.array([b"ab"], pa.binary(2)), "BLOB", b"ab"),
    "money": (pa.array([Decimal("-1.10")], pa.decimal128(38, 2)), "DECIMAL(38,2)", Decimal("-1.10")),
    "wide": (pa.array([Decimal(7)], pa.decimal256(30, 0)), "DECIMAL(30,0)", Decimal(7)),
    "s": (
        pa.array([0], pa.timestamp("s", "Europe/Berlin")),
        "TIMESTAMP WITH TIME ZONE",
        datetime(1970, 1, 1, tzinfo=UTC),
    ),
    "ns": (pa.array([1], pa.timestamp("ns", "UTC")), "TIMESTAMPTZ_NS", datetime(1970, 1, 1, tzinfo=UTC)),
    "clock": (pa.array([datetime(2026, 1, 2, 3)], pa.timestamp("ms")), "TIMESTAMP", datetime(2026, 1, 2, 3)),
    "day": (pa.array([date(2026, 1, 2)]), "DATE", date(2026, 1, 2)),
    "day64": (pa.array([date(1, 1, 1)], pa.date64()), "DATE", date(1, 1, 1)),
    "time": (pa.array([time(1, 2, 3, 4)]), "TIME", time(1, 2, 3, 4)),
    "took": (
        pa.array([timedelta(seconds=-1, microseconds=5)], pa.duration("us")),
        "INTERVAL",
        timedelta(seconds=-1, microseconds=5),
    ),
    "list": (pa.array([[1, None]]), "BIGINT[]", [1, None]),
    "map": (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), "MAP(VARCHAR, BIGINT)", [("k", 1)]),
    "object": (
        pa.array([{"when": datetime(2026, 1, 2, tzinfo=UTC), "empty": {}, "a b": [{"x": 1}]}]),
        'STRUCT("when" TIMESTAMP WITH TIME ZONE, "empty" STRUCT, "a b" STRUCT(x BIGINT)[])',
        {"when": datetime(2026, 1, 2, tzinfo=UTC), "empty": {}, "a b": [{"x": 1}]},
    ),
}


def test_every_arrow_type_is_kept_under_its_own_type(tmp_path: Path) -> None:
    async def scenario(backend: DuckdbBackend) -> None:
        await backend.store(pa.table({name: values for name, (values, _, _) in EVERY_TYPE.items()}))
        (row,) = await rows_of(backend)
        assert row == {name: value for name, (_, _, value) in EVERY_TYPE.items()}

    run(tmp_path, scenario)
    declared = {name: kind.replace('"', "") for name, kind, *_ in sql(tmp_path, "describe rows")}
    del declared["_collectors_row"]
    assert declared == {name: kind.replace('"', "") for name, (_, kind, _) in EVERY_TYPE.items()}
    assert sql(tmp_path, "select epoch_ns(ns) from rows") == [(1,)]


@pytest.mark.parametrize(
    ("first", "second", "declared"),
    [
        (pa.array([1], pa.int8()), pa.array([2**40]), "BIGINT"),
        (pa.array([1]), pa.array([1.5]), "DOUBLE"),
        (pa.array([2**53]), pa.array([1.5]), "DOUBLE"),
        (pa.array([0.5], pa.float32()), pa.array([0.1]), "DOUBLE"),
        (pa.array([1.5]), pa.array([2]), "DOUBLE"),
        (pa.array([Decimal("1.1")]), pa.array([Decimal("123.45")]), "DECIMAL(5,2)"),
        (pa.array([7]), pa.array([Decimal("0.5")]), "DECIMAL(19,1)"),
        (pa.array([1], pa.timestamp("us")), pa.array([1000], pa.timestamp("ns")), "TIMESTAMP_NS"),
        (pa.array([{"a": 1}]), pa.array([{"b": "x"}]), "STRUCT(a BIGINT, b VARCHAR)"),
        (pa.array([{}], pa.struct([])), pa.array([{"b": "x"}]), "STRUCT(b VARCHAR)"),
        (pa.array([{"x": {}}]), pa.array([{"x": {"b": [1]}}]), "STRUCT(x STRUCT(b BIGINT[]))"),
        (pa.array([[{"a": 1}], None]), pa.array([[{"a": 0.5, "b": None}]]), 'STRUCT(a DOUBLE, b "NULL")[]'),
        (pa.array([[]], pa.list_(pa.null())), pa.array([["x"]]), "VARCHAR[]"),
        (
            pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            pa.array([[("k", 0.5)]], pa.map_(pa.string(), pa.float64())),
            "MAP(VARCHAR, DOUBLE)",
        ),
    ],
)
def test_a_column_that_is_too_narrow_is_widened(
    tmp_path: Path, first: pa.Array, second: pa.Array, declared: str
) -> None:
    async def scenario(backend: DuckdbBackend) -> None:
        await backend.store(pa.table({"x": first}))
        await backend.store(pa.table({"x": second}))
        found = [row["x"] for row in await rows_of(backend)]
        assert_alike(found, [*first.to_pylist(), *second.to_pylist()])

    run(tmp_path, scenario)
    kinds = {name: kind for name, kind, *_ in sql(tmp_path, "describe rows")}
    assert kinds["x"] == declared


def assert_alike(found: Any, expected: Any) -> None:
    """Equal, but for fields that the other object did not have."""
    if isinstance(expected, dict):
        assert set(expected) <= set(found)
        for name in found:
            assert_alike(found[name], expected.get(name))
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (pa.array([2**53 + 1]), pa.array([1.5]), "9007199254740993, would not keep its digits"),
        (pa.array([1]), pa.array(["x"]), "declared BIGINT and the rows bring VARCHAR"),
        (pa.array(["x"]), pa.array([1]), "declared VARCHAR and the rows bring BIGINT"),
        (pa.array(["x"]), pa.array([b"x"]), "declared VARCHAR and the rows bring BLOB"),
        (pa.array([Decimal("1.1")]), pa.array([1.5]), r"declared DECIMAL\(2,1\) and the rows bring DOUBLE"),
        (pa.array([True]), pa.array([1]), "declared BOOLEAN and the rows bring BIGINT"),
        (
            pa.array([datetime(2026, 1, 2)]),
            pa.array([datetime(2026, 1, 2, tzinfo=UTC)]),
            "declared TIMESTAMP and the rows bring TIMESTAMP WITH TIME ZONE",
        ),
        (pa.array([{"a": 1}]), pa.array([{"a": "x"}]), "the rows bring STRUCT"),
        (pa.array([1]), pa.array([[1]]), r"the rows bring BIGINT\[\]"),
    ],
)
def test_a_type_that_does_not_fit_stops_the_flow(
    tmp_path: Path, first: pa.Array, second: pa.Array, message: str
) -> None:
    async def scenario(backend: DuckdbBackend) -> None:
        await backend.store(pa.table({"x": first}))
        with pytest.raises(FatalError, match=message) as caught:
            await backend.store(pa.table({"new": [1], "x": second}))
        assert "table 'rows', column 'x'" in str(caught.value)
        assert "cast 'x' in a processor" in str(caught.value)
        assert await rows_of(backend) == [{"x": value} for value in first.to_pylist()]

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("declared", "values", "reason"),
    [
        ("DOUBLE", pa.array([1, 2**53 + 1, 2]), "9007199254740993 does not fit into DOUBLE"),
        ("BIGINT", pa.array([1, 2**63, 2], pa.uint64()), "9223372036854775808 does not fit into BIGINT"),
        ("DECIMAL(38,0)", pa.array([1, None, 3]), None),
    ],
)
def test_values_that_do_not_fit_are_refused_row_by_row(
    tmp_path: Path, declared: str, values: pa.Array, reason: str | None
) -> None:
    sql(tmp_path, f"create table rows (x {declared})")

    async def scenario(backend: DuckdbBackend) -> None:
        if reason is None:
            await backend.store(pa.table({"x": values}))
            assert len(await rows_of(backend)) == 3
            return
        with pytest.raises(DataError, match="the first is row 1: column 'x'") as caught:
            await backend.store(pa.table({"x": values}))
        assert set(caught.value.rows) == {1}
        assert reason in caught.value.rows[1]
        assert await rows_of(backend) == []

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ("BIGINT not null", pa.array([1, None])),
        ("BIGINT unique", pa.array([1, 1])),
        ("BIGINT check (x < 5)", pa.array([1, 7])),
        ("ENUM ('a', 'b')", pa.array(["a", "c"])),
        ("UUID", pa.array(["8f3a1c1e-30c1-4b2c-9f4e-000000000001", "x"])),
    ],
)
def test_rows_that_a_constraint_refuses_can_be_found_by_rehearsing(
    tmp_path: Path, declared: str, values: pa.Array
) -> None:
    sql(tmp_path, f"create table rows (x {declared})")

    async def scenario(backend: DuckdbBackend) -> None:
        await backend.call(backend.claim, FLOW)
        whole = replace(delivery(1, 1), table=pa.table({"x": values}))
        first = replace(whole, table=whole.table.slice(0, 1))
        for attempt in (backend.rehearse, backend.commit):
            with pytest.raises(DataError, match="table 'rows' refuses rows"):
                await backend.call(attempt, whole)
        await backend.call(backend.rehearse, first)
        assert (await backend.call(backend.stored, FLOW)).seq == 0
        assert await rows_of(backend) == []
        await backend.call(backend.commit, first)
        assert len(await rows_of(backend)) == 1

    run(tmp_path, scenario)


def test_names_that_duckdb_cannot_tell_apart_or_have_are_refused(tmp_path: Path) -> None:
    async def scenario(backend: DuckdbBackend) -> None:
        with pytest.raises(FatalError, match="the column 'id' is there twice"):
            await backend.store(pa.table([[1], [2]], ["id", "id"]))
        with pytest.raises(
            DataError, match="the column 'ID': 'id' differs only in upper and lower case"
        ) as caught:
            await backend.store(pa.table([[1, 2], [None, 2]], ["id", "ID"]))
        assert set(caught.value.rows) == {1}, "the other row has no value there"
        await backend.store(pa.table({"id": [1], "é": [1], "É": [2], "rowid": [4]}))
        with pytest.raises(DataError, match="the column 'Id': 'id' differs only"):
            await backend.store({"Id": 1})
        for name in ("", "a\0b", "_collectors_row", "_Collectors_x"):
            with pytest.raises(DataError, match="cannot have this name, or it is ours; rename it"):
                await backend.store({name: 1})
        for fields in ({"": 1}, {"a": 1, "A": 2}):
            with pytest.raises(FatalError, match="column 'o': DuckDB cannot have the field"):
                await backend.store(pa.table({"o": pa.array([fields])}))
        with pytest.raises(FatalError, match=r"no place for Arrow's decimal256\(70, 0\)"):
            await backend.store(pa.table({"x": pa.array([Decimal(1)], pa.decimal256(70, 0))}))
        found = await backend.query(QueryCriteria({}, "-id", None, None))
        assert found == [{"id": 1, "é": 1, "É": 2, "rowid": 4}]

    run(tmp_path, scenario)


@pytest.mark.parametrize("table", ["", "a\0b", "_collectors_x", "_COLLECTORS"])
def test_tables_that_are_taken_are_refused(tmp_path: Path, table: str) -> None:
    with pytest.raises(ValueError, match="expected the name of a table"):
        DuckdbBackend(path=str(tmp_path / "test.duckdb"), table=table)


def test_each_source_has_its_own_table_by_default(tmp_path: Path) -> None:
    async def scenario(backend: DuckdbBackend) -> None:
        for source in ("one", "two"):
            await backend.call(backend.claim, f"p/{source}")
            await backend.call(backend.commit, delivery(1, 1, flow=f"p/{source}"))
        with pytest.raises(ConfigurationError, match="a table for each of one, two"):
            await rows_of(backend)

    run(tmp_path, scenario, table="{source}")
    assert sql(tmp_path, "select (select count(*) from one), (select count(*) from two)") == [(3, 3)]


def test_a_table_of_somebody_else_gets_a_column_and_keeps_the_rest(tmp_path: Path) -> None:
    sql(
        tmp_path,
        "create table Rows (n integer not null default 5, note varchar, h hugeint)",
        "insert into rows values (1, 'theirs', 7)",
    )

    async def scenario(backend: DuckdbBackend) -> None:
        location = await backend.store([{"n": 2, "note": "Ours"}, {"n": 3, "note": "ours"}])
        await backend.store({"n": 4})
        await backend.delete(location.location_id)
        assert sorted(row["n"] for row in await rows_of(backend)) == [1, 4]
        with pytest.raises(FatalError, match="it is declared HUGEINT and the rows bring BIGINT"):
            await backend.store({"h": 1})

    run(tmp_path, scenario)
    assert sql(tmp_path, "select n, note from rows order by n") == [(1, "theirs"), (4, None)]


def test_a_commit_is_told_as_durable_behind_a_checkpoint(tmp_path: Path, monkeypatch: Any) -> None:
    async def scenario(backend: DuckdbBackend) -> None:
        await backend.call(backend.claim, FLOW)
        assert await backend.call(backend.commit, delivery(1, 1)) == 1  # it made the table
        assert await backend.call(backend.commit, delivery(2, 2)) == 1
        assert await backend.call(backend.commit, delivery(3, 3)) == 1
        await backend.call(backend.flush)
        assert await backend.call(backend.commit, delivery(4, 4)) == 3
        assert (await backend.call(backend.stored, FLOW)).seq == 4  # it makes a checkpoint
        assert await backend.call(backend.commit, delivery(5, 5)) == 4
        monkeypatch.setattr("collectors.storage.backends.duckdb.CHECKPOINT_BYTES", 1)
        assert await backend.call(backend.commit, delivery(6, 6)) == 6
        assert backend.flush_interval() == 30

    run(tmp_path, scenario)


_CHILD = """
import asyncio, os, sys
from collectors.storage.backends.duckdb import DuckdbBackend
from collectors.testing.deliveries import delivery

async def main():
    backend = DuckdbBackend(path=sys.argv[1], table="rows")
    await backend.connect()
    await backend.call(backend.claim, "contract/source")
    for seq in (1, 2, 3):
        await backend.call(backend.commit, delivery(seq, seq))
    print("ready", flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


def die_with_a_log(folder: Path, meanwhile: Callable[[], None] = lambda: None) -> Path:
    """Let a process commit three chunks, the first behind a checkpoint, and kill it; return its log."""
    command = [sys.executable, "-c", _CHILD, str(folder / "test.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        meanwhile()
    log = folder / "test.duckdb.wal"
    assert log.stat().st_size
    return log


def test_while_one_process_writes_others_are_told_which(tmp_path: Path) -> None:
    async def nothing(backend: DuckdbBackend) -> None: ...

    def meanwhile() -> None:
        with pytest.raises(
            TransientError, match=r"another process has it open, .*only one at a time .*PID \d+"
        ):
            run(tmp_path, lambda backend: backend.call(backend.claim, FLOW))

    die_with_a_log(tmp_path, meanwhile)
    run(tmp_path, nothing)


def test_a_log_that_is_fine_is_used(tmp_path: Path) -> None:
    die_with_a_log(tmp_path)

    async def scenario(backend: DuckdbBackend) -> None:
        assert [row["n"] for row in await rows_of(backend)] == list(range(9))
        assert (await backend.call(backend.claim, FLOW)).seq == 3
        assert (await backend.call(backend.ledger, "run-1"))[FLOW].stored == 9

    run(tmp_path, scenario)
    assert not list(tmp_path.glob("*broken*"))


def test_a_log_that_cannot_be_replayed_is_moved_aside_and_told(tmp_path: Path, caplog: Any) -> None:
    log = die_with_a_log(tmp_path)
    data = bytearray(log.read_bytes())
    data[200] ^= 1  # inside of an entry: where its length stands, DuckDB would take it for the end of the log
    log.write_bytes(data)

    async def asking(backend: DuckdbBackend) -> None:
        with pytest.raises(FatalError, match="cannot be replayed .* moves the log aside at its next start"):
            await rows_of(backend)

    async def writing(backend: DuckdbBackend) -> None:
        checkpoint = await backend.call(backend.claim, FLOW)
        assert (checkpoint.epoch, checkpoint.seq) == (2, 1)
        assert [row["n"] for row in await rows_of(backend)] == [0, 1, 2]
        letters = await backend.call(lambda: list(backend.dead_letters("contract")))
        assert [letter.seq for letter in letters] == [1]
        await backend.call(backend.commit, delivery(2, 3, epoch=2))
        assert [row["n"] for row in await rows_of(backend)] == list(range(9))

    run(tmp_path, asking)
    (tmp_path / "test.duckdb.broken-wal.1").write_text("of another time")
    with caplog.at_level(logging.WARNING):
        run(tmp_path, writing)
    assert (tmp_path / "test.duckdb.broken-wal.2").read_bytes() == data
    (message,) = caplog.messages
    assert "test.duckdb.broken-wal.2" in message
    assert "read from its sources again" in message


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    async def nothing(backend: DuckdbBackend) -> None: ...

    (tmp_path / "test.duckdb").write_text("id,name\n1,x\n")
    with pytest.raises(ConfigurationError, match="is not a DuckDB database; choose another path"):
        run(tmp_path, nothing)
    assert (tmp_path / "test.duckdb").read_text() == "id,name\n1,x\n"
    (tmp_path / "test.duckdb").unlink()
    (tmp_path / "test.duckdb").mkdir()
    with pytest.raises(ConfigurationError, match="is not a DuckDB database"):
        run(tmp_path, nothing)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    async def store(backend: DuckdbBackend) -> None:
        await backend.store(pa.table({"n": pa.arange(0, 300_000)}))

    async def ask(backend: DuckdbBackend) -> None:
        await rows_of(backend)

    run(tmp_path, store)
    data = bytearray((tmp_path / "test.duckdb").read_bytes())
    data[20_000:-1] = bytes(len(data) - 20_001)
    (tmp_path / "test.duckdb").write_bytes(data)
    with pytest.raises(FatalError, match=r"test.duckdb is damaged .*restore it from a copy"):
        run(tmp_path, ask)
    (tmp_path / "test.duckdb.wal").write_bytes(b"some log")
    with pytest.raises(FatalError, match=r"test.duckdb is damaged"):
        run(tmp_path, store)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.duckdb", "test.duckdb.wal"]


def test_a_file_that_was_replaced_is_left_alone(tmp_path: Path) -> None:
    async def scenario(backend: DuckdbBackend) -> None:
        await backend.store({"n": 1})
        (tmp_path / "test.duckdb").rename(tmp_path / "moved.duckdb")
        with pytest.raises(FatalError, match="was moved, deleted or replaced while it was open"):
            await backend.store({"n": 2})
        (tmp_path / "moved.duckdb").rename(tmp_path / "test.duckdb")
        await backend.store({"n": 3})
        assert [row["n"] for row in await rows_of(backend)] == [1, 3]

    run(tmp_path, scenario)


def test_connections_reach_nothing_but_their_file(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    file = _duckdb_file.shared(str(tmp_path / "x.duckdb"), memory=2**26, threads=1, prepare=lambda _: None)
    secret = tmp_path / "secret.csv"
    with file.transaction() as connection:
        connection.execute("create table t (n int)")
    for statement in (
        f"select * from '{secret}'",
        f"select * from read_csv('{secret}')",
        f"copy t to '{tmp_path / 'out.csv'}'",
        f"attach '{tmp_path / 'other.duckdb'}'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set memory_limit = '10GB'",
        "select * from tmp_path",
    ):
        with pytest.raises(FatalError), file.transaction() as connection:
            connection.execute(statement)
    assert {path.name for path in tmp_path.iterdir()} <= {"secret.csv", "x.duckdb", "x.duckdb.wal"}


def test_two_backends_of_one_process_share_the_file(tmp_path: Path) -> None:
    async def scenario(first: DuckdbBackend) -> None:
        await first.store({"n": 1})
        second = DuckdbBackend(path=str(tmp_path / "." / "test.duckdb"), table="others")
        await second.connect()
        await second.call(second.claim, FLOW)
        await second.call(second.commit, delivery(1, 1))
        await first.store({"n": 2})
        await second.disconnect()
        assert [row["n"] for row in await rows_of(first)] == [1, 2]

    run(tmp_path, scenario)
    assert sql(tmp_path, "select count(*) from others") == [(3,)]


def test_the_preview_says_what_would_change(tmp_path: Path) -> None:
    backend = DuckdbBackend(path=str(tmp_path / "test.duckdb"), table="rows")
    rows = pa.table({"id": [1], "temperature_f": [1.5], "status": ["ok"]})
    assert backend.preview(rows, FLOW) == [
        f"+ file {tmp_path / 'test.duckdb'}",
        "+ table rows",
        "+ id BIGINT",
        "+ temperature_f DOUBLE",
        "+ status VARCHAR",
    ]
    sql(tmp_path, "create table rows (id integer, status integer)")
    assert backend.preview(rows, FLOW) == [
        "~ id: table has INTEGER, becomes BIGINT",
        "+ temperature_f DOUBLE (new)",
        "! status: table has INTEGER, rows bring VARCHAR",
    ]
    assert sql(tmp_path, "select table_name from duckdb_tables()") == [("rows",)]


def test_wide_rows_and_rows_without_columns(tmp_path: Path) -> None:
    async def scenario(backend: DuckdbBackend) -> None:
        await backend.store(pa.table({"nothing": pa.nulls(2)}))
        assert await rows_of(backend) == [{}, {}]
        await backend.store({"n": 1})
        assert await rows_of(backend) == [{"n": None}, {"n": None}, {"n": 1}]
        await backend.store({f"c{number}": number for number in range(500)})
        assert len((await rows_of(backend))[0]) == 501

    run(tmp_path, scenario)


def test_results_beyond_one_batch_keep_their_order(tmp_path: Path) -> None:
    async def scenario(backend: DuckdbBackend) -> None:
        numbers = pa.arange(0, 50_000)
        await backend.store(
            pa.table({"n": numbers, "o": pa.array([{"even": n % 2 == 0} for n in range(50_000)])})
        )
        await backend.store(pa.table({"n": pa.arange(50_000, 60_000)}))
        assert [row["n"] for row in await rows_of(backend)] == list(range(60_000))
        even = await backend.query(QueryCriteria({"o": {"=": {"even": True}}}, None, 3, 20_000))
        assert [row["n"] for row in even] == [40_000, 40_002, 40_004]

    run(tmp_path, scenario)
