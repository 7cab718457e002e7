"""Connections that are refused, hang, are reset, crawl, or are cut: whole pipelines into PostgreSQL, through a proxy.

What must be there at the end is read past the proxy and the product, with SQL: every row once, every bad record once
as a letter, and counts that say so.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from collectors.config.load import load
from collectors.runtime import grouping
from collectors.runtime.engine import Engine
from collectors.runtime.env import Env
from collectors.testing.postgres_server import PostgresServer, ServerUnavailableError
from collectors.testing.proxy import Proxy

FILES, LINES = 24, 25
BAD = {number for number in range(FILES * LINES) if number % 101 == 7}
GOOD = Counter(number for number in range(FILES * LINES) if number not in BAD)
COMMIT = b"COMMIT\0"
STATEMENTS = (
    b"BEGIN READ WRITE",
    b"for update",
    b"_collectors_writes",
    b"lock table",
    b"from stdin (format binary)",
    b"PGCOPY\n",
    b"delete from",
    b"_collectors_ledger",
    b"update ",
    COMMIT,
)
MOMENTS = ("before", "with", "answered")


class Hurried(Env):
    """A world in which waiting takes a fiftieth of the time."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 50)


@pytest.fixture(scope="module")
def server():
    try:
        with PostgresServer() as server:
            yield server
    except (ServerUnavailableError, ImportError) as error:
        pytest.skip(f"needs a PostgreSQL server: {error}")


@pytest.fixture
def proxy(server):
    with Proxy("127.0.0.1", server.port) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _a_commit_for_each_file(monkeypatch):
    monkeypatch.setattr(grouping, "GROUP_ROWS", 0)


class Stack:
    """A pipeline of many small files into a schema of its own."""

    def __init__(
        self, folder: Path, server: PostgresServer, port: int, *, name: str = "s", timeout: str = "1s"
    ):
        self.server, self.schema = server, f"{folder.name}-{name}"[-60:]
        self.folder = folder / name
        (self.folder / "in").mkdir(parents=True)
        for file in range(FILES):
            numbers = range(file * LINES, (file + 1) * LINES)
            lines = [
                '{"id": oh' if n in BAD else json.dumps({"id": n, "at": {"file": file}}) for n in numbers
            ]
            (self.folder / "in" / f"{file:03d}.ndjson").write_text("\n".join(lines) + "\n")
        self.file = self.folder / "p.yaml"
        self.file.write_text(
            "name: p\n"
            "sources: [{type: file, id: rows, path: in/*.ndjson}]\n"
            f"storage: [{{type: postgres, host: 127.0.0.1, port: {port}, user: postgres, database: postgres, "
            f"in_schema: '{self.schema}', timeout: {timeout}}}]\n"
        )

    async def run(self, patience: float = 600.0):
        report = await Engine(load(self.file), env=Hurried(), patience=patience).run()
        assert not report.failed, [str(flow.error) for flow in report.failed]
        return report

    def sql(self, statement: str):
        with psycopg.connect(self.server.dsn) as connection:
            connection.execute(
                psycopg.sql.SQL("set search_path to {}").format(psycopg.sql.Identifier(self.schema))
            )
            return connection.execute(statement).fetchall()

    def check(self) -> None:
        assert Counter(number for (number,) in self.sql("select id from rows")) == GOOD
        assert len(self.sql("select raw from _collectors_dead_letters")) == len(BAD)
        assert len(self.sql("select distinct position, record from _collectors_dead_letters")) == len(BAD)
        ((read, stored, aside),) = self.sql(
            "select sum(read), sum(stored), sum(set_aside) from _collectors_ledger"
        )
        assert (read, stored, aside) == (FILES * LINES, len(GOOD), len(BAD))


async def until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the time is over"
        await asyncio.sleep(0.005)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("moment", MOMENTS)
def test_cut_at_commit(tmp_path, server, proxy, moment, full, figure):
    """Each COMMIT of the pipeline is cut, those of the first tries and those of the tries behind a cut."""
    cuts = 0
    step = 2
    for first in range(1, step + 1) if not full else range(1, FILES + 4):
        stack = Stack(tmp_path, server, proxy.port, name=f"{first}")
        proxy.cuts(COMMIT, moment, range(first, 10**6, step) if not full else range(first, 10**6, first + 1))
        asyncio.run(stack.run())
        cuts += proxy.cut
        stack.check()
    assert cuts >= FILES / 2
    figure("connections cut at COMMIT", moment=moment, cuts=cuts, lost=0, doubled=0)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("moment", MOMENTS)
def test_cut_at_any_statement(tmp_path, server, proxy, moment, full, figure):
    """The same for each statement that stores something, now and then."""
    cuts = 0
    for number, pattern in enumerate(STATEMENTS):
        for first in range(1, 9) if full else (1 + number % 5,):
            stack = Stack(tmp_path, server, proxy.port, name=f"{number}-{first}")
            proxy.cuts(pattern, moment, range(first, 10**6, 4 if full else 9))
            asyncio.run(stack.run())
            assert proxy.cut, pattern
            cuts += proxy.cut
            stack.check()
    figure("connections cut at any statement", moment=moment, cuts=cuts, lost=0, doubled=0)


FAULTS = {
    "refused": Proxy.refuses,
    "hanging": Proxy.hangs,
    "reset": Proxy.resets,
    "crawling": lambda proxy: proxy.slows_to(400),
    "dropped": Proxy.drops,
}


async def run_with_fault(stack: Stack, proxy: Proxy, fault: str, moment: int) -> None:
    """Run the pipeline; the fault is there from its n-th COMMIT on until it has tried again, or a little longer."""
    proxy.cuts(COMMIT, "with", ())
    running = asyncio.create_task(stack.run())
    await until(lambda: running.done() or proxy.seen >= moment)
    accepted = proxy.connections
    FAULTS[fault](proxy)
    if fault not in {"refused", "crawling"}:
        await until(lambda: running.done() or proxy.connections > accepted)
    await asyncio.wait([running], timeout=0.1)
    proxy.passes()
    await running


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_comes_and_goes(tmp_path, server, proxy, fault, full, figure):
    """From one moment on nothing works; some time later it does again."""
    rounds = range(1, FILES + 3) if full else (1, 2, 9)
    for moment in rounds:
        stack = Stack(tmp_path, server, proxy.port, name=f"{moment}", timeout="300ms")
        asyncio.run(run_with_fault(stack, proxy, fault, moment))
        stack.check()
    figure("connection faults that come and go", fault=fault, rounds=len(rounds), lost=0, doubled=0)


@pytest.mark.timeout(3600)
def test_all_faults_one_after_the_other(tmp_path, server, proxy, full, figure):
    """Until the pipeline is done something is wrong, nearly always."""
    stack = Stack(tmp_path, server, proxy.port, timeout="200ms")
    proxy.cuts(COMMIT, "answered", range(1, 10**6, 2))
    faults = 0

    async def main() -> None:
        nonlocal faults
        running = asyncio.create_task(stack.run())
        while not running.done():
            for fault in FAULTS.values():
                fault(proxy)
                await asyncio.wait([running], timeout=0.05)
                proxy.passes()
                await asyncio.wait([running], timeout=0.15)
                faults += 1
        await running

    asyncio.run(main())
    stack.check()
    figure("connection faults one after the other", faults=faults, cuts=proxy.cut, lost=0, doubled=0)


@pytest.mark.timeout(3600)
def test_the_server_is_killed_and_comes_back(tmp_path, server, proxy, full, figure):
    """Kill -9 of all its processes while it stores; what it has acknowledged is there after its recovery."""
    kills = range(2, FILES, 1 if full else 15)
    stack = Stack(tmp_path, server, proxy.port)
    proxy.cuts(COMMIT, "with", ())

    async def main() -> None:
        running = asyncio.create_task(stack.run())
        for moment in kills:
            await until(lambda: running.done() or proxy.seen >= moment)  # noqa: B023  # awaited at once
            assert not running.done()
            server.kill()
            proxy.drops()
            await asyncio.to_thread(server.start)
        await running

    asyncio.run(main())
    stack.check()
    figure("server killed under load", kills=len(kills), lost=0, doubled=0)


@pytest.mark.timeout(3600)
def test_the_pipeline_is_killed(tmp_path, server, full, figure):
    """Kill -9 before and behind each wait for the server, life after life, until one survives."""
    kills = 0
    script = Path(__file__).parents[1] / "e2e" / "_lives.py"
    for first in range(1, 25 if full else 2):
        stack = Stack(tmp_path, server, server.port, name=f"{first}", timeout="10s")
        done = subprocess.run(
            [sys.executable, "-W", "ignore", script, stack.file, str(first), "9", "40" if full else "14"],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        kills += json.loads(done.stdout)["kills"]
        stack.check()
    assert kills > 10
    figure("pipelines into PostgreSQL killed", kills=kills, lost=0, doubled=0)


@pytest.mark.parametrize("moment", [0, 3])
def test_others_go_on_while_it_hangs_and_it_can_be_stopped(tmp_path, server, proxy, moment, full, figure):
    """A flow into another storage is not held up; SIGTERM ends the process in time, and the next run stores the rest."""
    stack = Stack(tmp_path, server, proxy.port, timeout="60s")
    (stack.folder / "other.ndjson").write_text("".join(f'{{"id": {number}}}\n' for number in range(1000)))
    stack.file.write_text(
        stack.file.read_text()
        .replace("in/*.ndjson}]", "in/*.ndjson}, {type: file, id: other, path: other.ndjson, follow: true}]")
        .replace("timeout: 60s}]", "timeout: 60s}, {type: sqlite, id: lite, path: other.db}]")
        + "pipelines: {a: {from: [rows], to: [postgres]}, b: {from: [other], to: [lite]}}\n"
    )
    proxy.cuts(COMMIT, "with", ())
    if moment == 0:
        proxy.hangs()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "collectors", "run", stack.file, "--drain", "1s", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    async def steer() -> float:
        if moment:
            await until(lambda: proxy.seen >= moment)
            proxy.hangs()
        await until(lambda: others(stack) == 1000)
        with (stack.folder / "other.ndjson").open("a") as file:
            file.write('{"id": 1000}\n')
        await until(lambda: others(stack) == 1001)
        process.send_signal(signal.SIGTERM)
        return time.monotonic()

    try:
        asked = asyncio.run(steer())
        process.communicate(timeout=20)
        took = time.monotonic() - asked
    finally:
        process.kill()
        process.communicate()
    assert took < (
        1.0 + 1.0 if full else 10.0
    )  # a busy machine ends processes slowly; waiting would take 60 s
    figure("stopped while a storage hangs", deadline=1.0, took=round(took, 2))
    proxy.passes()
    stack.file.write_text(stack.file.read_text().replace(", follow: true", ""))
    asyncio.run(stack.run())
    stack.check()
    assert others(stack) == 1001


def others(stack: Stack) -> int:
    import sqlite3

    try:
        with sqlite3.connect(f"file:{stack.folder / 'other.db'}?mode=ro", uri=True) as database:
            return int(database.execute("select count(*) from other").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        if "database" in locals():
            database.close()
