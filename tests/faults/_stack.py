"""Pipelines under fault tests: lives of them in forks with the shim preloaded, and what must be there at the end."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pyarrow.dataset as ds
from _pushed import RECORDS, entries

from collectors.storage.backends._duckdb_undo import Undo

HERE = Path(__file__).parent
WRITE, SYNC, NAME, SIZE, MAKE = 1, 2, 4, 8, 16
EVERY = WRITE | SYNC | NAME | SIZE | MAKE
SIGNAL, ERRNO, SHORT = 1, 2, 3
FOREVER = 2**40

FILE = "  - {type: file, id: readings, path: in.ndjson, chunk_size: 4 KiB}"
_PIPELINE = """
name: readings
state: data/hidden/state
sources:
SOURCE
processors:
  - {type: filter, where: "id % 10 <> 0"}
storage:
"""
STORAGE = {
    "sqlite": "  - {type: sqlite, path: data/db/out.db, table: readings}\n",
    "duckdb": "  - {type: duckdb, path: data/duck/out.duckdb, table: readings}\n",
    "parquet": "  - {type: parquet, path: data/lake, max_rows: 200}\n",
}
PUSHED = "  - {type: '_pushed:Pushed', id: readings, path: in.ndjson}"
"""What it brings goes through the spool."""
TORN = "a part of a write"
DATABASES = {"sqlite": "db/out.db", "duckdb": "duck/out.duckdb"}
STACKS = {
    "sqlite": ["sqlite"],
    "parquet": ["parquet"],
    "both": ["sqlite", "parquet"],
    **({"duckdb": ["duckdb"]} if find_spec("duckdb") else {}),
    "spool to sqlite": ["spool", "sqlite"],
    "spool to both": ["spool", "sqlite", "parquet"],
}
REPLAYABLE = {name: backends for name, backends in STACKS.items() if "spool" not in backends}


def scratch() -> Path:
    """Return a folder in memory where there is one: what kill -9 leaves does not depend on the disk."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="faults-", dir=memory if os.access(memory, os.W_OK) else None))


def signal_at(number: int, which: int, *, kinds: int = EVERY) -> dict:
    return {"mode": SIGNAL, "first": number, "last": number, "value": which, "kinds": kinds}


def errno_at(number: int, which: int, *, last: int | None = None, kinds: int = EVERY) -> dict:
    return {"mode": ERRNO, "first": number, "last": last or number, "value": which, "kinds": kinds}


def short_at(number: int) -> dict:
    return {"mode": SHORT, "first": number, "last": number, "kinds": WRITE}


class Lives:
    """The fork server. A life is a dict: `killed`, or `stopped` and `pid`, or `exit`, `errors`, `passed`, …"""

    def __init__(self, shim: Path) -> None:
        self._told = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(HERE / "_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._told,
            env=os.environ | {"LD_PRELOAD": str(shim)},
            text=True,
        )
        for name, backends in STACKS.items():
            folder = scratch()
            stack = Stack(folder / name, backends).make()
            self._ask({"import": self.life(stack, tell_modules=True)["modules"]})
            shutil.rmtree(folder)

    def _ask(self, request: dict) -> dict:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the fork server has ended: {self.stderr()}"
        return json.loads(line)

    def start(self, stack: Stack, fault: dict | None = None, **more) -> int:
        order = {"pipeline": str(stack.pipeline), "folder": str(stack.data), "fault": fault, **more}
        return self._ask({"start": order})["pid"]

    def wait(self, pid: int) -> dict:
        return self._ask({"wait": pid})

    def go_on(self, pid: int) -> None:
        self._ask({"go_on": pid})

    def life(self, stack: Stack, fault: dict | None = None, **more) -> dict:
        """Run a pipeline once; with a fault, until that."""
        ended = self.wait(self.start(stack, fault, **more))
        assert "crash" not in ended, f"{ended['crash']}\n{self.stderr()}"
        return ended

    def stderr(self) -> str:
        """Return the end of what the lives have written to it."""
        self._told.seek(0)
        return self._told.read()[-5000:]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(30) == 0, self.stderr()
        self._told.close()


@dataclass
class Stack:
    """A pipeline in a folder, its input, and the oracle: everything it compares is read without the product's code.

    All that the pipeline writes is in `data`: there the shim sees it.
    """

    folder: Path
    backends: list[str]
    rows: int = 300
    bad: frozenset[int] = frozenset({100, 255})
    may_tear: bool = False
    """Whether a write that nobody was told of may have left a part: the spool cannot know, and tells that it is damaged."""
    pipeline: Path = field(init=False)
    data: Path = field(init=False)

    def __post_init__(self) -> None:
        self.spooled = "spool" in self.backends
        self.backends = [name for name in self.backends if name != "spool"]
        self.pipeline = self.folder / "p.yaml"
        self.data = self.folder / "data"

    def make(self) -> Stack:
        self.data.mkdir(parents=True, exist_ok=True)
        lines = [self.raw(n) for n in range(self.rows)]
        (self.folder / "in.ndjson").write_text("\n".join(lines) + "\n")
        text = _PIPELINE + "".join(STORAGE[name] for name in self.backends)
        self.pipeline.write_text(text.replace("SOURCE", PUSHED if self.spooled else FILE))
        return self

    def raw(self, number: int) -> str:
        return (
            f'{{"id": {number} broken' if number in self.bad else json.dumps({"id": number, "note": "x" * 40})
        )

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def expected(self) -> Counter:
        return Counter(n for n in range(self.rows) if n not in self.bad and n % 10 != 0)

    @property
    def counts(self) -> tuple[int, ...]:
        """read, added, stored, filtered, set aside"""
        stored = len(self.expected)
        return self.rows, 0, stored, self.rows - stored - len(self.bad), len(self.bad)

    # what is there

    def ids(self, backend: str) -> Counter:
        if backend in DATABASES:
            return Counter(row[0] for row in self._sql(DATABASES[backend], "select id from readings"))
        paths = [
            str(path) for path in (self.data / "lake").rglob("*.parquet") if "_collectors" not in path.parts
        ]
        if not paths:
            return Counter()
        return Counter(ds.dataset(paths, format="parquet").to_table(columns=["id"])["id"].to_pylist())

    def ledger(self, backend: str) -> tuple[int, ...]:
        names = ("read", "added", "stored", "filtered", "set_aside")
        if backend in DATABASES:
            return self._sql(
                DATABASES[backend],
                f"select {', '.join(f'sum({name})' for name in names)} from _collectors_ledger",
            )[0]
        entries = [
            json.loads(path.read_bytes()) for path in (self.data / "lake/_collectors/log").rglob("*.json")
        ]
        return tuple(sum(entry.get("counts", {}).get(name, 0) for entry in entries) for name in names)

    def letters(self, host: str = "hidden") -> Counter:
        keeper = next((name for name in self.backends if name in DATABASES), None)
        path = DATABASES[keeper] if keeper else f"{host}/state/state.db"
        if not (self.data / path).exists():
            return Counter()
        letters = self._sql(path, "select raw, reason from _collectors_dead_letters")
        return Counter(
            TORN if reason.startswith("the spool is damaged") and self.may_tear else raw.decode().strip()
            for raw, reason in letters
        )

    def stored_seq(self, backend: str) -> int:
        if backend in DATABASES:
            rows = self._sql(DATABASES[backend], "select seq from _collectors_checkpoint")
            return max((row[0] for row in rows), default=0)
        entries = sorted((self.data / "lake/_collectors/log").rglob("*.json"))
        return json.loads(entries[-1].read_bytes())["seq"] if entries else 0

    def _sql(self, path: str, statement: str) -> list[tuple]:
        """Return what a copy of a database says: opening it after a crash changes it."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            for file in (self.data / path).parent.glob(f"*{Path(path).name}*"):
                shutil.copy(file, folder)
            _mend(Path(folder) / Path(path).name)
            with closing(_open(f"{folder}/{Path(path).name}")) as database:
                return database.execute(statement).fetchall()

    def differences(self) -> list[str]:
        """Return what is lost, doubled, or counted wrongly; nothing when all is well."""
        if self.spooled:
            return self._differences_from_sent()
        found: list[str] = []
        for backend in self.backends:
            ids = self.ids(backend)
            if lost := self.expected - ids:
                found.append(f"{backend}: lost {sorted(lost)[:10]} ({lost.total()})")
            if doubled := ids - self.expected:
                found.append(f"{backend}: doubled {sorted(doubled)[:10]} ({doubled.total()})")
            if self.ledger(backend) != self.counts:
                found.append(f"{backend}: ledger {self.ledger(backend)}, expected {self.counts}")
        if self.letters() != Counter(self.raw(n) for n in self.bad):
            found.append(f"letters {self.letters()}")
        return found

    def _differences_from_sent(self) -> list[str]:
        """The same for what was pushed: what a client had to send twice, since nobody had told it that it is kept, may
        be there twice, in every backend and in the ledger alike.
        """
        sent, acknowledged = entries(self.folder / "diary")
        found = [] if acknowledged * RECORDS == self.rows else [f"acknowledged {acknowledged}"]
        kept = self.ids(self.backends[0])
        letters = self.letters()
        for number in range(self.rows):
            copies = letters[self.raw(number)] if number in self.bad else kept[number]
            if (number in self.bad or number % 10) and not 1 <= copies <= sent[number // RECORDS]:
                found.append(f"{number}: sent {sent[number // RECORDS]} times, stored {copies} times")
        for backend in self.backends:
            ids, (read, _, stored, filtered, set_aside) = self.ids(backend), self.ledger(backend)
            if ids != kept or (stored, set_aside) != (ids.total(), letters.total()):
                found.append(
                    f"{backend}: ledger {self.ledger(backend)} for {ids.total()} of {kept.total()} rows"
                )
            if read != stored + filtered + set_aside:
                found.append(f"{backend}: ledger {self.ledger(backend)} does not balance")
        return found


def _mend(path: Path) -> None:
    """Take back a checkpoint of DuckDB that a power cut has ended, as whoever opens the file next does."""
    undo = Undo(path)
    if undo.exists():
        descriptor = os.open(path, os.O_RDWR)
        undo.take_back(descriptor, finished=False)
        os.close(descriptor)


def _open(path: str):
    if path.endswith(".duckdb"):
        import duckdb

        return duckdb.connect(path)
    return sqlite3.connect(f"file:{path}?mode=rw", uri=True)


def finish(lives: Lives, stack: Stack) -> None:
    """Run to the end without a fault, and compare."""
    ended = lives.life(stack)
    assert (ended.get("exit"), ended.get("errors"), ended.get("balanced")) == (0, [], True), ended
    assert not stack.differences(), stack.differences()


def seeded(*parts: object) -> random.Random:
    return random.Random("-".join(map(str, parts)))
