"""The file source read once: formats, compression, positions, and what is wrong with files."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from collectors.collection.sources.file import FileConfig, FileSource
from collectors.errors import ConfigurationError, FatalError
from collectors.testing.source_contract import SourceContract


def lines(ids):
    return b"".join(b'{"id": %d}\n' % each for each in ids)


class TestOneFile(SourceContract):
    component = "file"

    @asynccontextmanager
    async def rig(self, ids):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "records.ndjson")
            path.write_bytes(lines(ids))
            yield {"path": str(path), "chunk_size": 64}


class TestManyFiles(SourceContract):
    component = "file"

    @asynccontextmanager
    async def rig(self, ids):
        with tempfile.TemporaryDirectory() as folder:
            for number, start in enumerate(range(0, len(ids), 7)):
                Path(folder, f"{number:03}.ndjson").write_bytes(lines(ids[start : start + 7]))
            yield {"path": f"{folder}/*.ndjson", "chunk_size": 32}


class TestGzip(SourceContract):
    component = "file"

    @asynccontextmanager
    async def rig(self, ids):
        half = len(ids) // 2
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "records.ndjson.gz")
            path.write_bytes(gzip.compress(lines(ids[:half])) + gzip.compress(lines(ids[half:])))
            yield {"path": str(path), "chunk_size": 64}


class TestZstd(SourceContract):
    component = "file"

    @asynccontextmanager
    async def rig(self, ids):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "records.ndjson.zst")
            path.write_bytes(zstd(lines(ids)))
            yield {"path": str(path), "chunk_size": 64}


class TestFollowed(SourceContract):
    component = "file"

    @asynccontextmanager
    async def rig(self, ids):
        half = len(ids) // 2
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "app.log.1").write_bytes(lines(ids[:half]))
            Path(folder, "app.log.2").write_bytes(lines(ids[half:]) + b'{"id": unfinished')
            yield {"path": f"{folder}/app.log*", "format": "ndjson", "follow": True, "chunk_size": 64}


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()
