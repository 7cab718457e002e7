"""`write: replace`: what a table holds is always one whole reading, whatever is broken off between."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from uuid import uuid4

import duckdb
import psycopg
import pyarrow as pa
import pytest
from _tables import asking, opened, stored
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from collectors.chunks import ChunkKey
from collectors.errors import DataError, FatalError
from collectors.testing.deliveries import delivery

FLOW = "contract/source"


class Flow:
    """Commits what a source gives, one delivery after the other; each owner goes on where the last one was."""

    def __init__(self, backend):
        self.backend = backend
        self.seq = 0

    def give(self, *readings):
        """Commit deliveries in one life of the process: the name of a mark, or a table that is within a reading."""

        async def main():
            await self.backend.connect()
            try:
                checkpoint = await self.backend.call(self.backend.claim, FLOW)
                self.seq = checkpoint.seq
                for each in readings:
                    mark = each if isinstance(each, str) else "within"
                    await self._commit(
                        checkpoint.epoch, pa.table({}) if isinstance(each, str) else each, mark
                    )
                await self.backend.call(self.backend.flush)
            finally:
                await self.backend.disconnect()

        asyncio.run(main())

    async def _commit(self, epoch, table, mark):
        seq = self.seq + 1
        made = replace(delivery(seq, seq, epoch, letters=0), table=table, reading=mark)
        await self.backend.call(self.backend.commit, made)
        self.seq = seq


def rows(**columns):
    return pa.table(columns)


@pytest.fixture
def flow(where):
    return Flow(opened(where(), write="replace"))


def test_a_whole_reading_takes_the_place_of_the_one_before(flow):
    flow.give("begins", rows(n=[1, 2]), rows(n=[3]), "ends")
    assert stored(flow.backend) == [{"n": 1}, {"n": 2}, {"n": 3}]
    flow.give("begins", rows(n=[7]), rows(n=[8]))
    assert stored(flow.backend) == [{"n": 1}, {"n": 2}, {"n": 3}]  # nobody sees half of it
    flow.give(rows(n=[9]), "ends")
    assert stored(flow.backend) == [{"n": 7}, {"n": 8}, {"n": 9}]
    assert not any(name.startswith("_collectors") for name in asking(flow.backend, flow.backend.tables))


def test_a_reading_that_breaks_off_leaves_everything_as_it_was(flow):
    flow.give("begins", rows(n=[1]), "ends", "begins", rows(n=[2]))
    flow.give("begins", rows(n=[3]))
    assert stored(flow.backend) == [{"n": 1}]
    flow.give("begins", rows(n=[4]), "ends")
    assert stored(flow.backend) == [{"n": 4}]


def test_a_reading_of_nothing_empties_the_table(flow):
    flow.give("begins", "ends")
    assert stored(flow.backend) == []
    flow.give("begins", rows(n=[1]), "ends", "begins", "ends")
    assert stored(flow.backend) == []
    flow.give("begins", rows(n=[2]), "ends")
    assert stored(flow.backend) == [{"n": 2}]


def test_rows_of_a_reading_that_was_not_begun_here_are_kept_and_replace_nothing(flow):
    flow.give("begins", rows(n=[1]), "ends")
    flow.give(rows(n=[2]), "ends")
    assert stored(flow.backend) == [{"n": 1}, {"n": 2}]


def test_columns_that_come_and_types_that_widen(flow):
    flow.give("begins", rows(n=[1], kept=["x"]), "ends")
    flow.give("begins", rows(n=[1.5], new=["a"]), rows(n=[2.5], new=[None]), "ends")
    assert stored(flow.backend) == [
        {"n": 1.5, "kept": None, "new": "a"},
        {"n": 2.5, "kept": None, "new": None},
    ]
    history = asking(flow.backend, flow.backend.schema_history)
    ours = [drift for drift in history if drift.table == flow.backend.config.table]
    assert {(drift.column, drift.action) for drift in ours} >= {
        ("n", "made"),
        ("kept", "made"),
        ("new", "added"),
    }


def test_what_schema_says_holds_for_the_table_not_for_what_waits(where):
    place = where()
    flow = Flow(opened(place, write="replace"))
    flow.give("begins", rows(n=[1]), "ends")
    frozen = Flow(opened(place, write="replace", schema="freeze"))
    frozen.give("begins", rows(n=[2]), "ends")
    with pytest.raises(FatalError, match="does not have it") as caught:
        frozen.give("begins", rows(n=[3], more=[1]))
    assert "_collectors_next" not in str(caught.value)
    aside = Flow(opened(place, write="replace", schema="set-aside"))
    with pytest.raises(DataError) as refused:
        aside.give("begins", rows(n=[3, 4], more=[None, 1]))
    assert list(refused.value.rows) == [1]
    assert stored(flow.backend) == [{"n": 2}]


def test_a_location_of_the_table_can_be_deleted_and_one_that_waits_is_none(flow):
    flow.give("begins", rows(n=[1]), rows(n=[2]), "ends", "begins", rows(n=[3]))
    asking(flow.backend, flow.backend.remove, f"{FLOW}:2")
    assert stored(flow.backend) == [{"n": 2}]
    with pytest.raises(KeyError):
        asking(flow.backend, flow.backend.remove, f"{FLOW}:6")
    flow.give("ends")
    assert stored(flow.backend) == [{"n": 3}]
    with pytest.raises(KeyError):
        asking(flow.backend, flow.backend.remove, f"{FLOW}:3")


def test_a_reading_of_which_rows_were_added_replaces_nothing(where):
    """The settings said `append` for a while, and another storage of the source replaced on."""
    place = where()
    replacing, adding = (Flow(opened(place, write=write)) for write in ("replace", "append"))
    adding.give("begins", rows(n=[0]), "ends")
    replacing.give("begins", rows(n=[1]))
    adding.give(rows(n=[2]))
    replacing.give(rows(n=[3]), "ends")
    assert stored(replacing.backend) == [{"n": 0}, {"n": 2}, {"n": 3}]
    replacing.give("begins", rows(n=[4]), "ends")
    assert stored(replacing.backend) == [{"n": 4}]


def test_what_is_stored_by_hand_is_a_reading_of_its_own(flow):
    for seq, table in enumerate([rows(n=[1, 2]), rows(n=[3])], 1):
        assert asking(flow.backend, flow.backend.write, table, ChunkKey(FLOW, 0, seq)) == table.num_rows
    assert stored(flow.backend) == [{"n": 3}]


def test_rows_without_a_reading_are_added(flow):
    """Dead letters that are replayed are no part of a reading."""
    flow.give("begins", rows(n=[1]), "ends")

    async def replayed():
        await flow.backend.connect()
        checkpoint = await flow.backend.call(flow.backend.claim, FLOW)
        made = replace(
            delivery(checkpoint.seq + 1, checkpoint.seq + 1, checkpoint.epoch, letters=0), table=rows(n=[9])
        )
        await flow.backend.call(flow.backend.commit, made)
        await flow.backend.disconnect()

    asyncio.run(replayed())
    assert stored(flow.backend) == [{"n": 1}, {"n": 9}]


def test_a_table_of_the_user_keeps_what_belongs_to_it(tmp_path):
    path = tmp_path / "rows.db"
    with sqlite3.connect(path) as database:
        database.execute("create table mine (n integer check (n < 100), note text default 'none')")
        database.execute("create index mine_n on mine (n)")
        database.execute("create view seen as select n, note from mine")
        database.execute("insert into mine (n) values (1)")
    flow = Flow(opened({"type": "sqlite", "path": str(path), "table": "Mine"}, write="replace"))
    flow.give("begins", rows(n=[5]), "ends")
    with sqlite3.connect(path) as database:
        assert database.execute("select * from seen").fetchall() == [(5, "none")]
        names = {name for (name,) in database.execute("select name from sqlite_schema")}
        assert {"mine", "mine_n", "seen"} <= names
        assert not any("next" in name for name in names)


MADE_BY_USERS = {
    "sqlite": "create table t (id integer primary key, n bigint, note text not null default 'it''s', "
    "twice bigint generated always as (n * 2) virtual)",
    "duckdb": "create sequence ids; create table t (id bigint primary key default nextval('ids'), n bigint, "
    "note text not null default 'it''s', twice bigint generated always as (n * 2) virtual)",
}


@pytest.mark.parametrize("kind", sorted(MADE_BY_USERS))
def test_columns_that_the_table_fills_are_filled_as_they_are_without_a_reading(kind, tmp_path):
    path = str(tmp_path / "rows.db")
    with closing((duckdb if kind == "duckdb" else sqlite3).connect(path)) as database:
        for statement in MADE_BY_USERS[kind].split(";"):
            database.execute(statement)
    flow = Flow(opened({"type": kind, "path": path, "table": "t"}, write="replace"))
    for value in (5, 6):
        flow.give("begins", rows(n=[value]), "ends")
        (row,) = stored(flow.backend)
        assert (row["n"], row["note"]) == (value, "it's")
        assert row["id"] is not None


def test_a_view_of_a_table_that_is_not_there_yet(tmp_path):
    path = tmp_path / "rows.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("create view seen as select n from t")
    flow = Flow(opened({"type": "sqlite", "path": str(path), "table": "t"}, write="replace"))
    flow.give("begins", rows(n=[5]), "ends")
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("select n from seen").fetchall() == [(5,)]


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_a_table_that_does_not_take_the_rows_says_what_to_do(kind, tmp_path):
    path = str(tmp_path / "rows.db")
    with closing((duckdb if kind == "duckdb" else sqlite3).connect(path)) as database:
        database.execute("create table t (n bigint check (n < 9))")
    flow = Flow(opened({"type": kind, "path": path, "table": "t"}, write="replace"))
    flow.give("begins", rows(n=[1]), "ends")
    with pytest.raises(
        FatalError, match=r"'t' does not take .* CHECK .* it is as it was. Leave out such rows"
    ):
        flow.give("begins", rows(n=[2, 9]), "ends")
    assert stored(flow.backend) == [{"n": 1}]


@pytest.fixture
def postgres_table(postgres_server):
    """Return a function that runs a statement about a table, and one that gives a flow into it."""
    table = f"rows_{uuid4().hex}"

    def run(statement):
        with psycopg.connect(postgres_server.dsn) as connection:
            cursor = connection.execute(statement.replace("{t}", table))
            return cursor.fetchall() if cursor.description else []

    where = {"type": "postgres", "dsn": postgres_server.dsn, "table": table}
    return run, lambda: Flow(opened(where, write="replace"))


@pytest.mark.parametrize("when", ["always", "by default"])
def test_numbers_that_postgresql_gives_are_given_once(postgres_table, when):
    """Also to rows that come without a reading: letters that are replayed, rows of others."""
    run, flow = postgres_table
    run(f"create table {{t}} (id bigint generated {when} as identity primary key, n bigint)")
    flow().give("begins", rows(n=[1, 2]), "ends", "begins", rows(n=[1, 2]), "ends")
    run("insert into {t} (n) values (3)")
    assert run("select id, n from {t} order by id") == [(3, 1), (4, 2), (5, 3)]


def test_what_triggers_fill_may_be_missing_while_rows_wait(postgres_table):
    run, flow = postgres_table
    run(
        "create table {t} (id bigint generated by default as identity primary key, n bigint check (n > 9), "
        "note text not null)"
    )
    run(
        "create function {t}() returns trigger language plpgsql as "
        "$$ begin new.note = 'made'; new.n = new.n + 10; return new; end $$"
    )
    run("create trigger fills before insert on {t} for each row execute function {t}()")
    for n in (1, 2):
        flow().give("begins", rows(n=[n]), "ends")
        assert run("select id, n, note from {t}") == [(n, n + 10, "made")]


def test_rows_that_postgresql_refuses_are_told_of_the_table(postgres_table):
    run, flow = postgres_table
    run("create table {t}_all (n bigint primary key)")
    run("create table {t} (n bigint unique references {t}_all)")
    with pytest.raises(DataError) as refused:
        flow().give("begins", rows(n=[1, 1]))
    assert list(refused.value.rows) == [1]
    assert "_collectors_next" not in refused.value.rows[1]
    with pytest.raises(FatalError, match="does not take .* foreign key constraint"):
        flow().give("begins", rows(n=[1]), "ends")


def test_rows_that_others_refer_to_until_the_commit(postgres_table):
    run, flow = postgres_table
    run("create table {t} (n bigint primary key)")
    run("create table {t}_more (n bigint references {t} deferrable initially deferred)")
    run("insert into {t} values (1)")
    run("insert into {t}_more values (1)")
    flow().give("begins", rows(n=[1], new=["a"]), "ends")
    assert run("select n, new from {t}") == [(1, "a")]


STEPS = st.lists(
    st.sampled_from(["begins", "ends", "dies"]) | st.lists(st.integers(0, 9), min_size=1, max_size=3),
    max_size=9,
)


@given(steps=STEPS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_table_holds_one_whole_reading(where, steps):
    flow = Flow(opened(where(), write="replace"))
    table: list[int] = []
    waiting: list[int] | None = None
    life: list[object] = []
    for step in [*steps, "dies"]:
        if step == "dies":
            flow.give(*life)
            life = []
            assert [row["n"] for row in stored(flow.backend)] == table
            continue
        life.append(step if isinstance(step, str) else rows(n=step))
        if step == "begins":
            waiting = []
        elif step == "ends":
            table, waiting = (table, None) if waiting is None else (waiting, None)
        elif waiting is None:
            table = [*table, *step]
        else:
            waiting = [*waiting, *step]
