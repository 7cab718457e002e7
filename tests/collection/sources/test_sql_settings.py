"""What settings of the sql source do, and what is said about wrong ones."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from decimal import Decimal

import psycopg
import pytest
from _sql_reading import read, rows, run
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import registry
from collectors.collection.sources._sql_positions import at, position
from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError, FatalError, TransientError
from collectors.testing.mariadb_server import MariaDbServer, ServerUnavailableError

HERE = "sqlite:///x.db"


@pytest.fixture
def shop(tmp_path):
    """The URL of a file with orders."""
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.executescript(
            """
            create table orders (id integer primary key, customer text, updated_at text);
            insert into orders values (1, 'a', '2026-01-01'), (2, 'b', '2026-01-02'), (3, 'c', '2026-01-02'), (4, 'd', '2026-01-03');
            create view big as select * from orders where id > 2;
            create table "odd % name" (id integer primary key, "a ""b"" %s" text);
            insert into "odd % name" values (1, 'x');
            """
        )
    return f"sqlite:///{tmp_path / 'shop.db'}"


def write(url, statement):
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database, database:
        database.execute(statement)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "table, query: expected one of the two"),
        ({"table": "a", "query": "select 1"}, "table, query: expected one of the two"),
        ({"url": "oracle://x/y", "table": "a"}, "expected sqlite:///path, postgresql"),
        ({"url": "sqlite://x.db", "table": "a"}, "expected sqlite:///path"),
        ({"url": "mysql://h:port/x", "table": "a"}, "expected sqlite:///path, postgresql"),
        ({"url": "mysql://h/x?sslmode=1", "table": "a"}, "no parameter 'sslmode'"),
        ({"url": "mysql://h/x?ssl-mode=on", "table": "a"}, "ssl-mode: expected one of"),
        ({"table": "a.b.c"}, "table: expected a name"),
        ({"table": ""}, "table: expected a name"),
        ({"query": "selec 1 from"}, "query: "),
        ({"query": "select 1; select 2"}, "query: expected one SELECT, got 2"),
        ({"query": ""}, "query: expected one SELECT, got 0"),
        ({"query": "delete from t"}, "query: expected a SELECT, got DELETE"),
        ({"query": "drop table t"}, "query: expected a SELECT, got DROP"),
        ({"query": "select * from t where id > ?"}, "a placeholder has nothing"),
        ({"table": "a", "cursor": "c"}, "key: needed beside `cursor`"),
        ({"table": "a", "cursor": "c", "key": ["c"]}, "a column is named twice"),
        ({"table": "a", "key": ["c", "c"]}, "a column is named twice"),
        ({"table": "a", "columns": ["c", "c"]}, "columns: a column is named twice"),
        ({"table": "a", "key": "c", "start": 1}, "start: is about the cursor"),
        ({"table": "a", "key": "c", "lag": "1s"}, "lag: is about the cursor"),
        ({"table": "a", "nulls": "skip"}, "nulls: is about the cursor and the key"),
        ({"table": "a", "wait_for": "writers"}, "wait_for: is for postgresql"),
        ({"table": "a", "timeout": "10ms"}, "timeout: expected 1s to 24h"),
        ({"table": "a", "chunk_size": 0}, "chunk_size: expected more than 0 bytes"),
    ],
)
def test_wrong_settings(given, said):
    with pytest.raises(ValueError, match=".") as caught:
        registry.create("source", "sql", {"url": HERE, **given})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        "with gone as (delete from t returning *) select * from gone",
        "with n as (insert into t values (1) returning id) select * from n",
        "select * into other from t",
        "select * from t for update",
        "copy t to program 'id'",
        "explain analyze delete from t",
        "table t; drop table t",
        "call f()",
        "set role postgres",
    ],
)
def test_queries_that_write_are_refused(query):
    with pytest.raises(ValueError, match="query: "):
        registry.create("source", "sql", {"url": "postgresql://h/x", "query": query})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"table": "ordres"}, "table: there is no table 'ordres'; did you mean 'orders'?"),
        ({"table": "nothing_like_it"}, "there are: big, odd % name, orders"),
        ({"table": "orders", "key": "ID"}, "key: there is no column 'ID'; did you mean 'id'?"),
        (
            {"table": "orders", "key": "id", "cursor": "updated"},
            "cursor: there is no column 'updated'; did you mean 'updated_at'?",
        ),
        (
            {"table": "orders", "columns": ["costumer"]},
            "columns: there is no column 'costumer'; did you mean 'customer'?",
        ),
        ({"query": "select * from nix"}, "no such table: nix"),
        (
            {"table": "orders", "key": "id", "cursor": "customer", "lag": "1s"},
            "lag: needs a cursor that is a time; 'customer' is",
        ),
    ],
)
def test_what_is_not_there(shop, given, said):
    with pytest.raises(ConfigurationError) as caught:
        run(url=shop, **given)
    assert said in str(caught.value)


def test_no_file_and_no_database(tmp_path):
    with pytest.raises(ConfigurationError, match="url: there is no file"):
        run(url=f"sqlite:///{tmp_path}/x.db", table="t")
    assert not list(tmp_path.iterdir())
    (tmp_path / "x.db").write_text("no database, but long enough to be looked at" * 100)
    with pytest.raises(ConfigurationError, match="is no SQLite database"):
        run(url=f"sqlite:///{tmp_path}/x.db", table="t")


def test_a_path_is_relative_to_the_pipeline(tmp_path):
    loaded = from_mapping(
        {
            "sources": [{"type": "sql", "url": "sqlite:///a/b.db", "table": "t"}],
            "storage": [{"type": "memory"}],
        },
        folder=tmp_path,
    )
    assert loaded.sources["sql"].settings.url.get_secret_value() == f"sqlite:///{tmp_path}/a/b.db"


def test_cursor_and_key(shop):
    where = {"url": shop, "table": "orders", "cursor": "updated_at", "key": "id", "chunk_size": 1}
    chunks = run(**where)
    assert [row["id"] for row in rows(chunks)] == [1, 2, 3, 4]
    assert chunks[1].position == {"by": ["updated_at", "id"], "at": ["2026-01-02", 2]}
    write(shop, "insert into orders values (5, 'e', '2026-01-02')")
    assert [row["id"] for row in rows(run(chunks[1].position, **where))] == [3, 5, 4]
    write(shop, "update orders set updated_at = '2026-02-01' where id = 1")
    assert [row["id"] for row in rows(run(chunks[-1].position, **where))] == [1]


def test_start(shop):
    where = {"url": shop, "table": "orders", "cursor": "updated_at", "key": "id"}
    assert [row["id"] for row in rows(run(**where, start="2026-01-02"))] == [2, 3, 4]


def test_columns_without_those_of_the_order(shop):
    where = {
        "url": shop,
        "table": "orders",
        "cursor": "updated_at",
        "key": "id",
        "columns": ["customer"],
        "chunk_size": 1,
    }
    chunks = run(**where)
    assert rows(chunks) == [{"customer": each} for each in "abcd"]
    assert rows(run(chunks[2].position, **where)) == [{"customer": "d"}]


def test_queries_views_and_odd_names(shop):
    query = "select id, customer || '%s' as c from orders where customer like '%a%' or id = 4 -- the last line is a comment"
    assert rows(run(url=shop, query=query, key="id")) == [{"id": 1, "c": "a%s"}, {"id": 4, "c": "d%s"}]
    assert [row["id"] for row in rows(run(url=shop, table="big", key="id"))] == [3, 4]
    assert rows(run(url=shop, table="main.odd % name", key="id")) == [{"id": 1, 'a "b" %s': "x"}]
    assert rows(run(url=shop, query="select 1 as a;")) == [{"a": 1}]


def test_a_pass_without_a_key(shop):
    source = registry.create("source", "sql", {"url": shop, "table": "orders"})
    assert source.needs_spool()
    chunks = run(url=shop, table="orders", chunk_size=1)
    assert [row["id"] for row in rows(chunks)] == [1, 2, 3, 4]
    assert {chunk.position for chunk in chunks} == {None}
    assert not registry.create("source", "sql", {"url": shop, "table": "orders", "key": "id"}).needs_spool()


def test_rows_without_a_cursor(shop):
    where = {"url": shop, "table": "orders", "cursor": "updated_at", "key": "id"}
    write(shop, "insert into orders values (5, 'e', null), (6, 'f', null)")
    with pytest.raises(FatalError, match=r"NULL in updated_at.*coalesce.*nulls: skip"):
        run(**where)
    chunks, told = asyncio.run(read(**where, nulls="skip"))
    assert [row["id"] for row in rows(chunks)] == [1, 2, 3, 4]
    assert "2 rows are left out" in told[0]
    assert len(told) == 1
    query = "select id, coalesce(updated_at, '2026-09-01') as updated_at from orders"
    found = rows(run(url=shop, query=query, cursor="updated_at", key="id"))
    assert [row["id"] for row in found] == [1, 2, 3, 4, 5, 6]


def test_what_a_server_does_not_tell_is_told_once(shop, mariadb_server):
    with closing(mariadb_server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("create or replace table warned (id int primary key, at timestamp(6) not null)")
    where = {"url": mariadb_server.url, "table": "warned", "key": "id"}
    assert "missed, unless `lag` covers it" in asyncio.run(read(**where))[1][0]
    assert asyncio.run(read(**where, cursor="at", lag="1s"))[1] == []
    assert asyncio.run(read(url=mariadb_server.url, table="warned"))[1] == []
    assert asyncio.run(read(url=shop, table="orders", key="id"))[1] == []


def test_rows_without_a_cursor_alone(shop):
    """Also where there is no other row behind the position."""
    where = {"url": shop, "table": "orders", "cursor": "updated_at", "key": "id"}
    last = run(**where)[-1].position
    write(shop, "insert into orders values (5, 'e', null)")
    with pytest.raises(FatalError, match="NULL in updated_at"):
        run(last, **where)


def test_a_key_that_does_not_tell_rows_apart(shop):
    for size in (1, 10**6):
        with pytest.raises(
            FatalError, match=r"key: two rows have the same updated_at.*2026-01-02.*add columns"
        ):
            run(url=shop, table="orders", key="updated_at", chunk_size=size)


def test_a_position_of_other_columns(shop):
    last = run(url=shop, table="orders", key="id")[0].position
    with pytest.raises(FatalError, match=r"was read by id; .* now say updated_at, id.*another `id`"):
        run(last, url=shop, table="orders", cursor="updated_at", key="id")


def test_a_lag_in_sqlite(tmp_path):
    url = f"sqlite:///{tmp_path / 'x.db'}"
    write(url, "create table t (id integer primary key, at datetime)")
    write(
        url,
        "insert into t values (1, datetime('now', '-2 hours')), (2, strftime('%Y-%m-%dT%H:%M:%SZ', 'now')), (3, '1 BC')",
    )
    where = {"url": url, "table": "t", "cursor": "at", "key": "id"}
    assert {row["id"] for row in rows(run(**where, lag="1h"))} == {1, 3}
    assert {row["id"] for row in rows(run(**where))} == {1, 2, 3}


def test_a_writer_is_not_kept_out_between_chunks(shop):
    """Of a SQLite file with a rollback journal, while the reader waits for its storage."""

    async def scenario():
        source = registry.create(
            "source", "sql", {"url": shop, "table": "orders", "key": "id", "chunk_size": 1}
        )
        await source.connect()
        stream = source.stream(None)
        await anext(stream)
        write(shop, "update orders set customer = 'z' where id = 4")
        rest = [chunk async for chunk in stream]
        assert rows(rest)[-1]["customer"] == "z"
        await source.disconnect()

    asyncio.run(scenario())


def test_replay_gives_the_same_chunk(shop):
    async def scenario():
        source = registry.create(
            "source", "sql", {"url": shop, "table": "orders", "key": "id", "chunk_size": 1}
        )
        await source.connect()
        chunks = [chunk async for chunk in source.stream(None)]
        before = None
        for chunk in chunks:
            again = await asyncio.to_thread(source.replay, before, chunk.position)
            assert (again.raw_data, again.position) == (chunk.raw_data, chunk.position)
            before = chunk.position
        write(shop, "delete from orders where id = 1")
        again = await asyncio.to_thread(source.replay, None, chunks[0].position)
        assert (rows([again]), again.position) == ([], chunks[0].position)
        await source.disconnect()

    asyncio.run(scenario())


@pytest.mark.parametrize("extra", ["postgres", "mysql"])
def test_a_driver_that_is_not_installed(monkeypatch, extra):
    module = {"postgres": "psycopg", "mysql": "pymysql"}[extra]
    for name in [
        each for each in sys.modules if each.partition(".")[0] == module or each.endswith(f"_sql_{extra}")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    url = {"postgres": "postgresql", "mysql": "mysql"}[extra]
    with pytest.raises(ConfigurationError, match=rf"url: .*pip install 'collectors-io\[{extra}\]'"):
        run(url=f"{url}://127.0.0.1:1/x", table="t")


def test_tls_of_mysql(tmp_path):
    """With `ssl-ca` alone the name is compared, too; no mode falls back to less than it says."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    try:
        subprocess.run(
            [*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("needs the program openssl to make a certificate")
    try:
        server = MariaDbServer(ssl_cert=str(certificate), ssl_key=str(key))
    except ServerUnavailableError as error:
        pytest.skip(f"needs a MariaDB server: {error}")
    with server:
        named = server.url.replace("127.0.0.1", "localhost")
        query = "select variable_value <> '' as secure from information_schema.session_status where variable_name = 'Ssl_cipher'"
        for good in (
            f"{named}?ssl-ca={certificate}",
            f"{named}?ssl-mode=verify_identity&ssl-ca={certificate}",
            f"{server.url}?ssl-mode=verify_ca&ssl-ca={certificate}",
            f"{server.url}?ssl-mode=REQUIRED",
            server.url,
        ):
            assert rows(run(url=good, query=query)) == [{"secure": 1}]
        assert rows(run(url=f"{server.url}?ssl-mode=disabled", query=query)) == [{"secure": 0}]
        for bad in (
            f"{server.url}?ssl-ca={certificate}",
            f"{server.url}?ssl-mode=verify_identity&ssl-ca={certificate}",
            f"{named}?ssl-mode=verify_identity",
            f"{named}?ssl-mode=verify_ca",
        ):
            with pytest.raises(TransientError, match="certificate"):
                run(url=bad, query=query)


SECRET = "hunter2secret"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:{}@127.0.0.1:1/x",
        "postgresql://me:{}@127.0.0.1:{port}/nix",
        "postgresql://me:{}@[::1/x",
        "postgresql://me:{}@127.0.0.1:x/x",
        "mysql://me:{}@127.0.0.1:1/x",
        "mysql://me:{}@127.0.0.1/x?bad=1",
        "mysql://me:{}@127.0.0.1/x?ssl-mode=verify_ca&ssl-ca=/nowhere",
        "oracle://me:{}@h/x",
    ],
)
def test_passwords_are_in_no_message(postgres_server, url, caplog):
    url = url.replace("{}", SECRET).replace("{port}", str(postgres_server.port))
    said = []
    for what in ({"table": "t"}, {"table": "t", "key": 5}, {"tabel": "t"}):
        try:
            run(url=url, **what)
        except (ValueError, ConnectionError) as error:
            said.append(str(error))
        try:
            from_mapping(
                {"sources": [{"type": "sql", "url": url, **what}], "storage": [{"type": "memory"}]},
                folder=".",
            )
        except ValueError as error:
            said.append(str(error))
    assert said
    assert not [text for text in [*said, caplog.text] if SECRET in text]


def test_servers_that_say_no(postgres_server, mariadb_server):
    with pytest.raises(TransientError, match="PostgreSQL: "):
        run(url="postgresql://x@127.0.0.1:1/x", table="t")
    with pytest.raises(ConfigurationError, match='database "nix" does not exist'):
        run(url=postgres_server.dsn.removesuffix("/postgres") + "/nix", table="t")
    with pytest.raises(ConfigurationError, match="table: there is no table 'public.nix'"):
        run(url=postgres_server.dsn, table="public.nix")


def test_a_mysql_that_says_no(mariadb_server):
    with pytest.raises(TransientError, match="MySQL: "):
        run(url="mysql://x@127.0.0.1:1/x", table="t")
    with pytest.raises(ConfigurationError, match="MySQL: Access denied"):
        run(url=mariadb_server.url.replace("geheim", "falsch"), table="t")
    with pytest.raises(ConfigurationError, match="table: there is no table 'nix'"):
        run(url=mariadb_server.url, table="nix")
    with pytest.raises(TransientError, match="MySQL: "):  # TLS is asked for, and the server has none
        run(url=f"{mariadb_server.url}?ssl-mode=required", table="t")


def test_nothing_can_be_written(postgres_server, mariadb_server):
    """Whatever a query gets past the check, the session is read-only."""
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute("create table if not exists victims (id int)")
        connection.execute(
            "create or replace function hit() returns int language sql as 'insert into victims values (1) returning id'"
        )
        with pytest.raises((FatalError, TransientError), match="read-only"):
            run(url=postgres_server.dsn, query="select hit() as n")
        assert connection.execute("select count(*) from victims").fetchall() == [(0,)]


def test_nothing_can_be_written_to_mysql(mariadb_server):
    with closing(mariadb_server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("create table if not exists victims (id int)")
        cursor.execute(
            "create or replace function hit() returns int begin insert into victims values (1); return 1; end"
        )
        with pytest.raises(FatalError, match="READ ONLY"):
            run(url=mariadb_server.url, query="select hit() as n")
        cursor.execute("select count(*) from victims")
        assert cursor.fetchall() == ((0,),)


ODD = 'a "b" %s `c` ü'
ODD_QUERY = "select 1 as id, '%s %% ?' as a -- the end"


def test_names_and_queries_of_postgres(postgres_server):
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute(
            'create table if not exists "odd % table" (id int primary key, "a ""b"" %s `c` ü" text)'
        )
        connection.execute("""insert into "odd % table" values (1, 'x') on conflict do nothing""")
    assert rows(run(url=postgres_server.dsn, table="odd % table", key=ODD)) == [{"id": 1, ODD: "x"}]
    assert rows(run(url=postgres_server.dsn, query=ODD_QUERY, key="id")) == [{"id": 1, "a": "%s %% ?"}]


def test_names_and_queries_of_mysql(mariadb_server):
    with closing(mariadb_server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            'create or replace table `odd % table` (id int primary key, `a "b" %s ``c`` ü` varchar(9))'
        )
        cursor.execute("insert into `odd % table` values (1, 'x')")
    assert rows(run(url=mariadb_server.url, table="odd % table", key=ODD)) == [{"id": 1, ODD: "x"}]
    assert rows(run(url=mariadb_server.url, query=ODD_QUERY, key="id")) == [{"id": 1, "a": "%s %% ?"}]


def test_a_lag_of_mysql(mariadb_server):
    with closing(mariadb_server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "create or replace table lagging (id int primary key, at timestamp(6) not null, day datetime not null)"
        )
        cursor.execute(
            "insert into lagging values (1, now(6), utc_timestamp()), (2, now(6) - interval 2 hour, utc_timestamp() - interval 2 hour)"
        )
    for cursor in ("at", "day"):
        where = {"url": mariadb_server.url, "table": "lagging", "cursor": cursor, "key": "id"}
        assert [row["id"] for row in rows(run(**where, lag="1h30m"))] == [2]
        assert [row["id"] for row in rows(run(**where))] == [2, 1]


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.integers(),
            st.floats(),
            st.binary(),
            st.decimals(allow_nan=False),
            st.text(),
            st.datetimes().map(str),
        ),
        min_size=1,
    )
)
def test_positions_keep_every_value(values):
    by = [str(n) for n in range(len(values))]
    back = at(json.loads(json.dumps(position(by, values))), by)
    assert [type(each) for each in back] == [type(each) for each in values]
    assert list(map(_exact, back)) == list(map(_exact, values))


def _exact(value):
    return (str(value), value.as_tuple()) if isinstance(value, Decimal) else repr(value)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.integers(-3, 3), st.sampled_from(["", "a", "B"]), st.floats(-2, 2), st.binary(max_size=1)
            ),
            st.integers(0, 30),
        ),
        unique=True,
        max_size=25,
    ),
    st.integers(1, 60),
)
def test_every_row_once_from_every_position(tmp_path_factory, entries, size):
    """Cursors of any kind, many alike, in one column."""
    url = f"sqlite:///{tmp_path_factory.mktemp('rows') / 'x.db'}"
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database, database:
        database.execute("create table t (c, k integer, n integer)")
        distinct = {(type(c) is str, type(c) is bytes, c, k): (c, k) for c, k in entries}.values()
        database.executemany(
            "insert into t values (?, ?, ?)", [(c, k, n) for n, (c, k) in enumerate(distinct)]
        )
        expected = [n for (n,) in database.execute("select n from t order by c, k")]
    where = {"url": url, "table": "t", "cursor": "c", "key": "k", "columns": ["n"], "chunk_size": size}
    chunks = run(**where)
    assert [row["n"] for row in rows(chunks)] == expected
    for number, chunk in enumerate(chunks):
        before = rows(chunks[: number + 1])
        assert [row["n"] for row in before + rows(run(chunk.position, **where))] == expected
