"""Reads a sql source to its end, as the tests want it."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pyarrow as pa

from collectors import registry


async def chunks_of(source, since=None, most=None):
    """Return the chunks of a connected source."""
    chunks = []
    async with aclosing(source.stream(since)) as stream:
        async for chunk in stream:
            chunks.append(chunk)
            if most is not None and len(chunks) >= most:
                break
    return chunks


async def read(since=None, **settings):
    """Connect a new source, and return its chunks and what it has told."""
    source = registry.create("source", "sql", settings)
    told = []
    source.tell = told.append
    await source.connect()
    try:
        return await chunks_of(source, since), told
    finally:
        await source.disconnect()


def run(since=None, **settings):
    """The same from outside of a loop; only the chunks."""
    return asyncio.run(read(since, **settings))[0]


def tables(chunks):
    """Return the tables of the chunks that are not refused."""
    return [pa.ipc.open_stream(chunk.raw_data).read_all() for chunk in chunks if chunk.data_format == "arrow"]


def rows(chunks):
    """Return the rows as dicts."""
    return [row for table in tables(chunks) for row in table.to_pylist()]


def refused(chunks):
    """Return (record, reason) of each that is."""
    return [
        (json.loads(chunk.raw_data), chunk.metadata["reason"])
        for chunk in chunks
        if chunk.data_format == "rejected"
    ]
