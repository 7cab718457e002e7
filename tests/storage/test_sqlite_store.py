from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from collectors.chunks import Checkpoint, Counts
from collectors.errors import ConfigurationError, FatalError, FencedError, TransientError
from collectors.storage.sqlite_store import DeliveryTables, open_database
from collectors.testing.deliveries import delivery

FLOW = "contract/source"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a folder" / "100% state?.db"


def tables(path: Path, target: str = "") -> DeliveryTables:
    store = DeliveryTables(open_database(path), target)
    store.create()
    return store


def test_a_file_survives_a_power_cut_after_a_commit(path: Path) -> None:
    with open_database(path) as database:
        assert database.execute("pragma journal_mode").fetchone() == ("wal",)
        assert database.execute("pragma synchronous").fetchone() == (2,)
    database.close()


@pytest.mark.parametrize("content", [b"hi", b"{'a': 1}\n" * 100, b"SQLite format 2\0" + b"\0" * 100])
def test_a_file_that_is_something_else_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(content)
    with pytest.raises(
        ConfigurationError, match=r"is not a SQLite database \(it begins with b.*choose another path"
    ):
        open_database(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a folder"):
        open_database(tmp_path)


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    open_database(tmp_path / "x.db").close()
    assert (tmp_path / "x.db").stat().st_size > 0


def test_reading_makes_no_file(path: Path) -> None:
    with pytest.raises(TransientError, match="cannot read or write it"):
        open_database(path, read_only=True)
    assert not path.parent.exists()
    tables(path)._database.close()
    reader = open_database(path, read_only=True)
    with pytest.raises(FatalError, match="readonly"), reader.transaction():
        reader.execute("create table x (y)")
    reader.close()
    assert list(path.parent.iterdir()) == [path]


def test_asking_a_database_without_the_tables(path: Path) -> None:
    store = DeliveryTables(open_database(path))
    assert store.stored(FLOW) == Checkpoint(0)
    assert list(store.dead_letters("contract")) == []
    assert store.ledger() == {}


def test_the_ledger_adds_up_by_run_and_flow(path: Path) -> None:
    store = tables(path)
    store.claim(FLOW)
    first, second = delivery(1, 1), replace(delivery(2, 2), counts=Counts(10, 1, 4, 5, 2))
    other = replace(delivery(3, 3), run="run-2")
    for each in (first, first, second, other):
        store.commit(each)
    assert store.ledger() == {
        ("run-1", FLOW): first.counts + second.counts,
        ("run-2", FLOW): other.counts,
    }
    assert store.ledger("run-2") == {("run-2", FLOW): other.counts}


def test_two_targets_in_one_file_do_not_touch_each_other(path: Path) -> None:
    database = open_database(path)
    one, two = DeliveryTables(database, "one"), DeliveryTables(database, "two")
    one.create()
    assert one.claim(FLOW) == two.claim(FLOW) == Checkpoint(1)
    one.commit(delivery(1, 1))
    assert two.stored(FLOW) == Checkpoint(1)
    two.commit(delivery(1, 1))
    assert len(list(one.dead_letters("contract"))) == 2
    assert one.ledger() == two.ledger() == {("run-1", FLOW): delivery(1, 1).counts}


def test_letters_of_a_repeated_try_replace_those_of_the_first(path: Path) -> None:
    store = tables(path)
    first, second, third = (delivery(seq, seq).dead_letters for seq in (1, 2, 3))
    store.replace_dead_letters("edge", 1, first)
    store.replace_dead_letters("edge", 2, [*second, *third])
    store.replace_dead_letters("other edge", 1, first)
    store.replace_dead_letters("edge", 2, second)
    store.replace_dead_letters("edge", 2, second)
    assert [letter.seq for letter in store.dead_letters("contract")] == [1, 1, 2]
    assert next(store.dead_letters("contract")) == first[0]
    assert list(store.dead_letters("another")) == []


def test_letters_that_look_alike_are_all_kept(path: Path) -> None:
    store = tables(path)
    store.claim(FLOW)
    (letter,) = delivery(1, 1).dead_letters
    odd = replace(letter, reason="cannot read '\udcff'", raw=b"other")
    store.commit(replace(delivery(1, 1), dead_letters=[letter, odd]))
    assert [each.raw for each in store.dead_letters("contract")] == [letter.raw, b"other"]


def test_what_fails_inside_of_a_commit_leaves_everything_as_it_was(path: Path) -> None:
    store = tables(path)
    store.claim(FLOW)
    before = Path(path).read_bytes()

    def store_rows(_) -> None:
        store._database.execute("create table rows (n)")
        store._database.execute("insert into rows values (1)")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.commit_together([delivery(1, 1)], store_rows)
    assert store.stored(FLOW) == Checkpoint(1)
    assert list(store.dead_letters("contract")) == []
    assert store.ledger() == {}
    assert path.read_bytes() == before
    assert store.commit(delivery(1, 1)) == 1


def test_a_locked_file_can_be_tried_again(path: Path) -> None:
    store = DeliveryTables(open_database(path, timeout=0.01))
    store.create()
    store.claim(FLOW)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(TransientError, match=r"state\?.db: another process is writing to it"):
        store.commit(delivery(1, 1))
    other.execute("rollback")
    other.close()
    assert store.commit(delivery(1, 1)) == 1


def test_a_full_disk_stores_nothing_and_passes(path: Path) -> None:
    store = tables(path)
    store.claim(FLOW)
    database = store._database
    (pages,) = database.execute("pragma page_count").fetchone()
    database.execute(f"pragma max_page_count = {pages}")
    large = replace(delivery(1, 1), schema=b"x" * 100_000)
    with pytest.raises(TransientError, match=r"the disk is full .*nothing of this chunk was stored"):
        store.commit(large)
    assert store.stored(FLOW) == Checkpoint(1)
    database.execute("pragma max_page_count = 100000")
    assert store.commit(large) == 1


def test_a_disk_that_fails_for_real(tmp_path: Path) -> None:
    """The limit on the size of files makes every write behind it fail, as a full or broken disk does."""
    program = """
import resource, signal, sys
from msgspec.structs import replace
from collectors.errors import TransientError
from collectors.storage.backends.sqlite import SqliteBackend
from collectors.testing.deliveries import delivery, everything
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
backend = SqliteBackend(path=sys.argv[1], table="rows")
backend.open()
backend.claim("contract/source")
backend.commit(delivery(1, 1))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
large = replace(delivery(2, 2), schema=b"x" * 1_000_000)
for _ in range(2):
    try:
        backend.commit(large)
    except TransientError as error:
        print(error)
assert backend.stored("contract/source").seq == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert backend.commit(large) == 2
assert [row["n"] for row in backend.select(everything())] == list(range(6))
backend.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.db")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("x.db: ") == 2


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_moved_away_is_noticed_before_anything_is_lost(path: Path, replaced: bool) -> None:
    store = tables(path)
    store.claim(FLOW)
    path.rename(path.with_name("moved.db"))
    if replaced:
        path.touch()
    with pytest.raises(
        FatalError, match="was moved, deleted or replaced while it was open; nothing was stored"
    ):
        store.commit(delivery(1, 1))


def test_a_damaged_file_is_named(path: Path) -> None:
    store = tables(path)
    store.claim(FLOW)
    store._database.execute("pragma wal_checkpoint(truncate)")
    store._database.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(FatalError, match=r"is damaged .*\.recover"):
        tables(path).claim(FLOW)


def test_writers_of_one_process_take_turns(path: Path) -> None:
    tables(path)
    inside: list[int] = []
    most: list[int] = []

    def write(number: int) -> None:
        store = DeliveryTables(open_database(path, timeout=0))
        store.claim(f"{FLOW}{number}")
        for seq in range(1, 20):

            def note(_) -> None:
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

            store.commit_together([delivery(seq, seq, flow=f"{FLOW}{number}")], note)
        store._database.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert max(most) == 1
    assert len(most) == 4 * 19


def test_the_first_owner_is_fenced(path: Path) -> None:
    first, second = tables(path), tables(path)
    assert first.claim(FLOW).epoch == 1
    assert second.claim(FLOW).epoch == 2
    with pytest.raises(FencedError, match="epoch 2, ours is 1"):
        first.commit(delivery(1, 1))
    assert second.commit(delivery(1, 2, 2)) == 2
    with pytest.raises(FencedError, match="chunks 4 to 4 do not follow chunk 2"):
        second.commit(delivery(4, 4, 2))
