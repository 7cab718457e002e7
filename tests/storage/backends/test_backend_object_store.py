from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from collectors import registry
from collectors.chunks import ChunkKey, Counts, Delivery
from collectors.errors import DataError, FatalError, TransientError
from collectors.models import QueryCriteria
from collectors.storage.backends._object_store_client import Objects
from collectors.storage.backends.object_store import ObjectStoreBackend, ObjectStoreConfig
from collectors.testing.backend_contract import BackendContract
from collectors.testing.deliveries import delivery, everything
from collectors.testing.s3_server import S3Server


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        objects(server).names(
            ""
        )  # the library's own threads, and what they wait on, stay from the first request on
        yield server


def objects(server: S3Server, folder: str = "") -> Objects:
    config = ObjectStoreConfig(**server.settings(folder))
    return Objects(config.place, config)


@pytest.mark.timeout(400)  # a folder with its log for each of a hundred examples
class TestObjectStore(BackendContract):
    """Against a server that speaks S3; with a bound at which `commit` publishes some deliveries, `flush` others."""

    component = "object_store"
    examples = 8  # the other class has a hundred

    @pytest.fixture(autouse=True)
    def _server(self, server: S3Server) -> None:
        self.server = server

    def settings(self, folder: Path) -> dict[str, Any]:
        return self.server.settings(f"{folder}/lake") | {"max_rows": 4}

    @pytest.mark.slow
    def test_injected_sql_changes_nothing(self, tmp_path: Path) -> None:
        super().test_injected_sql_changes_nothing(tmp_path)

    @pytest.mark.slow
    def test_dying_at_any_moment_loses_and_doubles_nothing(self, tmp_path: Path) -> None:
        super().test_dying_at_any_moment_loses_and_doubles_nothing(tmp_path)


@pytest.mark.timeout(400)
class TestFolder(BackendContract):
    """The same in a folder of this machine."""

    component = "object_store"

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"url": f"file://{folder}/lake", "max_rows": 4}


FLOW = "contract/source"


def run(scenario: Callable[[ObjectStoreBackend], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def main() -> None:
        backend = ObjectStoreBackend(**settings)
        await backend.connect()
        try:
            await scenario(backend)
        finally:
            await backend.disconnect()

    asyncio.run(main())


def chunk(seq: int, table: pa.Table) -> Delivery:
    counts = Counts(read=table.num_rows, stored=table.num_rows)
    return Delivery(ChunkKey(FLOW, 1, seq), seq, table, {"offset": seq}, None, "run", counts)


def data_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet"))


def test_folders_are_named_as_hive_names_them(server: S3Server, tmp_path: Path) -> None:
    names = [
        "../../etc",
        "a/b",
        "..",
        "",
        "a b",
        "é",
        "%41",
        "x=y",
        "__HIVE_DEFAULT_PARTITION__",
        None,
        "\0",
        "~",
    ]
    table = pa.table({"n": range(len(names)), "name": names, "day": [date(2026, 1, 2)] * len(names)})

    async def scenario(backend: ObjectStoreBackend) -> None:
        await backend.store(table)
        found = await backend.query(QueryCriteria({}, "n", None, None))
        assert [row["name"] for row in found] == names
        assert {row["day"] for row in found} == {date(2026, 1, 2)}
        for name in names:
            assert len(await backend.query(QueryCriteria({"name": name}, None, None, None))) == 1
        with pytest.raises(FatalError, match="no column 'name' to partition by; there are: n"):
            await backend.store({"n": 1})
        with pytest.raises(DataError, match=r"row 1.*too long"):
            await backend.store([{"name": "a", "day": 1}, {"name": "é" * 100, "day": 1}])

    run(scenario, **server.settings(tmp_path.name), partition_by=["name", "day"])
    lake = server.folder / tmp_path.name
    assert len(data_files(lake)) == len(names)
    assert all(file.count("/") == 2 and "/day=2026-01-02/" in file for file in data_files(lake))
    by_others = ds.dataset(lake, partitioning="hive", format="parquet", exclude_invalid_files=True).to_table()
    assert sorted(by_others["n"].to_pylist()) == list(range(len(names)))


def test_rows_wait_until_an_object_is_full(server: S3Server, tmp_path: Path) -> None:
    async def scenario(backend: ObjectStoreBackend) -> None:
        await backend.call(backend.claim, FLOW)
        seqs = [await backend.call(backend.commit, delivery(seq, seq)) for seq in range(1, 8)]
        assert seqs == [0, 0, 3, 3, 3, 6, 6]
        assert len(await backend.query(everything())) == 18
        assert (await backend.call(backend.stored, FLOW)).seq == 6
        await backend.call(backend.flush)
        assert (await backend.call(backend.stored, FLOW)).seq == 7
        assert backend.flush_interval() == 300

    run(scenario, **server.settings(tmp_path.name), max_rows=9)


def test_an_object_is_put_at_its_size(tmp_path: Path) -> None:
    table = pa.table({"text": [os.urandom(32).hex() for _ in range(40_000)]})

    async def scenario(backend: ObjectStoreBackend) -> None:
        await backend.call(backend.claim, FLOW)
        seqs = [await backend.call(backend.commit, chunk(seq, table)) for seq in range(1, 8)]
        assert 0 < max(seqs) < 7
        await backend.call(backend.flush)

    run(scenario, url=f"file://{tmp_path}/lake", max_bytes="4 MiB")


def test_many_large_letters_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectors.storage.backends._object_store_flow._LETTER_BYTES", 10)

    async def scenario(backend: ObjectStoreBackend) -> None:
        backend.claim(FLOW)
        assert [backend.commit(delivery(seq, seq, rows=0)) for seq in range(1, 9)] == [0, 0, 0, 4, 4, 4, 4, 8]

    run(scenario, url=f"file://{tmp_path}/lake")


def test_another_schema_begins_another_object(tmp_path: Path) -> None:
    tables = [pa.table({"a": [1]}), pa.table({"a": ["x"]}), pa.table({"a": ["y"], "b": [1.5]})]

    async def scenario(backend: ObjectStoreBackend) -> None:
        backend.claim(FLOW)
        assert [backend.commit(chunk(seq, table)) for seq, table in enumerate(tables, 1)] == [0, 1, 2]
        backend.flush()
        assert [row["a"] for row in await backend.query(everything())] == [1, "x", "y"]
        assert backend.preview(pa.table({"a": ["z"], "b": [True], "c": [1]}), FLOW) == [
            "= a string",
            "~ b: files have double, rows bring bool; readers of all files must convert one of the two",
            "+ c int64 (new)",
        ]

    run(scenario, url=f"file://{tmp_path}/lake")


def test_a_delete_that_died_half_way_can_be_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(backend: ObjectStoreBackend) -> None:
        location = await backend.store({"n": 1})
        with monkeypatch.context() as patch:
            patch.setattr(Objects, "delete", lambda *_: (_ for _ in ()).throw(TransientError("away")))
            with pytest.raises(TransientError):
                await backend.delete(location.location_id)
        assert await backend.query(everything()) == []
        assert len(data_files(tmp_path)) == 1
        await backend.delete(location.location_id)
        assert data_files(tmp_path) == []
        with pytest.raises(KeyError):
            await backend.delete(location.location_id)

    run(scenario, url=f"file://{tmp_path}/lake")


def test_flows_whose_names_are_alike_do_not_touch_each_other(tmp_path: Path) -> None:
    flows = [
        "p",
        "p/s",
        "p~s",
        "p/s/1",
        "p,1",
        "../x",
        "..",
        ".",
        "",
        "p/" + "long" * 100,
        "p/" + "long" * 100 + "!",
    ]

    async def scenario(backend: ObjectStoreBackend) -> None:
        for flow in flows:
            backend.claim(flow)
            backend.commit(delivery(1, 1, flow=flow))
        other = ObjectStoreBackend(url=f"file://{tmp_path}/lake")
        other.open()
        for flow in flows:
            assert other.claim(flow).epoch == 2
        other.close()

    run(scenario, url=f"file://{tmp_path}/lake")
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "url"),
        ({"url": "/tmp/x"}, "expected s3://bucket/folder/"),
        ({"url": "s3://me:secret@b/x"}, "credentials do not belong into the URL"),
        ({"url": "s3://b/../x"}, "may not be empty"),
        ({"url": "s3://b/x", "access_key_id": "CANARY"}, "set both or none"),
        ({"url": "gs://b/x", "region": "eu"}, "region: is for s3://"),
        ({"url": "s3://b/x", "format": "parquet", "compression": "gzip"}, "compression: is for lines"),
        ({"url": "s3://b/x", "max_rows": 0}, "max_rows"),
        ({"url": "s3://b/x", "max_bytes": "much"}, "expected a size"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        registry.create("backend", "object_store", settings)
    assert "CANARY" not in str(caught.value)


def test_a_store_that_is_away_is_told_and_a_bucket_that_is_not_there_is_fatal(server: S3Server) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = server.settings("x", nobody.getsockname()[1])

        async def claim(backend: ObjectStoreBackend) -> None:
            with pytest.raises(TransientError, match=r"cannot \w+ s3://the-bucket/x/_coll.* now: ") as caught:
                await backend.call(backend.claim, FLOW)
            assert "a-secret" not in str(caught.value)

        run(claim, **away)

    async def no_bucket(backend: ObjectStoreBackend) -> None:
        with pytest.raises(FatalError, match=r"cannot write s3://none/x/.*404 Not Found \(NoSuchBucket"):
            await backend.call(backend.claim, FLOW)

    run(no_bucket, **server.settings() | {"url": "s3://none/x"})


def test_a_folder_without_the_right_to_write_is_fatal(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file")

    async def claim(backend: ObjectStoreBackend) -> None:
        with pytest.raises((FatalError, TransientError), match="cannot write file://.*lake"):
            await backend.call(backend.claim, FLOW)

    run(claim, url=f"file://{tmp_path}/lake")


def test_places_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    def place(**settings: Any) -> str | None:
        backend: ObjectStoreBackend = registry.create("backend", "object_store", settings)
        return backend.place("p/s")

    assert place(url="s3://b/x/") == place(url="s3://b/x")
    assert place(url="s3://b/x") != place(url="s3://b/x", endpoint="http://127.0.0.1:9000")
    assert place(url=f"file://{tmp_path}/a") == str(tmp_path.resolve() / "a")


def test_chaos_gets_a_folder_and_no_keys(server: S3Server, tmp_path: Path) -> None:
    config = ObjectStoreConfig(**server.settings("x"), partition_by=["day"], id="mine").scratch(tmp_path)
    assert config.url == f"file://{tmp_path}/objects"
    assert (config.access_key_id, config.endpoint, config.max_rows) == (None, None, 200)
    assert (config.partition_by, config.id) == (["day"], "mine")


VALUES = pa.table(
    {
        "n": [1, 2, None],
        "text": ['a "quoted", one\nwith two lines', "", None],
        "float": [0.1 + 0.2, -0.0, 1e300],
        "flag": [True, False, None],
        "decimal": pa.array(
            [Decimal("12345678901234567890.123456789"), None, Decimal(1)], pa.decimal128(38, 9)
        ),
        "time": pa.array([1_767_323_045_678_901_234, None, 0], pa.timestamp("ns", "UTC")),
        "day": [date(2026, 1, 2), None, date(1, 1, 1)],
        "bytes": [b"\x00\xff", b"", None],
        "nested": [{"a": [1, None], "b": b"x"}, None, {"a": [], "b": None}],
        "nothing": pa.nulls(3),
        "code": pa.array(["a", None, "b"]).dictionary_encode(),
    }
)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_lines_say_all_that_there_was(server: S3Server, tmp_path: Path, form: str, compression: str) -> None:
    async def scenario(backend: ObjectStoreBackend) -> None:
        backend.claim(FLOW)
        backend.commit(chunk(1, VALUES.slice(0, 1)))
        backend.commit(chunk(2, VALUES.slice(1)))
        backend.flush()
        assert backend.stored(FLOW).seq == 2
        with pytest.raises(
            FatalError, match=r"cannot be queried; objects are that are written with `format: par"
        ):
            await backend.query(everything())
        assert "= n int64" in backend.preview(VALUES, FLOW)

    run(scenario, **server.settings(tmp_path.name), format=form, compression=compression)
    (file,) = (server.folder / tmp_path.name).glob(f"part-*.{form}*")
    assert file.name.endswith(form + {"none": "", "gzip": ".gz", "zstd": ".zst"}[compression])
    kind = None if compression == "none" else compression
    with pa.input_stream(file, compression=kind) as stream:
        text = stream.read()
    if form == "ndjson":
        rows = [json.loads(line) for line in text.splitlines()]
        nested: list[Any] = [{"a": [1, None], "b": "eA=="}, None, {"a": [], "b": None}]
        assert [row["flag"] for row in rows] == [True, False, None]
    else:
        rows = list(csv.DictReader(io.StringIO(text.decode(), newline="")))
        nested = ['{"a":[1,null],"b":"eA=="}', "", '{"a":[],"b":null}']
        assert [row["flag"] for row in rows] == ["true", "false", ""]
    none = None if form == "ndjson" else ""
    assert [row["text"] for row in rows] == ['a "quoted", one\nwith two lines', "", none]
    assert [float(row["float"]) for row in rows] == [0.1 + 0.2, -0.0, 1e300]
    assert rows[0]["decimal"] == "12345678901234567890.123456789"
    assert [row["time"] for row in rows] == [
        "2026-01-02T03:04:05.678901234Z",
        none,
        "1970-01-01T00:00:00.000000000Z",
    ]
    assert [row["day"] for row in rows] == ["2026-01-02", none, "0001-01-01"]
    assert [row["bytes"] for row in rows] == ["AP8=", "", none]
    assert [row["nested"] for row in rows] == nested
    assert [row["code"] for row in rows] == ["a", none, "b"]


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_what_cannot_be_a_line_is_refused_before_anything_is_stored(tmp_path: Path, form: str) -> None:
    nan = float("nan")

    async def scenario(backend: ObjectStoreBackend) -> None:
        with pytest.raises(DataError, match="row 1: column 'x': JSON has no NaN") as caught:
            await backend.store(pa.table({"p": ["b", "a", "a"], "x": [[1.0], [nan], None]}))
        assert set(caught.value.rows) == {1}
        if form == "ndjson":
            with pytest.raises(DataError, match="row 0"):
                await backend.store(pa.table({"p": ["b"], "x": [nan]}))
        else:
            with pytest.raises(FatalError, match="csv cannot hold a null in the only column"):
                await backend.store(pa.table({"p": ["b"], "x": pa.nulls(1)}))
        with pytest.raises(FatalError, match="'x' is there twice"):
            await backend.store(pa.table([["a"], [1], [2]], ["p", "x", "x"]))
        await backend.store(pa.table({"p": ["b", "a"], "x": [1, 2], "y": [3, 4]}))

    run(scenario, url=f"file://{tmp_path}/lake", format=form, partition_by=["p"])
    found = sorted(path.parent.name for path in tmp_path.rglob(f"part-*.{form}.gz"))
    assert found == ["p=a", "p=b"]
