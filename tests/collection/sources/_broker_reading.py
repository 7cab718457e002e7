"""Reads a source that never ends, for tests of brokers: until so much came, or nothing does any more."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing


async def read(source, since=None, *, until=None, quiet=0.3, commit=False):
    """Connect, return the chunks until there are so many records or nothing comes any more, and disconnect."""
    await source.connect()
    try:
        return await read_on(source, since, until=until, quiet=quiet, commit=commit)
    finally:
        await source.disconnect()


async def read_on(source, since=None, *, until=None, quiet=0.3, commit=False):
    """The same with a source that is connected and stays so."""
    chunks, count = [], 0
    async with aclosing(source.stream(since)) as stream:
        while until is None or count < until:
            try:
                chunk = await asyncio.wait_for(anext(stream), 15 if until is not None else quiet)
            except TimeoutError:
                assert until is None, f"only {count} of {until} records came"
                break
            chunks.append(chunk)
            count += len(chunk.raw_data.splitlines()) if chunk.data_format != "rejected" else 1
            if commit and chunk.position is not None:
                await source.commit(chunk.position)
    return chunks


def records(chunks):
    """Return the records of chunks of JSON."""
    lines = [
        line for chunk in chunks if chunk.data_format != "rejected" for line in chunk.raw_data.splitlines()
    ]
    return [json.loads(line) for line in lines]


def ids(chunks):
    """Return the ids of the records."""
    return [record["id"] for record in records(chunks)]
