"""The object store on Azure's blobs: storage and source, against Microsoft's own server where it is installed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import asynccontextmanager, closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from collectors.config.load import from_mapping
from collectors.runtime.engine import Engine
from collectors.testing.azure_server import AzureServer
from collectors.testing.backend_contract import BackendContract
from collectors.testing.local_server import ServerUnavailableError
from collectors.testing.source_contract import SourceContract

_numbers = count()


@pytest.fixture(scope="module")
def azure() -> Iterator[AzureServer]:
    try:
        server = AzureServer()
    except ServerUnavailableError as error:
        pytest.skip(str(error))
    with server:
        server.put("first", b"")  # the library's own threads, and what they wait on, stay from there on
        yield server


@pytest.mark.timeout(400)
class TestAzure(BackendContract):
    component = "object_store"
    examples = 8

    @pytest.fixture(autouse=True)
    def _server(self, azure: AzureServer) -> None:
        self.server = azure

    def settings(self, folder: Path) -> dict[str, Any]:
        return self.server.settings(f"{str(folder).strip('/')}/lake") | {"max_rows": 4}


class TestAzureSource(SourceContract):
    component = "object_store"

    @pytest.fixture(autouse=True)
    def _server(self, azure: AzureServer) -> None:
        self.server = azure

    @asynccontextmanager
    async def rig(self, ids: list[int]) -> Any:
        folder = f"in/{next(_numbers)}/"
        for start in range(0, len(ids), 7):
            lines = b"".join(b'{"id": %d}\n' % each for each in ids[start : start + 7])
            self.server.put(f"{folder}{start:03}.ndjson", lines)
        yield {**self.server.settings(folder), "pattern": "*.ndjson", "chunk_size": 64}


def test_rows_come_back_from_a_server_that_was_away(tmp_path: Path, azure: AzureServer) -> None:
    (tmp_path / "in.ndjson").write_text("".join(f'{{"n": {n}}}\n' for n in range(5_000)))
    there = azure.settings(f"back-{next(_numbers)}/lake") | {"type": "object_store", "format": "ndjson"}

    def run(name: str, source: dict[str, Any], storage: dict[str, Any]) -> None:
        config = from_mapping({"sources": [source], "storage": [storage]}, folder=tmp_path, name=name)
        assert asyncio.run(Engine(config).run()).balanced

    run("there", {"type": "file", "path": "in.ndjson", "chunk_size": 4096}, there)
    azure.stop()  # killed, it forgets its latest objects
    azure.start()
    run("back", there | {"pattern": "*.ndjson.gz"}, {"type": "sqlite", "path": "back.db", "table": "rows"})
    with closing(sqlite3.connect(tmp_path / "back.db")) as database:
        assert database.execute("select count(*), min(n), max(n) from rows").fetchone() == (5_000, 0, 4_999)
