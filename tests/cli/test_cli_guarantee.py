"""guarantee: what each edge promises, computed from what the components can do."""

from __future__ import annotations

import json

import pytest

from collectors.cli import main as cli
from collectors.collection.base import Source
from collectors.config.load import from_mapping, load
from collectors.runtime.guarantee import Level, guarantees
from collectors.storage.backends.sqlite import SqliteBackend
from collectors.storage.base import Backend, BackendConfig

FILE = {"type": "file", "path": "in.ndjson"}
SQLITE = {"type": "sqlite", "path": "out.db"}


class Pushed(Source):
    """Cannot be read again, and answers."""

    def read(self, since):
        yield from ()

    def needs_spool(self):
        return True

    def turn_away(self, position, reason):
        """Answer."""


class Silent(Source):
    """Cannot be read again, and nobody waits."""

    lost_before_spool = "the kernel may drop datagrams: counted"

    def read(self, since):
        yield from ()

    def needs_spool(self):
        return True


class Acknowledged(Source):
    """Cannot be read again, but what was not acknowledged comes again."""

    lost_before_spool = ""
    doubled_before_spool = "what was not acknowledged in time is stored again"

    def read(self, since):
        yield from ()

    def needs_spool(self):
        return True


class Numbers(Source):
    """Can be read again, but not chunk by chunk."""

    def read(self, since):
        yield from ()


class Repeating(Numbers):
    """Gives some records again."""

    may_repeat = "the last page is read again"


class Plain(Backend[BackendConfig]):
    """Keeps no position."""

    def write(self, table, key):
        return 0


def edges(sources, storage, **more):
    return guarantees(from_mapping({"sources": sources, "storage": storage, **more}))


@pytest.mark.parametrize(
    ("source", "storage", "level", "loses", "doubles"),
    [
        (FILE, SQLITE, Level.EXACTLY_ONCE, False, False),
        (FILE, {"type": "parquet", "path": "lake"}, Level.EXACTLY_ONCE, False, False),
        (FILE, Plain(), Level.AT_LEAST_ONCE, False, True),
        (FILE, {"type": "memory"}, Level.AT_MOST_ONCE, True, False),
        (Pushed(), SQLITE, Level.FROM_HAND_OVER, False, False),
        (Silent(), SQLITE, Level.FROM_SPOOL, True, False),
        (Silent(), Plain(), Level.AT_LEAST_ONCE, True, True),
        (Numbers(), SQLITE, Level.EXACTLY_ONCE, False, False),
        (Repeating(), SQLITE, Level.AT_LEAST_ONCE, False, True),
    ],
)
def test_level(source, storage, level, loses, doubles):
    (edge,) = edges([source], [storage])
    assert (edge.level, edge.may_lose, edge.may_double) == (level, loses, doubles)
    assert (edge.better is None) == (level in {Level.EXACTLY_ONCE, Level.FROM_HAND_OVER})


def test_a_source_that_repeats_records():
    (edge,) = edges([Repeating()], [SQLITE])
    assert (edge.level, edge.but, edge.may_lose, edge.may_double) == (
        Level.AT_LEAST_ONCE,
        "the last page is read again",
        False,
        True,
    )
    assert edge.why[0] == "the source can be read again from a position, and may give records again"
    assert edge.power_cut.startswith("as a crash")


def test_levels_come_from_what_a_class_can_do():
    class Forgetful(SqliteBackend):
        durable = False

    assert edges([FILE], [SqliteBackend(path="x.db")])[0].level is Level.EXACTLY_ONCE
    assert edges([FILE], [Forgetful(path="x.db")])[0].level is Level.AT_MOST_ONCE


def test_what_is_lost_before_the_spool_is_said_by_the_source():
    assert edges([Silent()], [SQLITE])[0].promise == (
        "exactly once from the spool on (the kernel may drop datagrams: counted)"
    )


def test_what_comes_again_is_said_by_the_source():
    for storage in (SQLITE, Plain()):
        (edge,) = edges([Repeating()], [storage])
        assert "the last page is read again" in edge.promise
        assert "one row of each key" in edge.better


def test_several_storages_need_a_source_that_replays():
    two = [SQLITE, {"type": "parquet", "path": "lake"}]
    assert {edge.level for edge in edges([FILE], two)} == {Level.EXACTLY_ONCE}
    assert {edge.level for edge in edges([Numbers()], two)} == {Level.AT_MOST_ONCE}
    assert {edge.level for edge in edges([Silent()], two)} == {Level.FROM_SPOOL}


def test_letters_are_where_there_is_room_for_them():
    parquet = {"type": "parquet", "path": "lake"}
    assert "sqlite" in edges([FILE], [parquet, SQLITE])[0].letters
    assert "state.db, before" in edges([FILE], [parquet])[0].letters
    assert "state.db, behind" in edges([FILE], [Plain()])[0].letters


@pytest.mark.parametrize(
    ("required", "met"),
    [
        (Level.EXACTLY_ONCE, {Level.EXACTLY_ONCE}),
        (Level.FROM_HAND_OVER, {Level.EXACTLY_ONCE, Level.FROM_HAND_OVER}),
        (Level.FROM_SPOOL, {Level.EXACTLY_ONCE, Level.FROM_HAND_OVER, Level.FROM_SPOOL}),
        (Level.AT_LEAST_ONCE, {Level.EXACTLY_ONCE, Level.FROM_HAND_OVER, Level.AT_LEAST_ONCE}),
    ],
)
def test_require(required, met):
    all_levels = [
        *edges([FILE, Pushed(id="pushed"), Silent(id="silent")], [SQLITE]),
        *edges([FILE], [Plain(), {"type": "memory"}]),
    ]
    assert {edge.level for edge in all_levels if edge.meets(required)} == met


@pytest.fixture
def pipeline(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(
        "sources: [{type: file, path: gone.ndjson}]\nstorage: [{type: sqlite, path: no/out.db}, stdout]\n"
    )
    return file


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["guarantee", *map(str, arguments)])
    return stopped.value.code or 0, capsys.readouterr().out


def test_command(pipeline, capsys):
    code, out = call(capsys, pipeline)
    assert code == 0
    assert "file → sqlite  exactly once\n" in out
    assert "file → stdout  at least once\n" in out
    assert sorted(path.name for path in pipeline.parent.iterdir()) == ["p.yaml"]


def test_command_requires(pipeline, capsys):
    code, out = call(capsys, pipeline, "--require", "exactly-once")
    assert code == 1
    assert "less than exactly-once: file → stdout" in out
    assert call(capsys, pipeline, "--require", "at-least-once")[0] == 0


def test_command_for_programs(pipeline, capsys):
    code, out = call(capsys, pipeline, "--json", "--require", "exactly-once")
    told = json.loads(out)
    assert code == 1
    assert told["met"] is False
    assert [edge["level"] for edge in told["edges"]] == ["exactly once", "at least once"]
    assert len(told["edges"]) == len(guarantees(load(pipeline)))


def test_what_is_acknowledged_from_the_spool_is_never_lost():
    (edge,) = edges([Acknowledged()], [SQLITE])
    assert edge.level is Level.FROM_HAND_OVER
    assert edge.but == "what was not acknowledged in time is stored again"
    assert not edge.may_lose
    assert edge.meets(Level.AT_LEAST_ONCE)
    assert "then they are acknowledged" in " ".join(edge.why)
    assert "nothing is acknowledged meanwhile" in edge.disk_full
