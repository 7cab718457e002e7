"""The object store source where stores and networks fail: nothing is lost silently, and nothing comes twice."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager
from functools import partial

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from _s3_answers import ERROR, Answers

from collectors import registry
from collectors.collection.sources import _object_reading
from collectors.collection.sources._object_bucket import Bucket
from collectors.collection.sources.object_store import ObjectStoreSource
from collectors.errors import FatalError, TransientError
from collectors.testing.proxy import Proxy
from collectors.testing.s3_server import S3Server


def lines(ids):
    return b"".join(b'{"id": %d}\n' % each for each in ids)


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def parquet(ids):
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": list(ids)}), sink, row_group_size=50, compression="none")
    return sink.getvalue()


@pytest.fixture
def answers():
    with Answers() as answers:
        yield answers


def make(settings, **options):
    source = ObjectStoreSource(**{"format": "ndjson", "chunk_size": 100, **settings, **options})
    source.framing = registry.create("codec", source.data_format, {})
    source.told = []
    source.tell = source.told.append
    return source


async def stream(source, since=None, *, each=lambda chunks: None):
    chunks = []
    await source.connect()
    try:
        async for chunk in source.stream(since):
            chunks.append(chunk)
            each(chunks)
        return chunks
    finally:
        await source.disconnect()


def run(settings, since=None, **options):
    return asyncio.run(stream(make(settings, **options), since))


def last_of(seen, chunks):
    seen.append(chunks[-1])


def ids_of(chunks):
    found = []
    for chunk in chunks:
        if chunk.data_format != "rejected":
            table = registry.create("codec", chunk.data_format, {}).decode(chunk.raw_data).table
            found += table["id"].to_pylist() if table.num_rows else []
    return found


def raw(chunks):
    return b"".join(chunk.raw_data for chunk in chunks)


def refused(chunks):
    return [
        (chunk.metadata["path"], chunk.metadata["reason"])
        for chunk in chunks
        if chunk.data_format == "rejected"
    ]


def small_ranges(monkeypatch, size=1000):
    monkeypatch.setattr(_object_reading, "RANGE_BYTES", size)
    monkeypatch.setattr(_object_reading, "SMALL_BYTES", size // 4)


@pytest.mark.parametrize("order", ["name", "time"])
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("conditions", [False, True])
def test_an_object_that_is_replaced_while_half_read_is_told_and_read_anew(
    answers, monkeypatch, order, restarted, conditions
):
    """Also by a store that does not look at If-Match."""
    small_ranges(monkeypatch)
    answers.conditions = conditions
    answers.objects = {"a": lines(range(500)), "b": lines(range(500, 510))}
    new = lines(range(1000, 1100))
    if restarted:
        first = run(answers.settings, order=order)[:7]
        answers.objects["a"] = new
        chunks = first + run(answers.settings, json.loads(json.dumps(first[-1].position)), order=order)
    else:

        def each(chunks):
            if len(chunks) == 7:
                answers.objects["a"] = new

        chunks = asyncio.run(stream(make(answers.settings, order=order), each=each))
    ids = ids_of(chunks)
    ((path, reason),) = refused(chunks)
    old = [each for each in ids if each < 500]
    offset = len(lines(old))
    assert path == "s3://b/a"
    assert reason == (
        f"s3://b/a was replaced by another one while it was being read; what it had behind byte {offset} is lost"
    )
    assert old == list(range(len(old)))
    assert 0 < len(old) < 500
    assert sorted(ids[len(old) :]) == [*range(500, 510), *range(1000, 1100)]
    for number, chunk in enumerate(chunks):
        if chunk.data_format == "rejected":
            rest = run(answers.settings, json.loads(json.dumps(chunk.position)), order=order)
            assert Counter(ids_of(chunks[: number + 1] + rest)) == Counter(ids)


@pytest.mark.parametrize("order", ["name", "time"])
def test_an_object_that_is_deleted_while_half_read_is_told(answers, monkeypatch, order):
    small_ranges(monkeypatch)
    answers.objects = {"a": lines(range(500)), "b": lines(range(500, 510))}
    first = run(answers.settings, order=order)[:7]
    del answers.objects["a"]
    rest = run(answers.settings, first[-1].position, order=order)
    assert ids_of(rest) == list(range(500, 510))
    ((path, reason),) = refused(rest)
    assert (path, reason[:47]) == ("s3://b/a", "s3://b/a was deleted while it was being read; w")
    source = make(answers.settings, order=order)
    assert source.replay(None, rest[0].position).metadata["reason"] == reason


@pytest.mark.parametrize("order", ["name", "time"])
@pytest.mark.parametrize("replaced", [False, True])
def test_an_object_that_changes_between_the_listing_and_the_reading(answers, order, replaced):
    answers.objects = {"a": lines([1]), "b": lines([2]), "c": lines([3])}

    def instead(method, key, count):
        if key == "b" and replaced:
            answers.objects["b"] = lines([20])
        elif key == "b":
            answers.objects.pop("b", None)

    answers.instead = instead
    source = make(answers.settings, order=order)
    chunks = asyncio.run(stream(source))
    assert refused(chunks) == []
    assert sorted(ids_of(chunks)) == ([1, 3, 20] if replaced else [1, 3])
    assert source.told == ([] if replaced else ["s3://b/b was deleted before it could be read"])


@pytest.mark.parametrize("order", ["name", "time"])
def test_an_object_that_is_always_another_one_is_left_for_later(answers, order):
    answers.objects = {"a": lines([1])}
    answers.instead = lambda method, key, count: answers.objects.update(a=lines([count]))
    with pytest.raises(TransientError, match="replaced again and again"):
        run(answers.settings, order=order)


@pytest.mark.parametrize("tag", [lambda key: None, lambda key: 'W/"weak"'], ids=["none", "weak"])
def test_stores_without_strong_tags_are_read_too(answers, monkeypatch, tag):
    small_ranges(monkeypatch)
    answers.tag = tag
    answers.objects = {"a": lines(range(300))}
    chunks = run(answers.settings)
    assert ids_of(chunks) == list(range(300))
    assert {match for *_, match in answers.asked} == {None}
    assert ids_of(chunks[:5] + run(answers.settings, chunks[4].position)) == list(range(300))


def test_every_range_is_asked_for_under_the_condition_that_the_object_is_the_same(answers, monkeypatch):
    small_ranges(monkeypatch)
    answers.objects = {"a": lines(range(300))}
    run(answers.settings)
    gets = sorted((part, match) for method, key, part, match in answers.asked if key == "a")
    assert [part for part, _ in gets] == [
        "bytes=0-999",
        "bytes=1000-1999",
        "bytes=2000-2999",
        "bytes=3000-3489",
    ]
    assert {match for _, match in gets} == {answers.tag("a")}


@pytest.mark.parametrize(
    ("status", "code", "error", "message"),
    [
        (
            403,
            "AccessDenied",
            FatalError,
            r"cannot read s3://b/b: 403 Forbidden \(AccessDenied: No\.\); these cred",
        ),
        (401, "Unauthorized", FatalError, r"cannot read s3://b/b: 401 .*these credentials may not"),
        (400, "ExpiredToken", FatalError, r"cannot read s3://b/b: 400 Bad Request \(ExpiredToken: No\.\)"),
        (301, "PermanentRedirect", FatalError, r"cannot read s3://b/b: .*incorrectly configured region"),
        (
            503,
            "SlowDown",
            TransientError,
            r"cannot read s3://b/b now: 503 Service Unavailable \(SlowDown: No\.\)",
        ),
        (500, "InternalError", TransientError, r"cannot read s3://b/b now: 500"),
        (429, "TooManyRequests", TransientError, r"cannot read s3://b/b now: 429"),
    ],
)
def test_what_a_store_refuses_is_said_and_what_came_before_is_kept(answers, status, code, error, message):
    answers.objects = {"a": lines([1]), "b": lines([2])}
    answers.instead = lambda method, key, count: (
        (status, {}, ERROR.format(code, "No.").encode()) if key == "b" else None
    )
    seen = []
    with pytest.raises(error, match=message):
        asyncio.run(stream(make(answers.settings), each=lambda chunks: seen.append(chunks[-1])))
    assert ids_of(seen) == [1]
    answers.instead = lambda method, key, count: None
    assert ids_of(run(answers.settings, seen[-1].position)) == [2]


def test_what_a_store_refuses_in_passing_is_asked_for_again_at_once(answers):
    answers.objects = {"a": lines([1])}
    answers.instead = lambda method, key, count: (503, {}, b"") if count in {1, 3} else None
    assert ids_of(run(answers.settings)) == [1]


def test_a_range_that_is_short_is_no_end(answers):
    answers.objects = {"a": lines(range(100))}

    def instead(method, key, count):
        if key == "a":
            body = answers.objects["a"][:50]
            about = {"ETag": answers.tag("a"), "Last-Modified": "Sun, 29 Nov 2026 10:00:00 GMT"}
            return 206, {**about, "Content-Range": f"bytes 0-49/{len(answers.objects['a'])}"}, body
        return None

    answers.instead = instead
    with pytest.raises(TransientError, match="s3://b/a"):
        run(answers.settings)


def test_a_store_that_lists_in_another_order_is_refused(answers):
    answers.objects = {"a": lines([1]), "b": lines([2])}
    answers.listed = lambda keys: sorted(keys, reverse=True)
    with pytest.raises(
        FatalError, match="lists 'a' behind 'b', so it does not list in the order of names; set `ord"
    ):
        run(answers.settings)
    assert ids_of(run(answers.settings, order="time")) == [1, 2]


def test_markers_of_folders_are_no_objects(answers):
    answers.objects = {"f/": b"", "f/a": lines([1]), "f/b/": b"", "f/b/c": lines([2])}
    assert ids_of(run(answers.settings)) == [1, 2]


def test_a_name_that_the_library_cannot_have_is_said(answers):
    answers.objects = {"a//b": lines([1])}
    with pytest.raises(FatalError, match="cannot read s3://b/: .*a//b"):
        run(answers.settings)


@pytest.mark.parametrize("kind", ["ndjson", "parquet", "json"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
def test_what_is_damaged_is_refused_with_its_name_and_the_next_goes_on(answers, kind, damage, compress):
    content = {
        "ndjson": lines(range(3000)),
        "parquet": parquet(range(3000)),
        "json": json.dumps([{"id": each} for each in range(3000)]).encode(),
    }[kind]
    data = compress(content)
    middle = len(data) // 2
    broken = data[:middle] if damage == "cut" else data[:middle] + b"\xff" * 40 + data[middle + 40 :]
    answers.objects = {"a": broken, "b": content}
    chunks = run(answers.settings, format=kind, chunk_size=4096)
    second = [chunk for chunk in chunks if chunk.metadata["path"] == "s3://b/b"]
    assert ids_of(second) == list(range(3000))
    assert refused(second) == []
    # Without a checksum, as zstd's is by default, damage shows only where it breaks what is compressed.
    if compress is gzip.compress or (damage == "cut" and (compress is zstd or kind == "parquet")):
        assert {path for path, _ in refused(chunks)} == {"s3://b/a"}
    for number in range(0, len(chunks), 1 + len(chunks) // 7):
        rest = run(answers.settings, chunks[number].position, format=kind, chunk_size=4096)
        assert raw(chunks[: number + 1] + rest) == raw(chunks)
        assert len(refused(chunks[: number + 1] + rest)) == len(refused(chunks))


CONTENT = {
    "ndjson": lines(range(400)),
    "csv": b"id\n" + b"".join(b"%d\n" % each for each in range(400)),
    "json": json.dumps([{"id": each} for each in range(400)]).encode(),
    "parquet": parquet(range(400)),
}


@pytest.mark.parametrize("kind", CONTENT)
@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
def test_a_network_that_fails_is_never_taken_for_the_content(answers, monkeypatch, kind, compress):
    """Whichever request fails, the source says so and refuses nothing; read again from its last chunk, all is there once."""
    if kind == "parquet" and compress is not bytes:
        pytest.skip("not read")
    small_ranges(monkeypatch, 200)
    answers.objects = {"a": compress(CONTENT[kind])}
    get, calls, fails = Bucket.get, [], [0]

    def failing(self, found, start, end):
        calls.append(start)
        if len(calls) == fails[0]:
            raise TransientError("cut")
        return get(self, found, start, end)

    monkeypatch.setattr(Bucket, "get", failing)
    chunks = run(answers.settings, format=kind)
    assert ids_of(chunks) == list(range(400))
    for number in range(1, len(calls) + 1):
        calls.clear()
        fails[0] = number
        seen = []
        with pytest.raises(TransientError, match="cut"):
            asyncio.run(stream(make(answers.settings, format=kind), each=partial(last_of, seen)))
        since = seen[-1].position if seen else None
        seen += run(answers.settings, since, format=kind)
        assert refused(seen) == []
        assert ids_of(seen) == list(range(400))


def test_what_is_fetched_ahead_is_bounded(answers, monkeypatch):
    small_ranges(monkeypatch)
    monkeypatch.setattr(_object_reading, "AHEAD_BYTES", 4000)
    data = lines(range(2000))
    answers.objects = {f"{number}": data for number in range(5)}
    fetched, get = [0], Bucket.get

    def counting(self, found, start, end):
        fetched[0] += end - start
        return get(self, found, start, end)

    monkeypatch.setattr(Bucket, "get", counting)
    ahead, handed_on = [], [0]

    def each(chunks):
        handed_on[0] += len(chunks[-1].raw_data)
        ahead.append(fetched[0] - handed_on[0])

    asyncio.run(stream(make(answers.settings), each=each))
    assert max(ahead) <= 4000 + 1000 * (_object_reading.RANGES_AHEAD + 3)
    assert handed_on[0] == 5 * len(data)


PIPELINE = """
name: p
sources:
  - type: object_store
    id: objects
    url: s3://{bucket}/in/
    endpoint: http://127.0.0.1:{port}
    region: us-east-1
    access_key_id: a
    secret_access_key: CANARY
    pattern: "*.{kind}"
    format: ndjson
    chunk_size: 4 KiB
    order: {order}
    {more}
storage:
  - {{type: sqlite, path: out.db, table: readings}}
"""


@contextmanager
def running(folder):
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "collectors", "run", "p.yaml"],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def stored(folder):
    if not (folder / "out.db").exists():
        return []
    with closing(sqlite3.connect(f"file:{folder / 'out.db'}?mode=ro", uri=True, timeout=10)) as database:
        try:
            return [row[0] for row in database.execute("select id from readings")]
        except sqlite3.OperationalError:
            return []


def letters(folder):
    with closing(sqlite3.connect(folder / "out.db")) as database:
        return database.execute("select count(*) from _collectors_dead_letters").fetchone()[0]


def wait_for(condition, seconds=40.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.02)


def fill(server, kind, objects=30, each=1000):
    compress = gzip.compress if kind == "gz" else bytes
    for number in range(objects):
        data = b"".join(
            b'{"id": %d, "text": "%s"}\n' % (n, os.urandom(20).hex().encode())
            for n in range(number * each, number * each + each)
        )
        server.put(f"in/{number:03}.{kind}", compress(data))
    return Counter(range(objects * each))


def write(folder, server, kind="ndjson", order="name", more="", port=None):
    text = PIPELINE.format(bucket=server.bucket, port=port or server.port, kind=kind, order=order, more=more)
    (folder / "p.yaml").write_text(text)


@pytest.mark.parametrize(
    ("kind", "order"), [("gz", "name"), pytest.param("ndjson", "time", marks=pytest.mark.slow)]
)
def test_killed_again_and_again_each_record_is_stored_once(tmp_path, kind, order):
    with S3Server() as server, Proxy("127.0.0.1", server.port) as proxy:
        expected = fill(server, kind)
        write(tmp_path, server, kind, order, port=proxy.port)
        proxy.slows_to(100_000)
        kills = 0
        for more in (1, 4000, 2000):
            goal = len(stored(tmp_path)) + more
            with running(tmp_path) as process:
                wait_for(lambda: process.poll() is not None or len(stored(tmp_path)) >= goal)  # noqa: B023
                kills += process.poll() is None
        proxy.passes()
        with running(tmp_path) as process:
            assert process.wait(timeout=60) == 0, (tmp_path / "log").read_text()
        assert kills >= 2
        assert Counter(stored(tmp_path)) == expected
        assert letters(tmp_path) == 0
        assert "CANARY" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    "fault",
    ["restart", *(pytest.param(each, marks=pytest.mark.slow) for each in ("drops", "refuses", "resets"))],
)
def test_a_store_that_fails_under_load_loses_and_doubles_nothing(tmp_path, fault):
    with S3Server() as server, Proxy("127.0.0.1", server.port) as proxy:
        expected, faults = fill(server, "ndjson", objects=60), 0
        write(tmp_path, server, port=proxy.port)
        proxy.slows_to(200_000)
        with running(tmp_path) as process:
            for step in range(1, 5):
                goal = step * 8_000
                wait_for(lambda: process.poll() is not None or len(stored(tmp_path)) >= goal)  # noqa: B023
                faults += process.poll() is None
                if fault == "restart":
                    server.kill()
                    server.start()
                else:
                    getattr(proxy, fault)()
                    if fault == "resets":
                        met = proxy.connections
                        wait_for(lambda: process.poll() is not None or proxy.connections > met)  # noqa: B023
                    proxy.slows_to(200_000)
            proxy.passes()
            assert process.wait(timeout=60) == 0, (tmp_path / "log").read_text()
        assert faults >= 3
        assert Counter(stored(tmp_path)) == expected
        assert letters(tmp_path) == 0


@pytest.mark.parametrize("order", ["name", "time"])
def test_objects_that_are_written_while_it_polls_are_all_read_once(tmp_path, order):
    """By time they come in any order of names; killed and started again meanwhile."""
    with S3Server() as server:
        write(tmp_path, server, order=order, more="every: 100ms")
        names = [f"{number if order == 'name' else number * 37 % 100:03}" for number in range(100)]
        done = threading.Event()

        def produce():
            for number, name in enumerate(names):
                server.put(f"in/{name}.ndjson", lines(range(number * 10, number * 10 + 10)))
                done.wait(0.02)
            done.set()

        thread = threading.Thread(target=produce)
        thread.start()
        while not done.is_set():
            before = len(stored(tmp_path))
            with running(tmp_path):
                wait_for(lambda: done.is_set() or len(stored(tmp_path)) > before + 100)  # noqa: B023
        thread.join()
        with running(tmp_path):
            wait_for(lambda: len(stored(tmp_path)) >= 1000)
        assert Counter(stored(tmp_path)) == Counter(range(1000))


def test_what_was_lost_with_a_replaced_object_is_in_the_ledger(tmp_path):
    """Killed while the object is half read, and replaced before the next life."""
    with S3Server() as server, Proxy("127.0.0.1", server.port) as proxy:
        write(tmp_path, server, port=proxy.port)
        server.put(
            "in/a.ndjson", b"".join(b'{"id": %d, "text": "%s"}\n' % (n, b"x" * 200) for n in range(100_000))
        )
        proxy.slows_to(3e6)
        with running(tmp_path):
            wait_for(lambda: len(stored(tmp_path)) > 0)
        before = stored(tmp_path)
        assert len(before) < 100_000
        server.put("in/a.ndjson", lines(range(1_000_000, 1_000_050)))
        proxy.passes()
        with running(tmp_path) as process:
            assert process.wait(timeout=60) == 0, (tmp_path / "log").read_text()
        assert sorted(stored(tmp_path)) == [*range(len(before)), *range(1_000_000, 1_000_050)]
        assert letters(tmp_path) == 1


def test_many_small_objects(answers, figure, full):
    """A store 20 ms away would take 20 ms for each of them, one after the other."""
    count = 10_000 if full else 2000
    answers.objects = {f"in/{number:05}.ndjson": lines([number]) for number in range(count)}
    process = psutil.Process()
    for order in ("name", "time"):
        before, peak, began = process.memory_info().rss, [0], time.monotonic()
        ids = []

        async def read(source, ids=ids, peak=peak):
            await source.connect()
            async for chunk in source.stream(None):
                ids += ids_of([chunk])
                if len(ids) % 200 == 0:
                    peak[0] = max(peak[0], process.memory_info().rss)
            await source.disconnect()

        asyncio.run(read(make(answers.settings, order=order)))
        assert ids == list(range(count))
        assert peak[0] - before < 64 * 2**20
        figure(
            "object_store_small_objects",
            order=order,
            objects=count,
            seconds=round(time.monotonic() - began, 2),
            more_megabytes=round((peak[0] - before) / 2**20, 1),
        )


def test_objects_are_fetched_at_the_same_time(answers):
    """Each answer takes 20 ms; 64 objects take far less than 64 times that."""
    answers.objects = {f"{number:05}": lines([number]) for number in range(64)}
    under_way, most = [0], [0]
    pause, lock = threading.Event(), threading.Lock()

    def instead(method, key, count):
        if key:
            with lock:
                under_way[0] += 1
                most[0] = max(most[0], under_way[0])
            pause.wait(0.02)
            with lock:
                under_way[0] -= 1

    answers.instead = instead
    assert ids_of(run(answers.settings)) == list(range(64))
    assert 4 <= most[0] <= 16
