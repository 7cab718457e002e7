"""Readings of everything: where they begin and end is told, also over breaks, and `write: replace` stores one whole one."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from _rest_api import Api, rows
from aiohttp import web

from collectors.collection.sources.http import HttpSource
from collectors.collection.sources.sql import SqlSource
from collectors.config.load import from_mapping
from collectors.errors import TransientError
from collectors.runtime.engine import Engine

LIVES = Path(__file__).parents[2] / "e2e" / "_lives.py"


def told(source, since=None, most=1000):
    """Return where the chunks of a reading stand in it, each with its ids, and the positions behind them."""

    async def work():
        found = []
        source.marks_readings = True
        await source.connect()
        stream = source.stream(since)
        try:
            async for chunk in stream:
                assert chunk.metadata["reading"] == "within" or not chunk.raw_data
                ids = (
                    [json.loads(line)["id"] for line in chunk.raw_data.splitlines()]
                    if chunk.data_format == "ndjson"
                    else []
                )
                found.append((chunk.metadata["reading"], ids, json.loads(json.dumps(chunk.position))))
                if len(found) == most:
                    break
        except TransientError:
            found.append(("broken", [], None))
        finally:
            await stream.aclose()
            await source.disconnect()
        return found

    return asyncio.run(work())


def api_source(api, path="cursor", **settings):
    paging = {"records": "items", "paging": {"type": "cursor", "param": "after", "field": "meta.next"}}
    return HttpSource(**{"url": f"{api.url}/{path}", "allow_private": True, **paging, **settings})


def test_pages_of_an_api_are_one_reading():
    with Api(rows(range(1, 16))) as api:
        found = told(api_source(api))
        assert [(mark, ids) for mark, ids, _ in found] == [
            ("begins", []),
            ("within", [1, 2, 3, 4, 5, 6, 7]),
            ("within", [8, 9, 10, 11, 12, 13, 14]),
            ("within", [15]),
            ("ends", []),
        ]
        assert [mark for mark, *_ in told(api_source(api), found[-1][2])] == [mark for mark, *_ in found]


def test_an_api_without_records_is_a_reading_of_nothing():
    with Api() as api:
        assert [mark for mark, *_ in told(api_source(api))] == ["begins", "ends"]


def test_a_reading_goes_on_where_it_was():
    with Api(rows(range(1, 16))) as api:
        begun, first = told(api_source(api), most=2)
        assert [mark for mark, *_ in told(api_source(api), begun[2])][:2] == ["begins", "within"]
        assert [(mark, ids) for mark, ids, _ in told(api_source(api), first[2])] == [
            ("within", [8, 9, 10, 11, 12, 13, 14]),
            ("within", [15]),
            ("ends", []),
        ]


def test_behind_each_chunk_the_rest_comes_and_nothing_twice():
    """Also behind the last records, where nothing is left to be asked for."""
    with Api(rows(range(1, 16))) as api:
        found = [(mark, ids) for mark, ids, _ in told(api_source(api))]
        positions = [position for *_, position in told(api_source(api))]
        for number, since in enumerate(positions[1:-1], 2):
            assert [(mark, ids) for mark, ids, _ in told(api_source(api), since)] == found[number:]
        ended = told(api_source(api), positions[-2])[-1][2]
        assert [(mark, ids) for mark, ids, _ in told(api_source(api), ended)] == found


def test_a_reading_that_was_not_told_begins_anew():
    """Half of it was appended by an earlier run, before the settings were changed."""
    with Api(rows(range(1, 16))) as api:
        source = api_source(api)

        async def first_page():
            await source.connect()
            stream = source.stream(None)
            try:
                return (await anext(stream)).position
            finally:
                await stream.aclose()
                await source.disconnect()

        position = asyncio.run(first_page())
        assert [mark for mark, *_ in told(api_source(api), position)][:2] == ["begins", "within"]


def test_what_has_not_changed_is_no_reading():
    def answer(request):
        if request.headers.get("If-None-Match") == '"1"':
            return web.Response(status=304)
        return web.json_response([{"id": 1}], headers={"ETag": '"1"'})

    with Api() as api:
        api.answers["/things"] = api.answers["/others"] = answer
        settings = {"records": None, "paging": None}
        found = told(api_source(api, "things", **settings))
        assert [mark for mark, *_ in found] == ["begins", "within", "ends"]
        assert told(api_source(api, "things", **settings), found[-1][2]) == []
        untold = {key: value for key, value in found[-1][2].items() if key != "reading"}
        assert len(told(api_source(api, "things", **settings), untold)) == 3
        ends = [{"name": name, "path": name} for name in ("things", "others")]
        both = {"endpoints": ends, "url": api.url, **settings}
        found = told(api_source(api, **both))
        assert [ids for _, ids, _ in told(api_source(api, **both), found[-1][2])] == [[], [1], [1], []]


def test_chunks_of_an_api_that_come_again_stand_where_they_stood():
    with Api(rows(range(1, 9))) as api:
        found, since = told(api_source(api)), None
        source = api_source(api)
        source.marks_readings = True
        for mark, ids, position in found:
            chunk = source.replay(since, position)
            assert chunk.metadata["reading"] == mark
            assert [json.loads(line)["id"] for line in chunk.raw_data.splitlines()] == ids
            since = position


def test_a_pass_over_a_table(tmp_path):
    with closing(sqlite3.connect(tmp_path / "in.db")) as database:
        database.execute("create table things (id integer)")
        database.commit()
        source = {"url": f"sqlite:///{tmp_path}/in.db", "table": "things", "chunk_size": "1 KiB"}
        assert [mark for mark, *_ in told(SqlSource(**source))] == ["begins", "ends"]
        database.executemany("insert into things values (?)", [(n,) for n in range(2000)])
        database.commit()
        marks = [mark for mark, *_ in told(SqlSource(**source))]
        assert (marks[0], set(marks[1:-1]), marks[-1]) == ("begins", {"within"}, "ends")
        assert len(marks) > 4
    assert not SqlSource(**source, key="id").reads_everything


def test_nobody_is_told_who_does_not_ask(tmp_path):
    with Api(rows([1])) as api:

        async def work():
            source = api_source(api)
            await source.connect()
            try:
                return [chunk.metadata async for chunk in source.stream(None)]
            finally:
                await source.disconnect()

        assert all("reading" not in metadata for metadata in asyncio.run(work()))


class Target:
    """The table that is replaced by the pipeline p.yaml, and what is in it."""

    def __init__(self, kind, folder, request):
        self.kind, self.folder = kind, folder
        self.table = f"t{uuid4().hex}"
        self.dsn = request.getfixturevalue("postgres_server").dsn if kind == "postgres" else None
        place = {"dsn": self.dsn} if self.dsn else {"path": f"out.{kind}"}
        storage = {"type": kind, "table": self.table, "write": "replace", **place}
        source = {
            "type": "sql",
            "id": "things",
            "url": "sqlite:///in.db",
            "table": "things",
            "chunk_size": "1 KiB",
        }
        pipeline = {"name": "copy", "sources": [source], "storage": [storage]}
        (folder / "p.yaml").write_text(json.dumps(pipeline))

    def write_version(self, version):
        """Have a hundred rows of the version in the source for each that there was."""
        with closing(sqlite3.connect(self.folder / "in.db")) as database:
            database.execute("create table if not exists things (id integer, version integer)")
            database.execute("delete from things")
            rows = [(n, version) for n in range(100 * version)]
            database.executemany("insert into things values (?, ?)", rows)
            database.commit()

    def versions(self):
        """Return which version each row is of; None while there is no table."""
        statement = f"select version from {self.table}"
        try:
            if self.kind == "postgres":
                with psycopg.connect(self.dsn) as connection:
                    return [version for (version,) in connection.execute(statement)]
            if self.kind == "sqlite":
                with closing(sqlite3.connect(self.folder / "out.sqlite")) as database:
                    return [version for (version,) in database.execute(statement)]
            import duckdb

            with closing(duckdb.connect(self.folder / "out.duckdb")) as connection:
                return [version for (version,) in connection.execute(statement).fetchall()]
        except (psycopg.errors.UndefinedTable, sqlite3.OperationalError):
            return None
        except Exception as error:
            if "does not exist" in str(error):
                return None
            raise


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "postgres"])
def test_killed_at_crash_points_a_table_is_one_whole_version(kind, tmp_path, request):
    """Of each version of the source there are as many rows as its number times a hundred."""
    target = Target(kind, tmp_path, request)
    kills = 0
    for version in range(1, 3):
        target.write_version(version)
        command = [sys.executable, "-W", "ignore", str(LIVES), "p.yaml", str(3 * version), "13", "5"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        kills += json.loads(done.stdout)["kills"]
        assert target.versions() == [version] * (100 * version)
    assert kills > 4


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "postgres"])
def test_killed_and_left_a_table_is_what_it_was(kind, tmp_path, request):
    """After each kill somebody looks: there is the version before or the new one, whole."""
    target = Target(kind, tmp_path, request)
    life = f"import sys; sys.path.insert(0, {str(LIVES.parent)!r}); import _lives, pathlib; "
    before, kept, points = 1, 0, [10**9, 25, 50, 75, 10**9]
    for version, point in enumerate(points, 1):
        target.write_version(version)
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            f"{life}_lives.live(pathlib.Path('p.yaml'), {point})",
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        found = target.versions()
        assert found == [found[0]] * (100 * found[0])
        assert found[0] in {before, version}
        assert point < 10**9 or found[0] == version
        kept += found[0] < version
        before = found[0]
    assert kept


def test_both_storages_of_one_source_are_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Api(rows(range(1, 16))) as api:
        source = {
            "type": "http",
            "id": "things",
            "url": f"{api.url}/cursor",
            "allow_private": True,
            "records": "items",
        }
        source["paging"] = {"type": "cursor", "param": "after", "field": "meta.next"}
        storage = [
            {"type": "sqlite", "path": "out.db", "write": "replace"},
            {"type": "parquet", "path": "lake"},
        ]
        for count in (15, 3, 8):
            api.records = rows(range(1, count + 1))
            config = from_mapping({"name": "copy", "sources": [source], "storage": storage})
            report = asyncio.run(Engine(config).run())
            assert (report.balanced, report.failed) == (True, []), report
            with closing(sqlite3.connect("out.db")) as database:
                assert database.execute("select count(*) from things").fetchone() == (count,)


def test_letters_are_read_anew_and_not_replayed(tmp_path):
    """Their records would be there twice when a reading has given them since."""
    with closing(sqlite3.connect(tmp_path / "in.db")) as database:
        database.execute("create table things (id integer)")
        database.executemany("insert into things values (?)", [(1,), (2,), (3,)])
        database.commit()
    source = {"type": "sql", "id": "things", "url": "sqlite:///in.db", "table": "things"}
    storage = {"type": "sqlite", "path": "out.db", "write": "replace"}
    step = {"type": "python", "function": "things_of:checked"}
    pipeline = {"name": "copy", "sources": [source], "processors": [step], "storage": [storage]}
    (tmp_path / "p.yaml").write_text(json.dumps(pipeline))

    def call(*arguments):
        command = [sys.executable, "-m", "collectors", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    def ids():
        with closing(sqlite3.connect(tmp_path / "out.db")) as database:
            return [n for (n,) in database.execute("select id from things")]

    function = "def checked(record):\n    1 / (record['id'] - {})\n    return record\n"
    (tmp_path / "things_of.py").write_text(function.format(2))
    call("run", "p.yaml")
    assert ids() == [1, 3]
    (tmp_path / "things_of.py").write_text(function.format(0.5))
    done = call("dead-letters", "replay", "p.yaml", "--all", "--yes")
    assert done.returncode == 2, done.stderr
    assert "Run the pipeline again, which reads these records anew; then discard the letters" in done.stderr
    assert ids() == [1, 3]
    assert call("run", "p.yaml").returncode == 0
    assert ids() == [1, 2, 3]
    assert call("dead-letters", "discard", "p.yaml", "--all", "--yes", "--why", "read anew").returncode == 0
