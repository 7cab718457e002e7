"""The object store source against a server that speaks S3, and in a folder: formats, orders, positions, settings."""

from __future__ import annotations

import asyncio
import gzip
import importlib.metadata
import io
import json
import os
import sys
import tempfile
from contextlib import asynccontextmanager
from email.message import Message
from itertools import count
from pathlib import Path

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import MemoryStore

from collectors import object_stores, registry
from collectors.collection.sources import _object_orders, _object_reading
from collectors.collection.sources._object_bucket import Bucket
from collectors.collection.sources.object_store import ObjectStoreConfig, ObjectStoreSource
from collectors.errors import ConfigurationError, FatalError, TransientError
from collectors.testing.s3_server import S3Server
from collectors.testing.source_contract import SourceContract


def lines(ids):
    return b"".join(b'{"id": %d}\n' % each for each in ids)


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def parquet(ids):
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": ids}), sink, row_group_size=7)
    return sink.getvalue()


def arrow(ids):
    sink = io.BytesIO()
    table = pa.table({"id": ids})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return sink.getvalue()


def csv(ids):
    return b"id,text\n" + b"".join(b'%d,"two\nlines"\n' % each for each in ids)


def document(ids):
    return json.dumps([{"id": each} for each in ids]).encode()


@pytest.fixture(scope="module", autouse=True)
def server():
    list(
        obstore.list(MemoryStore())
    )  # the library's own threads and descriptors: once in a process, then they stay
    with S3Server() as server:
        _Contract.server = server
        yield server


@pytest.fixture
def folder(server, request):
    """A folder of the bucket for this test alone."""
    return f"{abs(hash(request.node.nodeid))}/"


async def chunks_of(source, since=None):
    await source.connect()
    try:
        return [chunk async for chunk in source.stream(since)]
    finally:
        await source.disconnect()


def set_time(path, seconds):
    os.utime(path, (seconds, seconds))


def make(settings, told=None, **options):
    source = ObjectStoreSource(**{**settings, **options})
    if told is not None:
        source.tell = told.append
    spec = source.format()
    kind, rest = (spec, {}) if isinstance(spec, str) else (spec["type"], {**spec})
    rest.pop("type", None)
    source.framing = registry.create("codec", kind, rest)
    return source


def run(settings, since=None, told=None, **options):
    return asyncio.run(chunks_of(make(settings, told, **options), since))


def sound(chunks):
    return b"".join(chunk.raw_data for chunk in chunks if chunk.data_format != "rejected")


def reasons(chunks):
    return [chunk.metadata["reason"] for chunk in chunks if chunk.data_format == "rejected"]


def local(folder):
    return {"url": f"file://{folder}"}


_numbers = count()


class _Contract(SourceContract):
    options = {}
    objects = staticmethod(lambda ids: {"a.ndjson": lines(ids)})

    @asynccontextmanager
    async def rig(self, ids):
        folder = f"{type(self).__name__}/{next(_numbers)}/"
        for name, data in self.objects(ids).items():
            self.server.put(folder + name, data)
        yield {**self.server.settings(folder), "chunk_size": 64, **self.options}


def in_many(ids):
    return {f"{start:03}.ndjson": lines(ids[start : start + 7]) for start in range(0, len(ids), 7)}


class TestOneObject(_Contract):
    component = "object_store"
    options = {"pattern": "*.ndjson"}


class TestManyByName(_Contract):
    component = "object_store"
    options = {"pattern": "**/*.ndjson"}
    objects = staticmethod(in_many)


class TestManyByTime(_Contract):
    component = "object_store"
    options = {"pattern": "*.ndjson", "order": "time"}
    objects = staticmethod(in_many)


class TestManyOfAFolderByName(SourceContract):
    component = "object_store"
    options = {"pattern": "*.ndjson"}

    @asynccontextmanager
    async def rig(self, ids):
        with tempfile.TemporaryDirectory() as folder:
            for name, data in in_many(ids).items():
                Path(folder, name).write_bytes(data)
            yield {**local(folder), "chunk_size": 32, **self.options}


class TestManyOfAFolderByTime(TestManyOfAFolderByName):
    component = "object_store"
    options = {"pattern": "*.ndjson", "order": "time"}


class TestGzip(_Contract):
    component = "object_store"
    options = {"pattern": "*.ndjson.gz"}
    objects = staticmethod(
        lambda ids: {"a.ndjson.gz": gzip.compress(lines(ids[:20])) + gzip.compress(lines(ids[20:]))}
    )


class TestZstd(_Contract):
    component = "object_store"
    options = {"pattern": "*.zst", "format": "ndjson"}
    objects = staticmethod(lambda ids: {"a.zst": zstd(lines(ids))})


class TestCsv(_Contract):
    component = "object_store"
    options = {"pattern": "*.csv"}
    objects = staticmethod(lambda ids: {"a.csv": csv(ids[:20]), "b.csv": csv(ids[20:])})


class TestParquet(_Contract):
    component = "object_store"
    options = {"pattern": "*.parquet"}
    objects = staticmethod(lambda ids: {"a.parquet": parquet(ids[:20]), "b.parquet": parquet(ids[20:])})


class TestArrow(_Contract):
    component = "object_store"
    options = {"pattern": "*.arrow"}
    objects = staticmethod(lambda ids: {"a.arrow": arrow(ids)})


class TestJson(_Contract):
    component = "object_store"
    options = {"pattern": "*.json"}
    objects = staticmethod(lambda ids: {"a.json": document(ids[:20]), "b.json": document(ids[20:])})


PLAIN = {
    "ndjson": lines,
    "csv": csv,
    "json": document,
    "lines": lambda ids: b"".join(b"%d\n" % each for each in ids),
    "parquet": parquet,
    "arrow": arrow,
    "syslog": lambda ids: b"".join(b"<13>1 2026-11-29T10:00:00Z host app %d - - hello\n" % i for i in ids),
}
COMPRESS = {"none": bytes, "gzip": gzip.compress, "zstd": zstd}


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("seen", ["auto", "said"])
def test_all_formats_in_all_compressions(server, folder, kind, compression, seen):
    """From every position the rest is read; formats that are compressed in themselves say that they are not read so."""
    ids = list(range(1, 41))
    content = PLAIN[kind](ids)
    server.put(f"{folder}x", COMPRESS[compression](content))
    settings = {**server.settings(folder), "format": kind, "chunk_size": len(content) // 6}
    if seen == "said":
        settings["compression"] = compression
    chunks = run(settings)
    if kind in {"parquet", "arrow"} and compression != "none":
        assert reasons(chunks)
        assert sound(chunks) == b""
        return
    assert reasons(chunks) == []
    records = rows(chunks, kind)
    assert len(records) == 40
    for number, chunk in enumerate(chunks):
        since = json.loads(json.dumps(chunk.position))
        assert rows(chunks[: number + 1], kind) + rows(run(settings, since), kind) == records


def rows(chunks, kind):
    found = []
    for chunk in chunks:
        codec = registry.create("codec", "arrow" if chunk.data_format == "arrow" else kind, {})
        found += codec.decode(chunk.raw_data).table.to_pylist()
    return found


@pytest.mark.parametrize(
    ("name", "codec"),
    [("*.jsonl.gz", "ndjson"), ("2026/*.csv.zst", "csv"), ("a.log", "lines"), ("**/*.feather", "arrow")],
)
def test_the_format_follows_from_the_pattern(name, codec):
    assert make({"url": "file:///x", "pattern": name}).format() == codec


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**", ["a.x", "b/a.x", "b/b.x", "b/c/[d].x", "e+.y"]),
        ("*", ["a.x", "e+.y"]),
        ("*.x", ["a.x"]),
        ("**/*.x", ["a.x", "b/a.x", "b/b.x", "b/c/[d].x"]),
        ("b/**", ["b/a.x", "b/b.x", "b/c/[d].x"]),
        ("b/?.x", ["b/a.x", "b/b.x"]),
        ("b/[!a].x", ["b/b.x"]),
        ("b/[a-b].x", ["b/a.x", "b/b.x"]),
        ("b/c/[[]d].x", ["b/c/[d].x"]),
        ("e+.y", ["e+.y"]),
    ],
)
def test_patterns(server, folder, pattern, found):
    for key in ("a.x", "b/a.x", "b/b.x", "b/c/[d].x", "e+.y"):
        server.put(f"{folder}{key}", b"%s\n" % key.encode())
    server.put(f"{folder[:-1]}-beside/a.x", b"no\n")
    chunks = run(server.settings(folder), pattern=pattern, format="lines")
    assert sound(chunks).decode().split() == found


@pytest.mark.parametrize("where", ["s3", "file"])
def test_names_with_all_kinds_of_characters(server, folder, where):
    names = ["a b.x", "a%2Fb.x", "ü.x", "日本.x", "a#?&=.x", "😀.x", "~.x", "a+b.x"]
    for name in names:
        path = server.put(f"{folder}{name}", b"%s\n" % name.encode())
    settings = {**(server.settings(folder) if where == "s3" else local(path.parent)), "format": "lines"}
    chunks = run(settings)
    assert sound(chunks).decode().splitlines() == sorted(names)
    for number, chunk in enumerate(chunks):
        rest = run(settings, chunk.position)
        assert sound(rest).decode().splitlines() == sorted(names)[number + 1 :]


@pytest.mark.parametrize("where", ["s3", "file"])
def test_a_large_object_is_read_in_ranges_and_resumed_in_each(server, folder, tmp_path, monkeypatch, where):
    monkeypatch.setattr(_object_reading, "RANGE_BYTES", 10_000)
    monkeypatch.setattr(_object_reading, "SMALL_BYTES", 3000)
    asked = []
    get = Bucket.get
    monkeypatch.setattr(
        Bucket,
        "get",
        lambda self, found, start, end: asked.append(end - start) or get(self, found, start, end),
    )
    data = b"".join(b'{"id": %d, "text": "%s"}\n' % (n, b"x" * (n % 97)) for n in range(2000))
    path = server.put(f"{folder}a.ndjson", data)
    settings = server.settings(folder) if where == "s3" else local(path.parent)
    for chunk_size in (3000, 10_000, 64_000):
        chunks = run(settings, pattern="*.ndjson", chunk_size=chunk_size)
        assert sound(chunks) == data
        assert max(asked) <= 10_000
        assert sum(asked) < len(data) + 40_000
        asked.clear()
        for number in range(0, len(chunks), max(1, len(chunks) // 6)):
            rest = run(settings, chunks[number].position, pattern="*.ndjson", chunk_size=chunk_size)
            assert sound(chunks[: number + 1]) + sound(rest) == data
        asked.clear()


@pytest.mark.parametrize("write", [parquet, arrow])
def test_a_large_table_is_read_in_ranges(server, folder, monkeypatch, write):
    monkeypatch.setattr(_object_reading, "RANGE_BYTES", 2000)
    monkeypatch.setattr(_object_reading, "SMALL_BYTES", 500)
    ids = list(range(3000))
    server.put(f"{folder}a", write(ids))
    settings = {**server.settings(folder), "format": write.__name__}
    chunks = run(settings)
    assert [row["id"] for row in rows(chunks, "")] == ids
    middle = len(chunks) // 2
    assert [
        row["id"] for row in rows(chunks[:middle] + run(settings, chunks[middle - 1].position), "")
    ] == ids


@pytest.mark.parametrize("order", ["name", "time"])
def test_new_objects_are_found_and_old_ones_not_read_again(server, folder, order):
    settings = {**server.settings(folder), "pattern": "*.ndjson", "order": order, "every": 1}
    assert run(settings) == []
    server.put(f"{folder}a.ndjson", b"1\n")
    first = run(settings)
    server.put(f"{folder}b.ndjson", b"2\n")
    server.put(f"{folder}c.ndjson", b"3\n")
    second = run(settings, first[-1].position)
    assert (sound(first), sound(second)) == (b"1\n", b"2\n3\n")
    assert run(settings, second[-1].position) == []


def test_by_time_late_names_and_replaced_objects_are_read_too(server, folder):
    settings = {**server.settings(folder), "pattern": "*.ndjson", "order": "time"}
    for number, name in enumerate(("m", "z", "a")):
        set_time(server.put(f"{folder}{name}.ndjson", b"%d\n" % number), 1000 + number)
    first = run(settings)
    assert sound(first) == b"0\n1\n2\n"
    set_time(server.put(f"{folder}b.ndjson", b"late\n"), 990)
    set_time(server.put(f"{folder}z.ndjson", b"again\n"), 1003)
    second = run(settings, first[-1].position)
    assert sound(second) == b"late\nagain\n"
    assert run(settings, second[-1].position) == []


def test_by_time_what_comes_too_late_is_told_once(server, folder):
    settings = {**server.settings(folder), "pattern": "*.ndjson", "order": "time", "lag": 10}
    for number in range(50):
        set_time(server.put(f"{folder}{number}.ndjson", b"%d\n" % number), 1000 + number)
    told = []
    chunks = run(settings, told=told)
    assert len(chunks) == 50
    assert len(str(chunks[-1].position["window"])) < 1000
    set_time(server.put(f"{folder}late.ndjson", b"late\n"), 1020)
    source = make(settings, told)

    async def twice():
        await source.connect()
        for _ in range(2):
            assert [chunk async for chunk in source.stream(chunks[-1].position)] == []
        await source.disconnect()

    asyncio.run(twice())
    assert "1 objects have come with a time more than `lag` (10 s) before the newest one" in told[0]


def test_by_time_each_position_goes_on_with_pages_and_blocks(tmp_path, monkeypatch):
    """Many objects in one second, small pages, small blocks: none twice, none left out, from wherever."""
    monkeypatch.setattr(_object_orders, "PAGE", 7)
    monkeypatch.setattr(_object_orders, "_BLOCK_LETTERS", 5 * 12)
    settings = {**local(tmp_path), "pattern": "*.ndjson", "order": "time", "lag": 3}
    for number in range(60):
        path = tmp_path / f"{number * 37 % 60:02}.ndjson"
        path.write_bytes(b"%d\n" % number)
        set_time(path, 1000 + number // 9)
    chunks = run(settings)
    everything = sound(chunks).split()
    assert len(everything) == len(set(everything)) == 60
    for number, chunk in enumerate(chunks):
        rest = run(settings, json.loads(json.dumps(chunk.position)))
        assert sound(chunks[: number + 1] + rest).split() == everything


def test_by_time_more_than_can_be_remembered_is_refused(server, folder, monkeypatch):
    monkeypatch.setattr(_object_orders, "REMEMBERED", 20)
    for number in range(21):
        set_time(server.put(f"{folder}{number:02}.ndjson", b"1\n"), 1000)
    settings = {**server.settings(folder), "pattern": "*.ndjson", "order": "time"}
    with pytest.raises(
        FatalError, match="more than 20 objects were written within `lag` \\(60 s\\).*lower `lag`"
    ):
        run(settings)
    set_time(server.folder / folder / "20.ndjson", 1061)
    assert len(run(settings)) == 21


def test_by_name_what_came_late_is_told_where_it_is_seen(tmp_path):
    settings = {**local(tmp_path), "pattern": "*.ndjson"}
    for name in ("b", "c"):
        (tmp_path / f"{name}.ndjson").write_bytes(b"1\n")
    chunks = run(settings)
    (tmp_path / "a.ndjson").write_bytes(b"2\n")
    told = []
    assert run(settings, chunks[-1].position, told) == []
    (line,) = told
    assert line.startswith(
        "1 objects have come with names before 'c.ndjson' and are not read; give new objects names"
    )


def test_the_position_stays_small(server, folder):
    for number in range(300):
        server.put(f"{folder}{number:03}.ndjson", b"1\n")
    chunks = run(server.settings(folder), pattern="*.ndjson")
    assert max(len(json.dumps(chunk.position)) for chunk in chunks) < 500


@pytest.mark.parametrize("order", ["name", "time"])
def test_a_long_listing_can_be_left(tmp_path, monkeypatch, order):
    """A stop does not wait for the end of it: whoever reads gets a turn after each part."""
    monkeypatch.setattr(_object_orders, "_LOOKED_AT", 10)
    for number in range(100):
        (tmp_path / f"{number}.other").write_bytes(b"1\n")
    source = make({**local(tmp_path), "pattern": "*.ndjson", "order": order, "every": 1})

    async def turns():
        rooms = []

        async def make_room(size):
            rooms.append(size)

        source.make_room = make_room
        await source.connect()
        assert [chunk async for chunk in source.stream(None)] == []
        await source.disconnect()
        return rooms

    assert asyncio.run(turns()) == [0] * 10


def test_empty_objects_hold_nothing(server, folder):
    server.put(f"{folder}a.ndjson", b"")
    server.put(f"{folder}b.ndjson", b"1\n")
    server.put(f"{folder}c.ndjson", gzip.compress(b""))
    server.put(f"{folder}d.ndjson", b"2\n")
    assert sound(run(server.settings(folder), pattern="*.ndjson")) == b"1\n2\n"


def test_nothing_that_matches_is_a_mistake_unless_more_may_come(server, folder):
    server.put(f"{folder}a.csv", b"x\n1\n")
    with pytest.raises(
        ConfigurationError, match=r"no object with anything in it matches '\*\.ndjson' in s3://the-b"
    ):
        run(server.settings(folder), pattern="*.ndjson")
    assert run(server.settings(folder), pattern="*.ndjson", every="5s") == []
    assert run(server.settings(folder), pattern="*.ndjson", cron="* * * * *") == []


def test_a_bucket_that_is_not_there_is_named(server):
    settings = {**server.settings(), "url": "s3://another/"}
    with pytest.raises(
        FatalError, match=r"cannot read s3://another/: 404 Not Found \(NoSuchBucket: The specified"
    ):
        run(settings, format="ndjson", every=1)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot open file://.*nothing-here"):
        run(local(tmp_path / "nothing-here"), format="ndjson")


def test_a_server_that_is_away_is_tried_again():
    settings = {
        "url": "s3://b/",
        "endpoint": "http://127.0.0.1:9",
        "access_key_id": "a",
        "secret_access_key": "b",
    }
    with pytest.raises(TransientError, match="cannot read s3://b/ now: .*error sending request"):
        run(settings, format="ndjson")


def test_an_address_of_the_environment_has_tls(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(
        FatalError, match="cannot read s3://b/: an address without TLS, http://, has to be set as"
    ):
        run({"url": "s3://b/", "access_key_id": "a", "secret_access_key": "b"}, format="ndjson")


SECRETS = {"access_key_id": "AKIA-CANARY", "secret_access_key": "s-CANARY", "session_token": "t-CANARY"}


def test_secrets_are_not_shown(server, folder):
    source = make({**server.settings(folder), **SECRETS}, format="ndjson")
    assert "CANARY" not in repr(source.config)
    server.put(f"{folder}a", b"1\n")
    chunks = asyncio.run(chunks_of(source))
    assert "CANARY" not in repr(chunks)
    for url in ("s3://nope/", f"s3://{server.bucket}/none"):
        with pytest.raises((FatalError, ConfigurationError)) as error:
            run({**server.settings(), **SECRETS, "url": url}, format="ndjson")
        assert "CANARY" not in str(error.value)


def test_keys_of_the_settings_are_used_alone(server, folder, monkeypatch):
    """A session token of the environment belongs to other keys."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-others")
    keys = []
    original = object_stores._keys
    monkeypatch.setattr(
        object_stores, "_keys", lambda given: lambda: keys.append(original(given)()) or keys[-1]
    )
    server.put(f"{folder}a", b"1\n")
    assert sound(run(server.settings(folder), format="ndjson")) == b"1\n"
    assert keys[0] == {
        "access_key_id": "tester",
        "secret_access_key": "a-secret",
        "token": None,
        "expires_at": None,
    }


def test_keys_of_the_environment_are_used(server, folder, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    server.put(f"{folder}a", b"1\n")
    settings = {"url": f"s3://{server.bucket}/{folder}", "endpoint": f"http://127.0.0.1:{server.port}"}
    assert sound(run(settings, format="ndjson")) == b"1\n"
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigurationError, match="cannot open s3://the-bucket/.*Missing SecretAccessKey"):
        run(settings, format="ndjson")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert sound(run(settings, format="ndjson", anonymous=True)) == b"1\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://x/y"}, "expected s3://bucket/folder/, gs://"),
        ({"url": "memory:///"}, "expected s3://"),
        ({"url": "s3://"}, "expected the name of a bucket behind s3://"),
        ({"url": "az:///x"}, "expected the name of a container"),
        ({"url": "s3://key:secret@b/"}, "credentials do not belong into the URL"),
        ({"url": "s3://b/?x=1"}, "write \\? and # as"),
        ({"url": "s3://b/a/../c"}, "may not be empty, '.' or '..'"),
        ({"url": "file://host/x"}, "three slashes"),
        ({"url": "s3://b", "pattern": "/a"}, "below the folder"),
        ({"url": "s3://b", "pattern": ""}, "below the folder"),
        ({"url": "s3://b", "format": None}, "cannot tell the format of '\\*\\*' from its name; set `format`"),
        ({"url": "s3://b", "chunk_size": 0}, "more than 0 bytes"),
        ({"url": "s3://b", "max_record": 0}, "more than 0 bytes"),
        ({"url": "s3://b", "order": "size"}, "'name' or 'time'"),
        ({"url": "s3://b", "compression": "lz4"}, "'auto', 'none', 'gzip' or 'zstd'"),
        ({"url": "s3://b", "lag": "-1s"}, "expected a duration"),
        ({"url": "gs://b", "region": "x"}, "region: is for s3:// and means nothing for gs://"),
        ({"url": "s3://b", "account_key": "x"}, "account_key: is for az://"),
        ({"url": "s3://b", "service_account": "x"}, "service_account: is for gs://"),
        ({"url": "file:///x", "endpoint": "http://x"}, "mean nothing for file://"),
        ({"url": "file:///x", "anonymous": True}, "mean nothing for file://"),
        ({"url": "s3://b", "access_key_id": "x"}, "set both or none"),
        ({"url": "s3://b", "session_token": "x"}, "belongs to an access_key_id"),
        (
            {"url": "s3://b", "anonymous": True, "access_key_id": "x", "secret_access_key": "y"},
            "leave the keys",
        ),
        ({"url": "s3://b", "endpoint": "minio:9000"}, "expected https://host:port"),
        ({"url": "s3://b", "endpoint": "https://a:b@minio"}, "without credentials"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ObjectStoreConfig(**{"format": "ndjson"} | settings)


def test_stores_of_all_schemes_are_made(tmp_path):
    """There is no server of theirs to be asked here; the settings are those that the library knows."""
    key = tmp_path / "key.json"
    key.write_text(
        json.dumps(
            {
                "gcs_base_url": "https://localhost:1",
                "disable_oauth": True,
                "client_email": "",
                "private_key": "",
                "private_key_id": "",
            }
        )
    )
    for settings in (
        {"url": "gs://b/x", "service_account": str(key)},
        {"url": "gs://b/x", "anonymous": True, "endpoint": "http://localhost:1"},
        {"url": "az://c/x", "account": "a", "account_key": "aGVsbG8="},
        {"url": "az://c/x", "account": "a", "anonymous": True},
        {"url": "s3://b/x", "anonymous": True},
    ):
        config = ObjectStoreConfig(**settings, format="ndjson")
        assert Bucket(config.place, config).place.folder == "x"
    config = ObjectStoreConfig(url="az://c/x", account="a", account_key="CANARY", format="ndjson")
    with pytest.raises(ConfigurationError, match="cannot open az://c/x: .*Invalid Access Key") as error:
        Bucket(config.place, config)
    assert "CANARY" not in str(error.value)


def test_a_position_of_other_settings_is_refused(server, folder):
    server.put(f"{folder}a", b"1\n")
    position = run(server.settings(folder), format="ndjson")[-1].position
    with pytest.raises(FatalError, match="is one of s3://.* with `order: name`.*another `id` to begin anew"):
        run(server.settings(folder), position, format="ndjson", order="time")
    with pytest.raises(FatalError, match="means nothing for s3://the-bucket"):
        run(server.settings(), position, format="ndjson")


@pytest.mark.parametrize("kind", ["ndjson", "csv", "json", "parquet"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_every_chunk_can_be_read_once_more(server, folder, kind, compression):
    server.put(f"{folder}a", COMPRESS[compression](PLAIN[kind](range(40)) + b"x" * 99 * (kind == "ndjson")))
    settings = {**server.settings(folder), "format": kind, "chunk_size": 60, "max_record": 60}
    chunks = run(settings)
    since = None
    for chunk in chunks:
        again = make(settings).replay(since, json.loads(json.dumps(chunk.position)))
        about = {name: value for name, value in chunk.metadata.items() if name != "size"}
        assert (again.raw_data, again.metadata, again.position) == (chunk.raw_data, about, chunk.position)
        assert again.data_format == chunk.data_format
        since = chunk.position
    server.put(f"{folder}a", b"2\n")
    with pytest.raises(FatalError, match="cannot read 's3://.*/a' once more: it is gone, or another now"):
        make(settings).replay(None, chunks[0].position)


def test_a_missing_library_is_named(monkeypatch):
    """The name of the extra is another in the package's metadata: normalized."""
    about = Message()
    about["Provides-Extra"] = "object-store"
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: about)
    (entry,) = (entry for entry in registry.entries("source") if entry.name == "object_store")
    assert entry.extra == "object_store"
    for name in list(sys.modules):
        if name.startswith(("obstore", "collectors.collection.sources.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'collectors-io\[object_store\]'"):
        registry.find("source", "object_store")
