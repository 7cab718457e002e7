"""A replay behind one that was killed."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

from collectors.config.load import from_mapping
from collectors.runtime.dead_letters import look
from collectors.runtime.engine import Engine
from collectors.runtime.env import Env
from collectors.runtime.letter_queue import LetterQueue
from collectors.runtime.letter_ways import way_of
from collectors.runtime.replay import Replay
from collectors.runtime.state import State


def test_letters_that_were_under_way_go_first_and_in_their_order(tmp_path):
    """So a storage that numbers what it sends gives them the numbers that they had."""
    (tmp_path / "in.ndjson").write_text("".join(f'{{"v": "x{n}"}}\n' for n in range(6)))

    def config(*steps):
        return from_mapping(
            {
                "name": "p",
                "sources": [{"type": "file", "id": "s", "path": "in.ndjson"}],
                "processors": [*steps, {"type": "cast", "columns": {"v": "int"}}],
                "storage": [{"type": "sqlite", "path": "out.db", "table": "rows"}],
            },
            folder=tmp_path,
        )

    fixed = config({"type": "set", "columns": {"v": "replace(v, 'x', '')"}})

    async def work():
        await Engine(config()).run()
        letters = (await look(fixed)).letters
        env = Env()
        state = State(fixed.state / "state.db", env)
        await state.open()
        queue = LetterQueue(state, env)
        await queue.open()
        under_way = [letters[4], letters[2]]
        await queue.put([(way_of(fixed, each, from_start=True), True, each) for each in under_way])
        await state.close()
        env.close()
        replay = Replay(fixed, {each.key for each in letters}, from_start=True)
        return await replay.run()

    assert asyncio.run(work()).balanced
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        rows = [v for (v,) in database.execute("select v from rows order by rowid")]
    assert rows == [4, 2, 0, 1, 3, 5]
