"""A backend with a table, from its settings to what is stored in it."""

from __future__ import annotations

import asyncio

import pyarrow as pa
from hypothesis import strategies as st
from msgspec.structs import replace

from collectors import registry
from collectors.errors import DataError
from collectors.testing.deliveries import delivery, everything


def opened(where, **more):
    given = {**where, **more}
    return registry.create("backend", given.pop("type"), given)


def committing(backend, tables, first_seq=1):
    """Commit a table after the other, as one flow does; returns what was found about columns in the last one."""

    async def main():
        await backend.connect()
        try:
            epoch = (await backend.call(backend.claim, "contract/source")).epoch
            for seq, table in enumerate(tables, first_seq):
                made = replace(delivery(seq, seq, epoch, letters=0), table=table)
                await backend.call(backend.commit, made)
            await backend.call(backend.flush)
        finally:
            await backend.disconnect()

    asyncio.run(main())
    return backend.drifts.get("contract/source")


def asking(backend, question, *args):
    async def main():
        await backend.connect()
        try:
            return await backend.call(question, *args)
        finally:
            await backend.disconnect()

    return asyncio.run(main())


def stored(backend):
    rows = asking(backend, backend.select, everything())
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]


def committing_what_it_can(backend, table, seq):
    """Commit as the runtime does: without the rows that are refused. Returns what was found, and the rows."""
    try:
        return committing(backend, [table], first_seq=seq) or [], table
    except DataError as error:
        table = table.filter(pa.array([row not in error.rows for row in range(table.num_rows)]))
        return committing(backend, [table], first_seq=seq) or [], table


VALUES = {
    "int64": st.integers(-9, 9),
    "double": st.sampled_from([0.0, 1.0, -2.0, 0.5, 7.25]),
    "string": st.sampled_from(["", "7", "x"]),
    "bool": st.booleans(),
}


@st.composite
def tables(draw):
    """Some rows, each with an `n` of its own later, and some columns of some types."""
    count = draw(st.integers(1, 4))
    columns = {}
    for name in draw(st.sets(st.sampled_from(["a", "b", "c"]))):
        kind = draw(st.sampled_from(sorted(VALUES)))
        values = draw(st.lists(st.none() | VALUES[kind], min_size=count, max_size=count))
        columns[name] = pa.array(values, pa.type_for_alias(kind))
    return pa.table({"n": pa.array(range(count), pa.int64()), **columns})
