"""What is particular to the `postgres` backend, beside the contract."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable, Coroutine
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from msgspec.structs import replace

from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError, DataError, FatalError, TransientError
from collectors.models import QueryCriteria
from collectors.storage.backends.postgres import PostgresBackend
from collectors.testing.deliveries import delivery, everything
from collectors.testing.postgres_server import PostgresServer
from collectors.testing.proxy import Proxy

FLOW = "contract/source"


class Place:
    """A schema of its own on the server of the session."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.schema = f"own-{uuid.uuid4().hex[:12]}"

    def backend(self, **settings: Any) -> PostgresBackend:
        return PostgresBackend(
            **({"dsn": self.server.dsn, "in_schema": self.schema, "table": "rows"} | settings)
        )

    def run(self, scenario: Callable[[PostgresBackend], Coroutine[Any, Any, None]], **settings: Any) -> None:
        async def main() -> None:
            backend = self.backend(**settings)
            await backend.connect()
            try:
                await scenario(backend)
            finally:
                await backend.disconnect()

        asyncio.run(main())

    def sql(self, statement: str) -> list[Any]:
        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            connection.execute(f'create schema if not exists "{self.schema}"')
            connection.execute(f'set search_path to "{self.schema}"')
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def place(postgres_server: PostgresServer) -> Place:
    return Place(postgres_server)


EVERY_TYPE: dict[str, tuple[pa.Array, str, Any]] = {
    "i8": (pa.array([-1], pa.int8()), "bigint", -1),
    "u32": (pa.array([2**32 - 1], pa.uint32()), "bigint", 2**32 - 1),
    "u64": (pa.array([2**64 - 1], pa.uint64()), "numeric", 2**64 - 1),
    "f16": (pa.array([1.5], pa.float32()).cast(pa.float16()), "double precision", 1.5),
    "f64": (pa.array([0.1 + 0.2]), "double precision", 0.1 + 0.2),
    "inf": (pa.array([float("-inf")]), "double precision", float("-inf")),
    "flag": (pa.array([True]), "boolean", True),
    "text": (pa.array(["00012"], pa.large_string()), "text", "00012"),
    "view": (pa.array(["v"], pa.string_view()), "text", "v"),
    "code": (pa.array(["c"]).dictionary_encode(), "text", "c"),
    "raw": (pa.array([b"\0'\xff"], pa.large_binary()), "bytea", b"\0'\xff"),
    "fixed": (pa.array([b"ab"], pa.binary(2)), "bytea", b"ab"),
    "money": (pa.array([Decimal("-1.10")], pa.decimal128(38, 2)), "numeric", Decimal("-1.10")),
    "wide": (pa.array([Decimal("1" * 60)], pa.decimal256(70, 0)), "numeric", Decimal("1" * 60)),
    "s": (
        pa.array([0], pa.timestamp("s", "Europe/Berlin")),
        "timestamp with time zone",
        datetime(1970, 1, 1, tzinfo=UTC),
    ),
    "ns": (
        pa.array([1000], pa.timestamp("ns", "UTC")),
        "timestamp with time zone",
        datetime(1970, 1, 1, 0, 0, 0, 1, UTC),
    ),
    "first": (
        pa.array([datetime(1, 1, 1)], pa.timestamp("us")),
        "timestamp without time zone",
        datetime(1, 1, 1),
    ),
    "last": (
        pa.array([datetime(9999, 12, 31, 23, 59, 59, 999999)], pa.timestamp("us")),
        "timestamp without time zone",
        datetime(9999, 12, 31, 23, 59, 59, 999999),
    ),
    "day": (pa.array([date(2026, 1, 2)]), "date", date(2026, 1, 2)),
    "day64": (pa.array([date(1, 1, 1)], pa.date64()), "date", date(1, 1, 1)),
    "time": (pa.array([time(1, 2, 3, 4)]), "time without time zone", time(1, 2, 3, 4)),
    "took": (
        pa.array([timedelta(seconds=-1, microseconds=5)], pa.duration("us")),
        "interval",
        timedelta(seconds=-1, microseconds=5),
    ),
    "long": (pa.array([timedelta(days=400)], pa.duration("s")), "interval", timedelta(days=400)),
    "list": (pa.array([[1, None]]), "jsonb", [1, None]),
    "map": (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), "jsonb", [["k", 1]]),
    "object": (
        pa.array([{"a": 1e23, "b": "ü\\u0000", "c": 2**63 - 1}]),
        "jsonb",
        {"a": 1e23, "b": "ü\\u0000", "c": 2**63 - 1},
    ),
}


@pytest.mark.parametrize("name", EVERY_TYPE)
def test_every_type_has_its_column_and_comes_back(place: Place, name: str) -> None:
    values, kind, expected = EVERY_TYPE[name]

    async def scenario(backend: PostgresBackend) -> None:
        await backend.store(
            pa.table({"x": pa.chunked_array([values, values.slice(0, 0), pa.nulls(1, values.type)])})
        )
        assert [row["x"] for row in await backend.query(everything())] == [expected, None]

    place.run(scenario)
    stored = "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'rows'::regclass and attname = 'x'"
    assert place.sql(stored) == [(kind,)]


def test_all_types_beside_each_other(place: Place) -> None:
    async def scenario(backend: PostgresBackend) -> None:
        await backend.store(pa.table({name: values for name, (values, _, _) in EVERY_TYPE.items()}))
        assert await backend.query(everything()) == [
            {name: value for name, (_, _, value) in EVERY_TYPE.items()}
        ]

    place.run(scenario)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (pa.array(["a", "a\0b", None, "\0"]), "cannot store NUL in text"),
        (pa.array([["a"], ["a\0b"], None, ["\0"]]), "cannot store NUL in jsonb"),
        (pa.array([[1.0], [float("nan")], None, [float("inf")]]), "JSON has no NaN"),
        (pa.array([0, 2**62, None, -(2**62)], pa.timestamp("us")), "outside of the years 1 to 9999"),
        (pa.array([0, 2**62, None, -(2**62)], pa.timestamp("s", "UTC")), "outside of the years 1 to 9999"),
        (pa.array([0, 2**30, None, -(2**30)], pa.date32()), "outside of the years 1 to 9999"),
        (pa.array([1000, 1, None, 999], pa.timestamp("ns")), "PostgreSQL keeps microseconds"),
        (pa.array([0, 2**62, None, -(2**62)], pa.duration("s")), "the duration is too long"),
    ],
)
def test_values_that_postgresql_cannot_hold_are_refused_by_row(
    place: Place, values: pa.Array, reason: str
) -> None:
    table = pa.table({"n": [0, 1, 2, 3], "x": values})

    async def scenario(backend: PostgresBackend) -> None:
        with pytest.raises(
            DataError, match="2 rows cannot be stored in table 'rows'; the first is row 1"
        ) as caught:
            await backend.store(table)
        assert set(caught.value.rows) == {1, 3}
        assert "column 'x'" in caught.value.rows[1]
        assert reason in caught.value.rows[1]
        await backend.store(table.take([0, 2]))
        assert [row["n"] for row in await backend.query(everything())] == [0, 2]

    place.run(scenario)


@pytest.mark.parametrize(
    ("declared", "values", "stored"),
    [
        ("integer", pa.array([1]), [1]),
        ("smallint", pa.array([-(2**15)]), [-(2**15)]),
        ("double precision", pa.array([2**53]), [float(2**53)]),
        ("real", pa.array([1.5]), [1.5]),
        ("numeric", pa.array([0.1]), [Decimal("0.1")]),
        ("numeric(10, 2)", pa.array([7]), [Decimal("7.00")]),
        ("numeric(10, 2)", pa.array([Decimal("7.5")]), [Decimal("7.50")]),
        ("varchar(5)", pa.array(["00012"]), ["00012"]),
        ("uuid", pa.array(["00000000-0000-0000-0000-000000000001"]), [uuid.UUID(int=1)]),
        ("json", pa.array([{"a": [1]}]), [{"a": [1]}]),
    ],
)
def test_types_that_fit_an_existing_column(
    place: Place, declared: str, values: pa.Array, stored: list[Any]
) -> None:
    place.sql(f"create table rows (x {declared})")

    async def scenario(backend: PostgresBackend) -> None:
        await backend.store(pa.table({"x": values, "more": ["é\t\\N"]}))
        found = await backend.query(everything())
        assert [row["x"] for row in found] == stored
        assert found[0]["more"] == "é\t\\N"

    place.run(scenario)


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ("integer", pa.array(["1"])),
        ("text", pa.array([1])),
        ("jsonb", pa.array(["1"])),
        ("text[]", pa.array(["{}"])),
        ("numeric(10, 2)", pa.array([Decimal("1.234")])),
        ("numeric(10, 2)", pa.array([1.5])),
        ("timestamp(0)", pa.array([datetime(2026, 1, 2)])),
        ("timestamptz", pa.array([datetime(2026, 1, 2)])),
        ("boolean", pa.array([1])),
        ("bytea", pa.array(["x"])),
    ],
)
def test_a_type_that_does_not_fit_stops_the_flow(place: Place, declared: str, values: pa.Array) -> None:
    place.sql(f"create table rows (x {declared})")

    async def scenario(backend: PostgresBackend) -> None:
        with pytest.raises(
            FatalError, match="table 'rows', column 'x': it is of type .* cast 'x' in a processor"
        ):
            await backend.store(pa.table({"x": values, "new": [1]}))

    place.run(scenario)
    assert place.sql("select attname from pg_attribute where attrelid = 'rows'::regclass and attnum > 0") == [
        ("x",)
    ]


@pytest.mark.parametrize(
    ("declared", "values", "reason"),
    [
        ("integer", pa.array([1, 2**31]), "2147483648 is too large for a column of type integer"),
        ("double precision", pa.array([1, 2**53 + 1]), "9007199254740993 loses digits"),
        ("real", pa.array([1.5, 0.1]), "0.1 loses digits in a real column"),
    ],
)
def test_values_that_a_column_would_change_are_refused(
    place: Place, declared: str, values: pa.Array, reason: str
) -> None:
    place.sql(f"create table rows (x {declared})")

    async def scenario(backend: PostgresBackend) -> None:
        with pytest.raises(DataError) as caught:
            await backend.store(pa.table({"x": values}))
        assert set(caught.value.rows) == {1}
        assert reason in caught.value.rows[1]

    place.run(scenario)


def test_whole_numbers_widen_where_nothing_is_lost(place: Place) -> None:
    async def scenario(backend: PostgresBackend) -> None:
        await backend.store({"a": 2**53, "b": 2**63 - 1, "c": 2**53 + 1})
        await backend.store(pa.table({"a": [0.5], "b": pa.array([2**64 - 1], pa.uint64())}))
        assert [(row["a"], row["b"]) for row in await backend.query(everything())] == [
            (float(2**53), 2**63 - 1),
            (0.5, 2**64 - 1),
        ]
        with pytest.raises(FatalError, match="column 'c': it holds whole numbers of more than 53 bits"):
            await backend.store({"c": 0.5})

    place.run(scenario)


@pytest.mark.parametrize(
    ("declared", "values", "reason"),
    [
        ("bigint not null", pa.array([1, None]), "null value in column"),
        ("bigint unique", pa.array([1, 1]), "duplicate key value"),
        ("bigint unique deferrable initially deferred", pa.array([1, 1]), "duplicate key value"),
        ("varchar(3)", pa.array(["abc", "abcd"]), "value too long"),
        ("uuid", pa.array([f"{uuid.UUID(int=1)}", "no uuid"]), "invalid input syntax for type uuid"),
    ],
)
def test_what_only_the_server_refuses_is_found_by_row(
    place: Place, declared: str, values: pa.Array, reason: str
) -> None:
    place.sql(f"create table rows (x {declared})")

    async def scenario(backend: PostgresBackend) -> None:
        await backend.call(backend.claim, FLOW)
        what = replace(delivery(1, 1), table=pa.table({"x": values}))
        with pytest.raises(DataError, match=reason) as caught:
            await backend.call(backend.commit, what)
        assert set(caught.value.rows) == {1}
        assert reason in caught.value.rows[1]
        assert (await backend.call(backend.stored, FLOW)).seq == 0
        assert await backend.query(everything()) == []
        assert await backend.call(backend.commit, replace(what, table=what.table.slice(0, 1))) == 1

    place.run(scenario)


def test_rows_that_only_the_server_refuses_become_letters(place: Place, tmp_path: Any) -> None:
    place.sql("create table rows (x bigint unique)")
    (tmp_path / "in.ndjson").write_text("".join(f'{{"x": {number}}}\n' for number in (1, 2, 1, 3, 2)))

    async def main() -> Any:
        from collectors.runtime.engine import Engine

        config = from_mapping(
            {
                "sources": [{"type": "file", "path": "in.ndjson"}],
                "storage": [
                    {"type": "postgres", "dsn": place.server.dsn, "in_schema": place.schema, "table": "rows"}
                ],
            },
            folder=tmp_path,
            name="refused",
        )
        return await Engine(config).run()

    report = asyncio.run(main())
    assert not report.failed, [str(flow.error) for flow in report.failed]
    assert place.sql("select x from rows order by x") == [(1,), (2,), (3,)]
    reasons = [reason for (reason,) in place.sql("select reason from _collectors_dead_letters")]
    assert len(reasons) == 2
    assert all("duplicate key value" in reason for reason in reasons)


def test_a_list_of_numbers_of_different_types_is_compared(place: Place) -> None:
    async def scenario(backend: PostgresBackend) -> None:
        await backend.store(pa.table({"n": [1, 2, 3, 4], "x": [-1.0, 0.0, 2.5, None]}))
        found = await backend.query(QueryCriteria({"x": {"in": [-1.0, False, 7]}}, "n", None, None))
        assert [row["n"] for row in found] == [1, 2]

    place.run(scenario)


def test_names_that_postgresql_cannot_have(place: Place) -> None:
    async def scenario(backend: PostgresBackend) -> None:
        for name, reason in (
            ("a\0b", "NUL"),
            ("", "it is empty"),
            ("é" * 32, "63 bytes"),
            ("_collectors_row", "are taken"),
            ("ctid", "system column"),
        ):
            with pytest.raises(DataError, match=reason) as caught:
                await backend.store(pa.table([[1, 2], [None, 2]], ["id", name]))
            assert set(caught.value.rows) == {1}, "the other row has no value there"
        with pytest.raises(FatalError, match="the column 'id' is there twice"):
            await backend.store(pa.table([[1], [2]], ["id", "id"]))
        await backend.store({"id": 1, "ID": 2, "é" * 31: 3})
        assert await backend.query(everything()) == [{"id": 1, "ID": 2, "é" * 31: 3}]

    place.run(scenario)
    for table in ("", "a\0b", "_collectors_x", "pg_class", "x" * 64):
        with pytest.raises(ValueError, match="PostgreSQL cannot have this name"):
            place.backend(table=table)


@pytest.mark.parametrize(
    "table",
    [
        None,
        "create table rows (_collectors_row bigint primary key, n double precision)",  # as it was made before
        "create table rows (n double precision); insert into rows values (-1)",
    ],
)
def test_rows_come_in_their_order_wherever_the_server_keeps_them(place: Place, table: str | None) -> None:
    if table:
        place.sql(table)

    async def numbers(
        backend: PostgresBackend, limit: int | None, offset: int, above: float = 0
    ) -> list[float]:
        criteria = QueryCriteria({"n": {">": above}} if above else {}, None, limit, offset)
        return [row["n"] for row in await backend.query(criteria)]

    async def scenario(backend: PostgresBackend) -> None:
        first = await backend.store(pa.table({"n": [float(n) for n in range(1000)]}))
        await backend.store(pa.table({"n": [float(n) for n in range(1000, 1010)]}))
        await backend.delete(first.location_id)
        place.sql("vacuum rows")  # the next rows take the room of the first
        await backend.store(pa.table({"n": [float(n) for n in range(1010, 1020)]}))
        last = [] if table is None or "insert" not in table else [-1.0]
        order = [float(n) for n in range(1000, 1020)] + last
        for limit, offset in ((3, 0), (3, 9), (20, 0), (21, 0), (30, 15), (None, 0), (0, 0)):
            end = None if limit is None else offset + limit
            assert await numbers(backend, limit, offset) == order[offset:end]
        assert await numbers(backend, 5, 0, 1007.5) == order[8:13]
        assert await numbers(backend, 5, 0, 1017.5) == order[18:20]

    place.run(scenario)


def test_each_source_has_its_own_table_by_default(place: Place) -> None:
    async def scenario(backend: PostgresBackend) -> None:
        for source in ("one", "two"):
            await backend.call(backend.claim, f"p/{source}")
            await backend.call(backend.commit, delivery(1, 1, flow=f"p/{source}"))
        assert await backend.call(backend.tables) == ["one", "two"]
        with pytest.raises(ConfigurationError, match="a table for each of one, two"):
            await backend.query(everything())

    place.run(scenario, table="{source}")
    assert place.sql("select (select count(*) from one), (select count(*) from two)") == [(3, 3)]


def test_the_preview_says_what_would_change(place: Place) -> None:
    rows = pa.table({"id": [0.5], "t": [1.5], "status": ["ok"], "day": [date(2026, 1, 2)]})
    assert place.backend().preview(rows.select(["id"]), FLOW) == ["+ table rows", "+ id double precision"]
    place.sql("create table rows (id integer, status integer, day date)")
    assert place.backend().preview(rows, FLOW) == [
        "~ id: table has integer, becomes double precision",
        "+ t double precision (new)",
        "! status: table has integer, rows bring text",
        "= day date",
    ]


def test_commits_are_durable_whatever_the_server_is_set_to(place: Place) -> None:
    found: list[Any] = []

    async def scenario(backend: PostgresBackend) -> None:
        def in_transaction() -> Any:
            with backend._writer() as connection, connection.durable_transaction():
                return connection.execute("select current_setting('synchronous_commit')").fetchone()

        found.extend(await backend.call(in_transaction))

    for value in ("off", "on", "remote_apply"):
        place.run(scenario, dsn=f"{place.server.dsn}?options=-csynchronous_commit%3D{value}")
    assert found == ["on", "on", "remote_apply"]


def test_secrets_are_in_no_message(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "hunter2secret"
    texts = []
    for settings in (
        {"dsn": f"postgresql://me:{secret}@127.0.0.1:1/x"},
        {"dsn": f"postgresql://me:{secret}@127.0.0.1:{place.server.port}/nix"},
        {"dsn": f"host=127.0.0.1 password={secret} nonsense"},
        {"dsn": f"postgresql://me:{secret}@[::1/x"},
        {"host": "127.0.0.1", "port": 1, "password": secret},
        {"dsn": f"host=x password={secret}", "host": "y"},
    ):
        try:
            backend = PostgresBackend(**settings)
            texts += [repr(backend.config), backend.describe()]
            asyncio.run(backend.connect())
        except (ValueError, ConnectionError) as error:
            texts += [str(error), repr(error.__cause__)]
        with pytest.raises((ValueError, ConnectionError)) as caught:
            from_mapping({"sources": ["nix"], "storage": [{"type": "postgres", **settings}]}, name="x")
        texts.append(str(caught.value))
    texts.append(caplog.text)
    assert len(texts) > 12
    assert not [text for text in texts if secret in text]


def test_who_cannot_get_in_is_told_at_once(place: Place) -> None:
    for settings, reason in (
        ({"dsn": place.server.dsn.replace("postgres@", "nobody@")}, 'role "nobody" does not exist'),
        ({"dsn": f"{place.server.dsn}_not"}, 'database "postgres_not" does not exist'),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            place.run(lambda _: asyncio.sleep(0), **settings)
    with pytest.raises(TransientError, match="Connection refused"):
        place.run(lambda _: asyncio.sleep(0), dsn="postgresql://127.0.0.1:1/x")


def test_a_lock_of_somebody_else_is_waited_for_but_not_for_ever(place: Place) -> None:
    async def scenario(backend: PostgresBackend) -> None:
        await backend.store({"n": 1})
        with psycopg.connect(place.server.dsn) as other:
            other.execute(f'lock table "{place.schema}".rows')
            with pytest.raises(TransientError, match="lock timeout"):
                await backend.store({"n": 2})
        await backend.store({"n": 3})
        assert [row["n"] for row in await backend.query(everything())] == [1, 3]

    place.run(scenario, timeout="400ms")


def test_two_writers_that_begin_at_the_same_time(place: Place) -> None:
    problems: list[BaseException] = []

    def work(number: int) -> None:
        async def scenario(backend: PostgresBackend) -> None:
            for step in range(5):
                for _ in range(50):
                    try:
                        await backend.store({"n": number, f"c{step}": 1})
                        break
                    except TransientError:
                        continue

        try:
            place.run(scenario)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert place.sql("select n, count(*) from rows group by n order by n") == [
        (number, 5) for number in range(4)
    ]
    assert place.sql("select count(distinct _collectors_row) from rows") == [(20,)]


def test_a_slow_line_is_no_silence(place: Place) -> None:
    """Rows that need longer than the time-out to go through are stored, while some of them get through all the time."""
    with Proxy("127.0.0.1", place.server.port) as proxy:

        async def scenario(backend: PostgresBackend) -> None:
            await backend.store({"text": "x"})
            proxy.slows_to(3_000_000)
            await backend.store([{"text": "x" * 1000} for _ in range(4000)])
            proxy.passes()

        dsn = place.server.dsn.replace(str(place.server.port), str(proxy.port))
        place.run(scenario, dsn=dsn, timeout="500ms")
    assert place.sql("select count(*) from rows") == [(4001,)]


def test_deleting_is_exact_in_a_table_of_somebody_else(place: Place) -> None:
    place.sql("create table rows (n bigint)")
    place.sql("insert into rows values (1)")

    async def scenario(backend: PostgresBackend) -> None:
        location = await backend.store([{"n": 2}, {"n": 3}])
        await backend.store({"n": 4})
        await backend.delete(location.location_id)
        assert sorted(row["n"] for row in await backend.query(everything())) == [1, 4]
        assert await backend.query(QueryCriteria({"n": {">": 1}}, "-n", 1, None)) == [{"n": 4}]

    place.run(scenario)


def test_values_of_somebody_else_that_python_has_no_place_for(place: Place) -> None:
    place.sql("create table rows (t timestamptz, d date, n numeric)")
    place.sql("insert into rows values ('infinity', '0044-03-15 BC', 'NaN'), ('2026-01-02', '2026-01-02', 1)")

    async def scenario(backend: PostgresBackend) -> None:
        found = await backend.query(everything())
        assert (found[0]["t"], found[0]["d"]) == ("infinity", "0044-03-15 BC")
        after = QueryCriteria({"t": {">": datetime(2026, 1, 1, tzinfo=UTC)}}, None, None, None)
        assert len(await backend.query(after)) == 1
        assert len(await backend.query(QueryCriteria({"n": {">": 0}}, None, None, None))) == 1

    place.run(scenario)
