from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from msgspec.structs import replace

from collectors.chunks import ChunkKey
from collectors.errors import ConfigurationError, DataError, FatalError
from collectors.models import QueryCriteria
from collectors.storage.backends.sqlite import SqliteBackend
from collectors.testing.backend_contract import BackendContract
from collectors.testing.deliveries import delivery, everything

FLOW = "contract/source"


class TestSqlite(BackendContract):
    component = "sqlite"

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"path": str(folder / "new" / "test.db"), "table": 'a "strange" table; --'}


def run(
    folder: Path, scenario: Callable[[SqliteBackend], Coroutine[Any, Any, None]], **settings: Any
) -> None:
    async def main() -> None:
        backend = SqliteBackend(path=str(folder / "test.db"), **({"table": "rows"} | settings))
        await backend.connect()
        try:
            await scenario(backend)
        finally:
            await backend.disconnect()

    asyncio.run(main())


def sql(folder: Path, statement: str) -> list[Any]:
    connection = sqlite3.connect(folder / "test.db", isolation_level=None)
    rows = connection.execute(statement).fetchall()
    connection.close()
    return rows


EVERY_TYPE = pa.table(
    {
        "i8": pa.array([-1], pa.int8()),
        "u32": pa.array([2**32 - 1], pa.uint32()),
        "u64": pa.array([2**64 - 1], pa.uint64()),
        "f16": pa.array([1.5], pa.float32()).cast(pa.float16()),
        "f32": pa.array([0.1], pa.float32()),
        "inf": [float("-inf")],
        "flag": [True],
        "text": pa.array(["00012"], pa.large_string()),
        "view": pa.array(["v"], pa.string_view()),
        "code": pa.array(["c"]).dictionary_encode(),
        "raw": pa.array([b"\0'"], pa.large_binary()),
        "fixed": pa.array([b"ab"], pa.binary(2)),
        "money": pa.array([Decimal("-1.10")], pa.decimal128(38, 2)),
        "wide": pa.array([Decimal("1" * 60)], pa.decimal256(70, 0)),
        "s": pa.array([0], pa.timestamp("s", "Europe/Berlin")),
        "ns": pa.array([1], pa.timestamp("ns", "UTC")),
        "clock": pa.array([datetime(2026, 1, 2, 3, 4, 5)], pa.timestamp("us")),
        "day": [date(2026, 1, 2)],
        "day64": pa.array([date(1, 1, 1)], pa.date64()),
        "time": [time(1, 2, 3, 4)],
        "took": pa.array([timedelta(seconds=-1, microseconds=5)], pa.duration("us")),
        "list": pa.array([[1, None]]),
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        "object": [
            {"when": datetime(2026, 1, 2, tzinfo=UTC), "raw": b"\xff", "money": Decimal("1.10"), "empty": {}}
        ],
        "nothing": pa.nulls(1),
    }
)


def test_every_arrow_type_is_kept_exactly_under_its_declared_type(tmp_path: Path) -> None:
    async def scenario(backend: SqliteBackend) -> None:
        await backend.store(EVERY_TYPE)
        (row,) = await backend.query(everything())
        assert row == {
            "i8": -1,
            "u32": 2**32 - 1,
            "u64": 2**64 - 1,
            "f16": 1.5,
            "f32": pa.scalar(0.1, pa.float32()).as_py(),
            "inf": float("-inf"),
            "flag": True,
            "text": "00012",
            "view": "v",
            "code": "c",
            "raw": b"\0'",
            "fixed": b"ab",
            "money": Decimal("-1.10"),
            "wide": Decimal("1" * 60),
            "s": datetime(1970, 1, 1, tzinfo=UTC),
            "ns": datetime(1970, 1, 1, tzinfo=UTC),
            "clock": datetime(2026, 1, 2, 3, 4, 5),
            "day": date(2026, 1, 2),
            "day64": date(1, 1, 1),
            "time": time(1, 2, 3, 4),
            "took": timedelta(seconds=-1, microseconds=5),
            "list": [1, None],
            "map": [["k", 1]],
            "object": {"when": "2026-01-02T00:00:00Z", "raw": "/w==", "money": "1.10", "empty": {}},
        }

    run(tmp_path, scenario)
    assert dict(sql(tmp_path, "select name, type from pragma_table_info('rows')")) == {
        "_collectors_row": "INTEGER",
        "i8": "INTEGER",
        "u32": "INTEGER",
        "u64": "UNSIGNED_TEXT",
        "f16": "REAL",
        "f32": "REAL",
        "inf": "REAL",
        "flag": "BOOLEAN",
        "text": "TEXT",
        "view": "TEXT",
        "code": "TEXT",
        "raw": "BLOB",
        "fixed": "BLOB",
        "money": "DECIMAL_TEXT",
        "wide": "DECIMAL_TEXT",
        "s": "TIMESTAMP",
        "ns": "TIMESTAMP",
        "clock": "DATETIME",
        "day": "DATE",
        "day64": "DATE",
        "time": "TIME",
        "took": "DURATION_TEXT",
        "list": "JSON_TEXT",
        "map": "JSON_TEXT",
        "object": "JSON_TEXT",
    }
    columns = "u64, ns, clock, day64, took, list, typeof(money), flag"
    assert sql(tmp_path, f"select {columns} from rows") == [
        (
            "18446744073709551615",
            "1970-01-01T00:00:00.000000001Z",
            "2026-01-02T03:04:05.000000",
            "0001-01-01",
            "-0.999995",
            "[1,null]",
            "text",
            1,
        )
    ]


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([1.0, float("nan"), None]), "SQLite cannot store NaN"),
        (pa.array([[1.0], [float("inf")], None]), "JSON has no NaN and no infinity"),
        (pa.array([0, 2**62, None], pa.timestamp("us", "UTC")), "outside of the years 1 to 9999"),
        (pa.array([0, -(2**40), None], pa.timestamp("s")), "outside of the years 1 to 9999"),
        (pa.array([0, 2**30, None], pa.date32()), "outside of the years 1 to 9999"),
    ],
)
def test_what_sqlite_would_lose_is_refused_row_by_row(tmp_path: Path, column: pa.Array, reason: str) -> None:
    async def scenario(backend: SqliteBackend) -> None:
        table = pa.table({"n": [0, 1, 2], "x": column, "y": [1.0, 2.0, float("nan")]})
        with pytest.raises(
            DataError, match="2 rows cannot be stored in table 'rows'; the first is row 1"
        ) as caught:
            await backend.store(table)
        assert set(caught.value.rows) == {1, 2}
        assert "column 'x'" in caught.value.rows[1]
        assert reason in caught.value.rows[1]
        assert await backend.query(everything()) == []
        await backend.store(table.slice(0, 1))
        assert [row["n"] for row in await backend.query(everything())] == [0]

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("declared", "values", "stored"),
    [
        ("INTEGER", pa.array([1.5, 2.0]), [1.5, 2]),
        ("INTEGER", pa.array([True, False]), [1, 0]),
        ("INTEGER", pa.array([2**63 - 1], pa.uint64()), [2**63 - 1]),
        ("INTEGER", pa.array([Decimal(-(2**63))], pa.decimal128(38, 0)), [-(2**63)]),
        ("REAL", pa.array([2**53]), [float(2**53)]),
        ("DECIMAL_TEXT", pa.array([2**63 - 1]), [Decimal(2**63 - 1)]),
        ("UNSIGNED_TEXT", pa.array([-1]), [-1]),
        ("TEXT", pa.array([Decimal("1.10")]), ["1.10"]),
        ("VARCHAR(10)", pa.array(["00012"]), ["00012"]),
        ("TEXT", pa.array([{"a": 1}]), ['{"a":1}']),
        ("DATETIME", pa.array([datetime(2026, 1, 2, tzinfo=UTC)]), [datetime(2026, 1, 2, tzinfo=UTC)]),
        ("", pa.array(["00012"]), ["00012"]),
        ("NUMERIC", pa.array([1.5]), [1.5]),
    ],
)
def test_types_that_fit_an_existing_column(
    tmp_path: Path, declared: str, values: pa.Array, stored: list[Any]
) -> None:
    sql(tmp_path, f"create table rows (x {declared})")

    async def scenario(backend: SqliteBackend) -> None:
        await backend.store(pa.table({"x": values}))
        assert [row["x"] for row in await backend.query(everything())] == stored

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("declared", "values", "brought"),
    [
        ("INTEGER", pa.array(["1"]), "TEXT"),
        ("INT", pa.array([datetime(2026, 1, 2, tzinfo=UTC)]), "TIMESTAMP"),
        ("REAL", pa.array([Decimal("1.10")]), "DECIMAL_TEXT"),
        ("DECIMAL(10, 2)", pa.array([Decimal("1.10")]), "DECIMAL_TEXT"),
        ("NUMERIC", pa.array(["00012"]), "TEXT"),
        ("TEXT", pa.array([1]), "INTEGER"),
        ("TEXT", pa.array([b"x"]), "BLOB"),
        ("BLOB", pa.array(["x"]), "TEXT"),
        ("BOOLEAN", pa.array([2]), "INTEGER"),
        ("TIMESTAMP", pa.array([datetime(2026, 1, 2)]), "DATETIME"),
        ("JSON_TEXT", pa.array(["1"]), "TEXT"),
        ("DATE", pa.array([datetime(2026, 1, 2)]), "DATETIME"),
    ],
)
def test_a_type_that_does_not_fit_stops_the_flow(
    tmp_path: Path, declared: str, values: pa.Array, brought: str
) -> None:
    sql(tmp_path, f"create table rows (x {declared})")

    async def scenario(backend: SqliteBackend) -> None:
        with pytest.raises(FatalError) as caught:
            await backend.store(pa.table({"x": values, "new": [1]}))
        for part in (
            "table 'rows'",
            "column 'x'",
            f"declared {declared}",
            f"bring {brought}",
            "cast 'x' in a processor",
        ):
            assert part in str(caught.value)

    run(tmp_path, scenario)
    assert sql(tmp_path, "select name from pragma_table_info('rows')") == [("x",)]


@pytest.mark.parametrize(
    ("declared", "values", "reason"),
    [
        (
            "INTEGER",
            pa.array([1, 2**63], pa.uint64()),
            "9223372036854775808 is too large for a INTEGER column",
        ),
        ("REAL", pa.array([1, 2**53 + 1]), "9007199254740993 loses digits in a REAL column"),
        (
            "INTEGER",
            pa.array([Decimal(1), Decimal(2**64)], pa.decimal128(38, 0)),
            "is not a 64-bit whole number",
        ),
        ("INTEGER not null", pa.array([1, None], pa.int64()), "NOT NULL constraint failed: rows.x"),
        ("INTEGER unique", pa.array([1, 1]), "UNIQUE constraint failed: rows.x"),
        ("TEXT check (x < 'b')", pa.array(["a", "c"]), "CHECK constraint failed"),
    ],
)
def test_values_that_an_existing_column_cannot_take_are_refused_row_by_row(
    tmp_path: Path, declared: str, values: pa.Array, reason: str
) -> None:
    sql(tmp_path, f"create table rows (x {declared})")

    async def scenario(backend: SqliteBackend) -> None:
        await backend.call(backend.claim, FLOW)
        what = replace(delivery(1, 1), table=pa.table({"x": values}))
        with pytest.raises(DataError) as caught:
            await backend.call(backend.commit, what)
        assert set(caught.value.rows) == {1}
        assert reason in caught.value.rows[1]
        assert (await backend.call(backend.stored, FLOW)).seq == 0
        assert await backend.call(backend.commit, replace(what, table=what.table.slice(0, 1))) == 1
        assert len(await backend.query(everything())) == 1

    run(tmp_path, scenario)


def test_names_that_sqlite_cannot_tell_apart_or_have_are_refused(tmp_path: Path) -> None:
    async def scenario(backend: SqliteBackend) -> None:
        with pytest.raises(FatalError, match="the column 'id' is there twice"):
            await backend.store(pa.table([[1], [2]], ["id", "id"]))
        with pytest.raises(
            DataError, match="the column 'ID': 'id' differs only in upper and lower case"
        ) as caught:
            await backend.store(pa.table([[1, 2], [None, 2]], ["id", "ID"]))
        assert set(caught.value.rows) == {1}, "the other row has no value there"
        await backend.store(pa.table({"id": [1], "é": [1], "É": [2], "": [3], "rowid": [4]}))
        with pytest.raises(DataError, match="the column 'Id': 'id' differs only"):
            await backend.store({"Id": 1})
        for name in ("a\0b", "_collectors_row", "_Collectors_x"):
            with pytest.raises(DataError, match="cannot have this name, or it is ours; rename it"):
                await backend.store({name: 1})
        with pytest.raises(FatalError, match="no place for Arrow's month_day_nano_interval"):
            await backend.store(pa.table({"x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}))
        assert await backend.query(everything()) == [{"id": 1, "é": 1, "É": 2, "": 3, "rowid": 4}]

    run(tmp_path, scenario)


@pytest.mark.parametrize("table", ["", "a\0b", "_collectors_x", "_COLLECTORS", "sqlite_x"])
def test_tables_that_are_taken_are_refused(tmp_path: Path, table: str) -> None:
    with pytest.raises(ValueError, match="expected the name of a table"):
        SqliteBackend(path=str(tmp_path / "test.db"), table=table)


def test_each_source_has_its_own_table_by_default(tmp_path: Path) -> None:
    async def scenario(backend: SqliteBackend) -> None:
        for source in ("one", "two"):
            await backend.call(backend.claim, f"p/{source}")
            await backend.call(backend.commit, delivery(1, 1, flow=f"p/{source}"))
        with pytest.raises(ConfigurationError, match="a table for each of one, two"):
            await backend.query(everything())
        with pytest.raises(FatalError, match="names that begin with _collectors or sqlite_ are taken"):
            await backend.call(backend.write, pa.table({"n": [1]}), ChunkKey("p/_collectors_x", 1, 1))

    run(tmp_path, scenario, table="{source}")
    assert sql(tmp_path, "select (select count(*) from one), (select count(*) from two)") == [(3, 3)]


def test_a_table_of_somebody_else_is_used_as_it_is(tmp_path: Path) -> None:
    sql(tmp_path, "create table rows (n integer not null default 5, note text collate nocase)")
    sql(tmp_path, "insert into rows values (1, 'theirs')")

    async def scenario(backend: SqliteBackend) -> None:
        location = await backend.store([{"n": 2, "note": "Ours"}, {"n": 3, "note": "ours"}])
        assert [
            row["n"] for row in await backend.query(QueryCriteria({"note": "ours"}, None, None, None))
        ] == [3]
        await backend.store({"n": 4})
        await backend.delete(location.location_id)
        assert sorted(row["n"] for row in await backend.query(everything())) == [1, 4]

    run(tmp_path, scenario)
    assert sql(tmp_path, "select n, note from rows order by n") == [(1, "theirs"), (4, None)]


def test_deleting_is_exact_after_somebody_else_changed_the_table(tmp_path: Path) -> None:
    async def store(backend: SqliteBackend) -> None:
        for number in (1, 2, 3):
            await backend.call(
                backend.write, pa.table({"n": [number] * 2}), ChunkKey(f"store-{number}", 0, 1)
            )

    async def change(backend: SqliteBackend) -> None:
        await backend.delete("store-2:1")
        await backend.store({"n": 4})
        await backend.delete("store-3:1")
        assert [row["n"] for row in await backend.query(everything())] == [1, 9, 4]

    run(tmp_path, store)
    sql(tmp_path, "delete from rows where n = 1 and _collectors_row = 1")
    sql(tmp_path, "delete from rows where n = 3")
    sql(tmp_path, "vacuum")
    sql(tmp_path, "insert into rows (_collectors_row, n) values (100, 9)")
    run(tmp_path, change)


def test_times_of_all_resolutions_sort_together(tmp_path: Path) -> None:
    def times(numbers: list[int], values: list[int], unit: str) -> pa.Table:
        return pa.table({"n": numbers, "t": pa.array(values, pa.timestamp(unit, "UTC"))})

    async def scenario(backend: SqliteBackend) -> None:
        await backend.store(times([0, 3], [1000, 3000], "us"))
        await backend.store(times([2, 1], [2_000_000, 1_000_001], "ns"))
        await backend.store(times([4], [1], "s"))
        found = await backend.query(QueryCriteria({}, "t", None, None))
        assert [row["n"] for row in found] == [0, 1, 2, 3, 4]
        same = QueryCriteria({"t": "1970-01-01T00:00:00.001Z"}, None, None, None)
        assert [row["n"] for row in await backend.query(same)] == [0, 1]

    run(tmp_path, scenario)


def test_wide_rows_and_rows_without_columns(tmp_path: Path) -> None:
    async def scenario(backend: SqliteBackend) -> None:
        await backend.store(pa.table({"nothing": pa.nulls(2)}))
        assert await backend.query(everything()) == [{}, {}]
        await backend.store({"n": 1})
        assert await backend.query(everything()) == [{"n": None}, {"n": None}, {"n": 1}]

    async def wide(backend: SqliteBackend) -> None:
        await backend.store({f"c{number}": number for number in range(1500)})
        assert len((await backend.query(everything()))[0]) == 1500
        with pytest.raises(FatalError, match="too many columns"):
            await backend.store({f"d{number}": number for number in range(1000)})

    run(tmp_path, scenario)
    run(tmp_path, wide, table="wide")


def test_the_preview_says_what_would_change(tmp_path: Path) -> None:
    backend = SqliteBackend(path=str(tmp_path / "test.db"), table="rows")
    rows = pa.table({"id": [1], "temperature_f": [1.5], "status": ["ok"]})
    assert backend.preview(rows, FLOW) == [
        f"+ file {tmp_path / 'test.db'}",
        "+ table rows",
        "+ id INTEGER",
        "+ temperature_f REAL",
        "+ status TEXT",
    ]
    sql(tmp_path, "create table rows (id integer, status integer)")
    assert backend.preview(rows, FLOW) == [
        "= id INTEGER",
        "+ temperature_f REAL (new)",
        "! status: table has INTEGER, rows bring TEXT",
    ]
    assert sql(tmp_path, "select name from sqlite_schema") == [("rows",)]


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "test.db").write_text("id,name\n1,x\n")

    async def scenario(backend: SqliteBackend) -> None:
        pass

    with pytest.raises(ConfigurationError, match=r"is not a SQLite database \(it begins with b'id,name"):
        run(tmp_path, scenario)
    assert (tmp_path / "test.db").read_text() == "id,name\n1,x\n"


def test_queries_of_somebody_elses_values_never_fail(tmp_path: Path) -> None:
    sql(tmp_path, "create table rows (t timestamp, j json_text, d decimal_text, b boolean, i integer, u)")
    sql(tmp_path, "insert into rows values ('2026-01-02 03:04', 'no json', 'x', 7, 'text', 'text')")
    sql(tmp_path, "insert into rows values (1767322800, '[1]', '1.5', 1, 5, 5)")

    async def scenario(backend: SqliteBackend) -> None:
        found = await backend.query(QueryCriteria({}, "d", None, None))
        assert [row["d"] for row in found] == [Decimal("1.5"), "x"]
        assert found[1] == {
            "t": datetime(2026, 1, 2, 3, 4),
            "j": "no json",
            "d": "x",
            "b": 7,
            "i": "text",
            "u": "text",
        }
        for column, value, count in (
            ("t", {">": "2026-01-01T00:00:00Z"}, 1),
            ("d", {">": 1}, 1),
            ("j", {"=": [1]}, 1),
            ("b", True, 1),
            ("i", {">": "5"}, 1),
            ("u", {">": 1}, 1),
            ("u", {"!=": 1}, 2),
            ("u", {"<": "zzz"}, 1),
        ):
            assert (
                len(await backend.query(QueryCriteria({column: value}, f"-{column}", None, None))) == count
            ), column

    run(tmp_path, scenario)
