"""Small objects become few large ones: no reader of the log sees a row twice or misses one, whatever fails when."""

from __future__ import annotations

import asyncio
import gzip
import itertools

import pyarrow as pa
import pytest
from msgspec.structs import replace

from collectors import registry
from collectors.cli.main import main
from collectors.errors import FatalError, FencedError, TransientError
from collectors.storage.backends import _object_store_flow
from collectors.storage.backends._object_store_client import Objects, RangeFile
from collectors.storage.backends._parquet_file import PartFile
from collectors.testing.deliveries import delivery, everything

FLOW = "contract/source"


def opened(folder, **settings):
    return registry.create("backend", "object_store", {"url": folder.as_uri(), "max_rows": 1, **settings})


def doing(backend, scenario):
    async def run():
        await backend.connect()
        try:
            return await backend.call(scenario)
        finally:
            await backend.disconnect()

    return asyncio.run(run())


def fill(folder, tables, first=1, **settings):
    """Store each table in objects of its own, with a dead letter each."""

    backend = opened(folder, **settings)

    def store():
        epoch = backend.claim(FLOW).epoch
        for seq, table in enumerate(tables, first):
            backend.commit(replace(delivery(seq, seq, epoch), table=table))

    doing(backend, store)


def compacting(folder, target=2**20, *, dry_run=False, tell=lambda _: None, **settings):
    backend = opened(folder, **settings)
    return doing(backend, lambda: backend.compact("contract", target, tell, dry_run=dry_run))


def state(folder):
    """Return all that has to stay as it is: rows in their order, letters, counts, and how far the flow is stored."""
    backend = opened(folder)

    def look():
        letters = [letter.key for letter in backend.dead_letters("contract")]
        return (
            backend.select(everything()),
            letters,
            backend.ledger("run-1"),
            replace(backend.stored(FLOW), epoch=0),
        )

    return *doing(backend, look), doing(backend, backend.schema_history)


def parts(folder):
    return sorted(path for path in folder.rglob("part-*") if "_collectors" not in path.parts)


def numbered(count, rows=3):
    return [pa.table({"n": [seq * rows + row for row in range(rows)]}) for seq in range(count)]


def test_rows_letters_counts_and_positions_stay_as_they_are(tmp_path):
    fill(tmp_path, numbered(5))
    before = state(tmp_path)
    planned = compacting(tmp_path, dry_run=True)
    assert len(parts(tmp_path)) == 5
    (done,) = compacting(tmp_path)
    assert (done.files_before, done.files_after, done.rows) == (5, 1, 15)
    assert [replace(done, bytes_after=0)] == planned
    assert len(parts(tmp_path)) == 1
    assert done.bytes_after == parts(tmp_path)[0].stat().st_size
    assert state(tmp_path) == before
    assert compacting(tmp_path) == []


def test_a_pipeline_goes_on_behind_it(tmp_path):
    fill(tmp_path, numbered(3))
    compacting(tmp_path)
    backend = opened(tmp_path)

    def go_on():
        checkpoint = backend.claim(FLOW)
        assert checkpoint.seq == 3
        backend.commit(replace(delivery(4, 4, checkpoint.epoch), table=pa.table({"n": [99]})))

    doing(backend, go_on)
    assert [row["n"] for row in state(tmp_path)[0]] == [*range(9), 99]
    compacting(tmp_path)
    assert [row["n"] for row in state(tmp_path)[0]] == [*range(9), 99]
    assert len(parts(tmp_path)) == 1


def test_only_what_fits_together_is_merged(tmp_path):
    tables = [*numbered(2), pa.table({"n": ["x"]}), pa.table({"n": ["y"]}), pa.table({"n": [1]})]
    fill(tmp_path, tables)
    before = state(tmp_path)[1:]
    done = compacting(tmp_path)
    assert [step.files_before for step in done] == [2, 2]
    assert [list(pa.parquet.read_schema(path).types) for path in parts(tmp_path)] == [
        [pa.int64()],
        [pa.string()],
        [pa.int64()],
    ]
    assert state(tmp_path)[1:] == before


def test_rows_keep_their_order_where_the_clock_stood_still(tmp_path, monkeypatch):
    monkeypatch.setattr(_object_store_flow, "_now", lambda: "2026-01-02T00:00:00+00:00")
    other = pa.table({"m": [1]})
    fill(tmp_path, [*numbered(2), other, *numbered(2), pa.table({"n": ["x"]})])
    before = state(tmp_path)
    assert [step.files_before for step in compacting(tmp_path)] == [2, 2]
    assert state(tmp_path) == before
    fill(tmp_path, [pa.table({"n": ["y"]})], first=7)
    rows = state(tmp_path)[0]
    compacting(tmp_path)
    assert state(tmp_path)[0] == rows


def test_each_folder_has_its_own(tmp_path):
    fill(tmp_path, [pa.table({"day": ["a", "b"], "n": [n, n + 1]}) for n in (0, 2, 4)], partition_by=["day"])
    compacting(tmp_path, partition_by=["day"])
    assert [path.parent.name for path in parts(tmp_path)] == ["day=a", "day=b"]
    assert sorted((row["n"], row["day"]) for row in state(tmp_path)[0]) == [
        (n, "b" if n % 2 else "a") for n in range(6)
    ]


def test_values_of_folders_keep_their_types(tmp_path):
    tables = [pa.table({"code": [code], "n": [n]}) for n, code in enumerate([1, 1, "1", "1"])]
    fill(tmp_path, tables, partition_by=["code"])
    before = state(tmp_path)
    assert [step.files_before for step in compacting(tmp_path)] == [2, 2]
    assert [row["code"] for row in state(tmp_path)[0]] == [1, 1, "1", "1"]
    assert state(tmp_path) == before


def test_a_query_that_has_begun_reads_on(tmp_path, monkeypatch):
    fill(tmp_path, numbered(4))
    real, merged = RangeFile.readinto, []

    def readinto(self, buffer):
        if not merged:
            merged.append(None)
            merged[:] = compacting(tmp_path)
        return real(self, buffer)

    monkeypatch.setattr(RangeFile, "readinto", readinto)
    backend = opened(tmp_path)
    rows = doing(backend, lambda: backend.select(everything()))
    assert [row["n"] for row in rows] == list(range(12))
    assert len(merged) == 1
    parts(tmp_path)[0].unlink()
    with pytest.raises(FatalError, match="part-.* cannot be read .*it holds 12 rows"):
        state(tmp_path)


def test_objects_become_as_large_as_wanted(tmp_path):
    fill(tmp_path, numbered(12))
    size = parts(tmp_path)[0].stat().st_size
    done = compacting(tmp_path, target=4 * size + 10)
    assert [step.files_before for step in done] == [4, 4, 4]
    assert compacting(tmp_path, target=size) == []


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_lines(tmp_path, form, compression):
    rows = {"form": form, "settings": {"format": form, "compression": compression}}
    tables = [pa.table({"n": [n, None], "t": ["a\nb", f'"{n}",']}) for n in range(4)]
    fill(tmp_path, tables, **rows["settings"])
    fill(tmp_path / "at-once", [pa.concat_tables(tables)], **rows["settings"])
    compacting(tmp_path, **rows["settings"])
    found = [
        pa.CompressedInputStream(str(path), compression).read()
        if compression != "none"
        else path.read_bytes()
        for path in (*parts(tmp_path / "at-once"), *(p for p in parts(tmp_path) if "at-once" not in str(p)))
    ]
    assert len(found) == 2
    assert found[0] == found[1]


def test_csv_that_was_changed_by_others_stays_as_it_is(tmp_path):
    fill(tmp_path, numbered(3), format="csv")
    parts(tmp_path)[1].write_bytes(gzip.compress(b'"m"\n1\n2\n3\n4\n5\n6\n')[:-1] + b"\0")
    with pytest.raises(Exception, match=r"part-"):
        compacting(tmp_path, format="csv")
    assert len(parts(tmp_path)) == 3


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_lines_that_are_not_as_the_log_says_stay_as_they_are(tmp_path, form, compression):
    """One row is two, in an object of the same size as before."""
    fill(tmp_path, [pa.table({"n": ["a" * 40, "b"]})] * 3, format=form, compression=compression)
    victim = parts(tmp_path)[1]
    whole = victim.read_bytes()
    plain = gzip.decompress(whole) if compression == "gzip" else whole
    other = plain.replace(b"aaaaaaaa", b'a"\n"aaaa' if form == "csv" else b'"}\n{"n":"', 1)
    content = gzip.compress(other) if compression == "gzip" else other
    victim.write_bytes(content + whole[len(content) :])
    with pytest.raises(FatalError, match=r"part-.* cannot be merged \(.*restore it"):
        compacting(tmp_path, format=form, compression=compression)
    assert len(parts(tmp_path)) == 3
    assert not [path for path in (tmp_path / "_collectors/intent").rglob("*") if path.is_file()]


def test_rows_that_were_written_wrongly_are_noticed(tmp_path, monkeypatch):
    fill(tmp_path, numbered(3))
    before, real = state(tmp_path), PartFile.add
    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "add", lambda self, table: real(self, pa.table({"n": [7] * table.num_rows})))
        with pytest.raises(FatalError, match="does not have the rows that were written to it"):
            compacting(tmp_path)
    assert state(tmp_path)[:3] == before[:3]
    assert len(parts(tmp_path)) == 3


def test_a_store_that_is_away_while_it_reads_is_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    fill(tmp_path, numbered(3))
    real = RangeFile.readinto
    for moment in itertools.count(1):
        calls = itertools.count(1)

        def readinto(self, buffer, moment=moment, calls=calls):
            if next(calls) >= moment:
                raise TransientError("cannot read it now: the store is away")
            return real(self, buffer)

        with monkeypatch.context() as patch:
            patch.setattr(RangeFile, "readinto", readinto)
            try:
                compacting(tmp_path)
            except TransientError as error:
                told = str(error)
            else:
                break
        assert told.startswith("cannot read it now: the store is away"), moment
        assert len(parts(tmp_path)) == 3
    assert moment > 10
    assert len(parts(tmp_path)) == 1


def test_what_a_run_has_stored_is_counted_behind_a_compaction(tmp_path):
    """The entry of a compaction that stands between those of a run is none of it."""
    fill(tmp_path, numbered(70))
    before = state(tmp_path)
    compacting(tmp_path)
    fill(tmp_path, [pa.table({"n": [300]})], first=71)
    compacting(tmp_path)
    counts = state(tmp_path)[2]
    assert counts[FLOW].stored == before[2][FLOW].stored + 3


def test_what_was_merged_cannot_be_deleted_by_its_location(tmp_path):
    fill(tmp_path, numbered(3))
    compacting(tmp_path)
    backend = opened(tmp_path)
    for seq in (1, 3):
        with pytest.raises(FatalError, match="merged"):
            doing(backend, lambda seq=seq: backend.remove(f"{FLOW}:{seq}"))
    assert len(state(tmp_path)[0]) == 9


class KilledError(BaseException):
    pass


CALLS = ["put", "put_new", "upload", "delete", "get", "range", "names", "first", "folders"]


def failing_at(monkeypatch, moment, *, behind):
    """Make one call to the store fail, or its answer get lost, and all that come later fail as well."""
    calls = itertools.count(1)

    def wrapped(call):
        def request(self, *args):
            number = next(calls)
            if number > moment or (number == moment and not behind):
                raise KilledError
            result = call(self, *args)
            if number == moment:
                raise KilledError
            return result

        return request

    for name in CALLS:
        monkeypatch.setattr(Objects, name, wrapped(getattr(Objects, name)))


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
def test_killed_at_every_request(tmp_path, monkeypatch, behind):
    for moment in itertools.count(1):
        folder = tmp_path / str(moment)
        fill(folder, numbered(3, rows=2))
        before = state(folder)
        with monkeypatch.context() as patch:
            failing_at(patch, moment, behind=behind)
            try:
                compacting(folder)
            except KilledError:
                killed = True
            else:
                killed = False
        assert state(folder) == before, moment
        compacting(folder)
        compacting(folder)
        assert state(folder) == before, moment
        assert len(parts(folder)) == 1, (moment, parts(folder))
        if not killed:
            break
    assert moment > 15


def test_two_at_once(tmp_path):
    """The one that was overtaken stops, and nothing is lost or doubled."""
    fill(tmp_path, [*numbered(2), pa.table({"n": ["x"]}), pa.table({"n": ["y"]})])
    first, second = opened(tmp_path), opened(tmp_path)

    def overtake(_):
        doing(second, lambda: second.compact("contract", 2**20, lambda _: None, dry_run=False))

    with pytest.raises(FencedError, match="another process"):
        doing(first, lambda: first.compact("contract", 2**20, overtake, dry_run=False))
    assert len(parts(tmp_path)) == 2


def test_objects_that_the_log_has_and_nobody_else(tmp_path):
    fill(tmp_path, numbered(3))
    parts(tmp_path)[1].unlink()
    for dry_run in (True, False):
        with pytest.raises(FatalError, match=r"part-.* cannot be merged \(.*restore it"):
            compacting(tmp_path, dry_run=dry_run)


def test_an_owner_that_still_writes_is_fenced(tmp_path):
    fill(tmp_path, numbered(2))
    backend = opened(tmp_path)

    def write():
        epoch = backend.claim(FLOW).epoch
        compacting(tmp_path)
        with pytest.raises(FencedError):
            backend.commit(replace(delivery(3, 3, epoch), table=pa.table({"n": [9]})))

    doing(backend, write)
    assert [row["n"] for row in state(tmp_path)[0]] == list(range(6))


PIPELINE = """
name: contract
sources: [{{type: stdin, id: source}}]
storage: [{{type: {type}, {where}: "{place}"}}]
"""


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lake = tmp_path / "lake"
    fill(lake, numbered(3))
    (tmp_path / "p.yaml").write_text(PIPELINE.format(type="object_store", where="url", place=lake.as_uri()))
    (tmp_path / "q.yaml").write_text(PIPELINE.format(type="sqlite", where="path", place="x.db"))

    def told(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["compact", *arguments])
        output = capsys.readouterr()
        return ended.value.code or 0, output.out + output.err

    assert "3 files → 1, 9 rows, planned" in told("p.yaml", "--dry-run")[1]
    assert len(parts(lake)) == 3
    assert "3 files → 1, 9 rows, " in told("p.yaml")[1]
    assert told("p.yaml") == (0, "storage object_store: there is nothing to merge\n")
    assert told("p.yaml", "--json") == (0, "")
    assert told("q.yaml")[0] == 2
    assert told("p.yaml", "--storage", "x")[0] == 2
    assert "--target-size" in told("p.yaml", "--target-size", "big")[1]
