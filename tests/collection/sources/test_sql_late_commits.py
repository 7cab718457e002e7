"""PostgreSQL: transactions that commit after others with larger cursors were there lose no row, and none comes twice."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from uuid import uuid4

import psycopg
import pytest
from _sql_reading import chunks_of, rows, run

from collectors import registry
from collectors.testing.postgres_server import PostgresServer

PATIENCE = 15.0


class Table:
    """A table of the server; its cursor is a sequence, or the time of the transaction."""

    def __init__(self, server, cursor):
        self.server = server
        self.name = f"t{uuid4().hex}"
        kind = {"n": "bigserial", "at": "timestamptz not null default now()"}[cursor]
        self.settings = {
            "url": server.dsn,
            "table": self.name,
            "cursor": cursor,
            "key": "id",
            "chunk_size": 256,
        }
        with self.connect() as connection:
            connection.execute(
                f"create table {self.name} (id uuid primary key default gen_random_uuid(), {cursor} {kind}, v int)"
            )

    def connect(self, **settings):
        return psycopg.connect(
            self.server.dsn, **{"autocommit": True, "application_name": "an app", **settings}
        )

    @contextmanager
    def transaction(self):
        with self.connect() as connection, connection.transaction():
            yield lambda v: connection.execute(f"insert into {self.name} (v) values (%s)", [v]), connection


@pytest.fixture(params=["n", "at"])
def table(request, postgres_server):
    return Table(postgres_server, request.param)


@asynccontextmanager
async def connected(table, **settings):
    source = registry.create("source", "sql", {**table.settings, **settings})
    source.told = []
    source.tell = source.told.append
    await source.connect()
    try:
        yield source
    finally:
        await source.disconnect()


def insert(table, v):
    with table.transaction() as (put, _):
        put(v)


def values(chunks):
    return [row["v"] for row in rows(chunks)]


def begin(table, how):
    """Return an open transaction that has taken the value of its cursor, and what ends it; `how` it has got its number."""
    context = table.transaction()
    put, connection = context.__enter__()

    if how == "written":
        put(1)
        finish = lambda: None  # noqa: E731
    elif how == "number before the value":
        connection.execute(f"insert into {table.name}_others values (1)")
        finish = lambda: put(1)  # noqa: E731
    else:
        taken = "now()" if table.settings["cursor"] == "at" else f"nextval('{table.name}_n_seq')"
        ((value,),) = connection.execute(f"select {taken}").fetchall()
        finish = lambda: connection.execute(  # noqa: E731
            f"insert into {table.name} ({table.settings['cursor']}, v) values (%s, 1)", [value]
        )

    def end():
        finish()
        context.__exit__(None, None, None)

    return end


@pytest.mark.parametrize("how", ["written", "number before the value", "value before the number"])
def test_a_transaction_that_commits_late(table, how):
    """Its cursor is smaller than one that was committed and could be read before."""
    with table.connect() as connection:
        connection.execute(f"create table {table.name}_others (v int)")

    async def scenario():
        async with connected(table) as source:
            insert(table, 0)
            first = await chunks_of(source)
            assert values(first) == [0]
            end = begin(table, how)
            insert(table, 2)
            reading = asyncio.ensure_future(chunks_of(source, first[-1].position))
            done, _ = await asyncio.wait([reading], timeout=0.4)
            assert not done
            await asyncio.to_thread(end)
            second = await asyncio.wait_for(reading, PATIENCE)
            third = await chunks_of(source, (second or first)[-1].position)
            # without its value taken the late one comes behind: the other was read then, or both at once
            assert sorted(values(second + third)) == [1, 2]
            assert values(await chunks_of(source, (third or second)[-1].position)) == []

    asyncio.run(scenario())


def test_a_row_of_a_longer_transaction_is_not_behind(postgres_server):
    """Transaction 1 gets its number first and its value last; 2 the other way round: numbers alone would lose a row."""
    table = Table(postgres_server, "n")

    async def scenario():
        async with connected(table, wait_for="writers") as source:
            with table.connect() as longer:
                longer.execute("begin")
                longer.execute(f"create table {table.name}_x ()")
                end = begin(table, "written")
                longer.execute(f"insert into {table.name} (v) values (2)")
                longer.execute("commit")
            reading = asyncio.ensure_future(chunks_of(source))
            assert not (await asyncio.wait([reading], timeout=0.4))[0]
            await asyncio.to_thread(end)
            assert values(await asyncio.wait_for(reading, PATIENCE)) == [1, 2]

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["readers", "writers"])
def test_who_is_waited_for(table, kind):
    """`writers` does not wait for a transaction that has only read, but for one that has written, whatever it wrote."""

    async def scenario():
        insert(table, 1)
        with table.connect() as other:
            other.execute("begin")
            other.execute("select 1" if kind == "readers" else f"create table {table.name}_x ()")
            async with connected(table, wait_for="writers") as source:
                reading = asyncio.ensure_future(chunks_of(source))
                done, _ = await asyncio.wait([reading], timeout=PATIENCE if kind == "readers" else 0.4)
                assert bool(done) == (kind == "readers")
                other.execute("rollback")
                assert values(await asyncio.wait_for(reading, PATIENCE)) == [1]

    asyncio.run(scenario())


def test_others_are_not_waited_for(table):
    """Other databases, other sources, and a transaction that begins later."""

    async def scenario():
        insert(table, 1)
        name = f"other_{table.name}"
        with table.connect() as connection:
            connection.execute(f"create database {name}")
        elsewhere = psycopg.connect(table.server.dsn.removesuffix("/postgres") + f"/{name}")
        elsewhere.execute("select 1")
        async with connected(table, chunk_size=1) as slow, connected(table) as source:
            insert(table, 2)
            stream = slow.stream(None)
            await anext(stream)  # its cursor is open
            assert values(await asyncio.wait_for(chunks_of(source), PATIENCE)) == [1, 2]
            await stream.aclose()
        elsewhere.close()

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_wait_is_told_and_can_be_stopped(table):
    async def scenario():
        with table.transaction() as (put, connection):
            insert(table, 1)
            put(0)
            async with connected(table) as source:
                reading = asyncio.ensure_future(chunks_of(source))
                async with asyncio.timeout(40):
                    while not source.told:
                        await asyncio.sleep(0.02)
                assert f"pid {connection.info.backend_pid}" in source.told[0]
                reading.cancel()
                await asyncio.wait([reading], timeout=PATIENCE)
                assert reading.done()

    asyncio.run(scenario())


def test_a_transaction_that_is_prepared_meanwhile():
    """It had taken its value, and written nothing, when the wait began; prepared, it belongs to no session."""
    with PostgresServer() as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("alter system set max_prepared_transactions = 5")
        server.kill()
        server.start()
        table = Table(server, "n")

        async def scenario():
            async with connected(table) as source:
                with table.connect() as other:
                    other.execute("begin")
                    ((value,),) = other.execute(f"select nextval('{table.name}_n_seq')").fetchall()
                    insert(table, 2)
                    reading = asyncio.ensure_future(chunks_of(source))
                    assert not (await asyncio.wait([reading], timeout=0.4))[0]
                    other.execute(f"insert into {table.name} (n, v) values (%s, 1)", [value])
                    other.execute("prepare transaction 'p'")
                    assert not (await asyncio.wait([reading], timeout=0.8))[0]
                    other.execute("commit prepared 'p'")
                assert values(await asyncio.wait_for(reading, PATIENCE)) == [1, 2]

        asyncio.run(scenario())


def test_many_writers_at_once(table):
    """Writers that dawdle between taking a value and committing, some rolled back; what is committed is read once, in order."""
    writers, each = 6, 25
    committed = [set() for _ in range(writers)]

    def write(number):
        dice = random.Random(number)
        with table.connect() as connection:
            for n in range(each):
                v = number * each + n
                connection.execute("begin")
                for _ in range(dice.randrange(3)):
                    connection.execute("select pg_sleep(%s)", [dice.random() / 100])
                connection.execute(f"insert into {table.name} (v) values (%s)", [v])
                connection.execute("select pg_sleep(%s)", [dice.random() / 50])
                keep = dice.random() < 0.9
                connection.execute("commit" if keep else "rollback")
                if keep:
                    committed[number].add(v)

    async def scenario():
        threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
        for thread in threads:
            thread.start()
        seen, since, over = [], None, False
        async with connected(table) as source:
            while not over:
                over = not any(thread.is_alive() for thread in threads)
                chunks = await asyncio.wait_for(chunks_of(source, since), PATIENCE)
                seen += rows(chunks)
                since = chunks[-1].position if chunks else since
        for thread in threads:
            thread.join()
        assert Counter(row["v"] for row in seen) == Counter(set().union(*committed))
        places = [(row[table.settings["cursor"]], row["id"]) for row in seen]
        assert places == sorted(places)

    asyncio.run(scenario())


def test_a_lag_leaves_young_rows_for_later(postgres_server):
    table = Table(postgres_server, "at")
    insert(table, 1)
    with table.connect() as connection:
        connection.execute(f"insert into {table.name} (at, v) values (now() - interval '2 hours', 0)")
    assert values(run(**table.settings, lag="1h")) == [0]
    assert values(run(**table.settings)) == [0, 1]
