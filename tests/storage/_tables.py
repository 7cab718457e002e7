"""A backend with a table, from its settings to what is stored in it."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from collectors import registry
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
