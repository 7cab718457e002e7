"""The same input, oracle and kills for this product and for its peers; a line each goes to ../results/peers.jsonl.

    make peers                                    makes the peers' virtual environments and runs all of them
    python benchmarks/peers/run.py --only dlt-append --kills 40

A round: a new folder, one life that is killed by SIGKILL before the n-th write, sync or rename, or at a random time, then
lives until one ends by itself, then one more, as a schedule would start it; where four fail, it takes a person. The generator numbers the records and gives
each a CRC; the oracle counts numbers that are missing, there more than once, or wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import environments
import record

HERE = Path(__file__).resolve().parent
KINDS = ("write", "sync", "rename")
RECORDS = 2000
PATIENCE = 60.0
MOST_LIVES = 4

OURS = """\
name: readings
sources: [{type: file, path: INPUT, chunk_size: 16 KiB}]
storage: [STORAGE]
"""
STORAGE = {
    "sqlite": "{type: sqlite, path: out.db, table: readings}",
    "duckdb": "{type: duckdb, path: out.duckdb, table: readings}",
    "parquet": "{type: parquet, path: lake, max_rows: 300}",
}


def generate(path: Path, bad: int = 0) -> dict[int, int]:
    """Write the input, with every so many-th line malformed; return the CRC of each number that is sound."""
    crcs, lines = {}, []
    for seq in range(RECORDS):
        payload = f"payload {seq} " + "x" * (seq % 50)
        crc = zlib.crc32(payload.encode())
        line = json.dumps({"source": "generator", "seq": seq, "crc": crc, "payload": payload})
        if bad and seq % bad == bad // 2:
            line = line[: len(line) // 2]
        else:
            crcs[seq] = crc
        lines.append(line + "\n")
    path.write_text("".join(lines))
    return crcs


@dataclass
class Contestant:
    """How one product is started on a folder, and how its result is read."""

    name: str
    product: str
    settings: str
    python: str
    environment: dict[str, str] = field(default_factory=dict)

    def prepare(self, folder: Path, source: Path) -> None:
        if self.product == "bytewax":
            (folder / "recovery").mkdir()
            self._run(["-m", "bytewax.recovery", str(folder / "recovery"), "1"])
            shutil.copy(HERE / "bytewax_job.py", folder)
        if self.product == "collectors":
            storage = STORAGE[self.name.partition("-")[2]]
            text = OURS.replace("INPUT", str(source)).replace("STORAGE", storage)
            (folder / "p.yaml").write_text(text)

    def command(self, folder: Path, source: Path) -> list[str]:
        arguments = {
            "dlt": [str(HERE / "dlt_job.py"), str(source), str(folder), self.name.partition("-")[2]],
            "bytewax": ["-m", "bytewax.run", "bytewax_job:flow", *["-r", "recovery", "-s", "0", "-b", "0"]],
            "collectors": ["-m", "collectors", "run", "--quiet", "p.yaml"],
        }
        return [self.python, "-W", "ignore", *arguments[self.product]]

    def environ(self, folder: Path, source: Path) -> dict[str, str]:
        own = {
            "PEER_INPUT": str(source),
            "PEER_FOLDER": str(folder),
            "DLT_DATA_DIR": str(folder / "dlt"),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return os.environ | own | self.environment

    def found(self, folder: Path) -> list[tuple[int, int, str]]:
        """Return (seq, crc, payload) of what is stored, by means other than the product's own."""
        if self.product == "bytewax":
            text = (folder / "out.ndjson").read_text() if (folder / "out.ndjson").exists() else ""
            rows = [json.loads(line) for line in text.splitlines()]
            return [(row["seq"], row["crc"], row["payload"]) for row in rows]
        reading = {
            "dlt-append": "duckdb",
            "dlt-merge": "duckdb",
            "collectors-duckdb": "duckdb",
            "collectors-sqlite": "sqlite",
            "collectors-parquet": "parquet",
        }
        table = "ds.readings" if self.product == "dlt" else "readings"
        copy = shutil.copytree(folder, f"{folder}-copy")
        done = self._run(["-c", READERS[reading[self.name]], copy, table])
        shutil.rmtree(copy)
        return [tuple(row) for row in json.loads(done.stdout)]

    def set_aside(self, folder: Path) -> int:
        """Return how many records the product has put aside with a reason; the peers have no place for that."""
        if self.product != "collectors":
            return 0
        done = self._run(["-m", "collectors", "dead-letters", "list", "p.yaml", "--json"], cwd=folder)
        return len(done.stdout.splitlines())

    def version(self) -> str:
        if self.product == "collectors":
            return version("collectors-io")
        done = self._run(["-c", f"import importlib.metadata as m; print(m.version('{self.product}'))"])
        return done.stdout.strip()

    def _run(self, arguments: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.python, "-W", "ignore", *arguments], capture_output=True, text=True, check=False, cwd=cwd
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: {done.stderr}")
        return done


READERS = {
    "duckdb": """
import duckdb, json, os, sys
path = sys.argv[1] + "/out.duckdb"
rows = []
if os.path.exists(path):
    with duckdb.connect(path) as db:
        try:
            rows = db.execute(f"select seq, crc, payload from {sys.argv[2]}").fetchall()
        except duckdb.CatalogException:
            pass
print(json.dumps(rows))
""",
    "sqlite": """
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1] + "/out.db")
there = db.execute("select 1 from sqlite_schema where name = ?", (sys.argv[2],)).fetchone()
print(json.dumps(db.execute(f"select seq, crc, payload from {sys.argv[2]}").fetchall() if there else []))
""",
    "parquet": """
import json, pathlib, sys
import pyarrow.parquet as pq
rows = []
for path in pathlib.Path(sys.argv[1], "lake").rglob("*.parquet"):
    if "_collectors" not in path.parts:
        table = pq.read_table(path, columns=["seq", "crc", "payload"])
        rows += zip(*(column.to_pylist() for column in table.columns))
print(json.dumps(rows))
""",
}


@dataclass
class Life:
    code: int
    seconds: float
    said: str

    @property
    def last_words(self) -> str:
        return next(iter(reversed(self.said.strip().splitlines())), "")[:200]


def live(
    contestant: Contestant, folder: Path, source: Path, shim: dict[str, str], kill_after: float | None
) -> Life:
    """Start the product once; `shim` kills it at a call, `kill_after` at a time."""
    started = time.monotonic()
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(
            contestant.command(folder, source),
            cwd=folder,
            env=contestant.environ(folder, source) | shim,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        try:
            process.wait(kill_after if kill_after is not None else PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        said.seek(0)
        text = said.read()[-2000:].replace(str(folder), "…")
        return Life(process.returncode, time.monotonic() - started, text)


def judge(expected: dict[int, int], found: list[tuple[int, int, str]]) -> dict[str, int]:
    """Compare what is stored with what was generated."""
    numbers = Counter(seq for seq, _, _ in found)
    wrong = sum(
        expected.get(seq) != crc or zlib.crc32(payload.encode()) != crc for seq, crc, payload in found
    )
    return {
        "lost": len(expected.keys() - numbers.keys()),
        "duplicated": sum(count - 1 for count in numbers.values()),
        "wrong": wrong,
    }


def compile_shim(folder: Path) -> Path:
    library = folder / "kill_at.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, HERE / "kill_at.c", "-ldl"], check=True)
    return library


def counted(folder: Path) -> list[int]:
    data = (folder / "counts").read_bytes()
    return [int.from_bytes(data[at : at + 8], "little") for at in (0, 8, 16)]


def plan(counts: list[int], seconds: float, kills: int, random_: random.Random) -> list[tuple[str, float]]:
    """Return where to kill: a quarter each at writes, syncs, renames (evenly spread) and at random times."""
    share = max(1, kills // 4)
    points: list[tuple[str, float]] = []
    for kind, count in zip(KINDS, counts, strict=True):
        step = max(1, count / share)
        points += [(kind, int(n * step) + 1) for n in range(min(share, count))]
    return points + [("time", random_.uniform(0, seconds)) for _ in range(kills - len(points))]


def try_kills(contestant: Contestant, scratch: Path, library: Path, kills: int) -> dict[str, object]:
    source = scratch / "input.ndjson"
    expected = generate(source)

    def fresh() -> Path:
        folder = Path(tempfile.mkdtemp(dir=scratch))
        (folder / "counts").write_bytes(bytes(24))
        contestant.prepare(folder, source)
        return folder

    def shim(folder: Path, kind: int, at: int) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(library),
            "KILL_COUNTS": str(folder / "counts"),
            "KILL_KIND": str(kind),
            "KILL_AT": str(at),
        }

    folder = fresh()
    undisturbed = live(contestant, folder, source, shim(folder, -1, 0), None)
    if undisturbed.code != 0 or any(judge(expected, contestant.found(folder)).values()):
        raise RuntimeError(f"{contestant.name} does not work undisturbed: {undisturbed.said}")
    counts = counted(folder)
    total: Counter[str] = Counter()
    by: Counter[str] = Counter()
    examples: list[str] = []
    for kind, at in plan(counts, undisturbed.seconds, kills, random.Random(1)):  # noqa: S311  # the same times for all
        folder = fresh()
        if kind == "time":
            first = live(contestant, folder, source, {}, float(at))
        else:
            first = live(contestant, folder, source, shim(folder, KINDS.index(kind), int(at)), None)
        if first.code != -9:
            shutil.rmtree(folder)
            continue
        by[kind] += 1
        lives = [live(contestant, folder, source, {}, None)]
        while lives[-1].code != 0 and len(lives) < MOST_LIVES:
            lives.append(live(contestant, folder, source, {}, None))
        live(contestant, folder, source, {}, None)
        if lives[-1].code == 0:
            outcome = judge(expected, contestant.found(folder))
            outcome["rounds_wrong"] = int(any(outcome.values()))
        else:
            outcome = {"manual": 1}
        total.update(outcome)
        if any(outcome.values()) and len(examples) < 5:
            said = lives[-1].last_words if lives[-1].code else ""
            examples.append(f"{kind} {at:.2f}: {outcome} {said}".strip())
        shutil.rmtree(folder)
    names = ("lost", "duplicated", "wrong", "rounds_wrong", "manual")
    return {
        "kills": sum(by.values()),
        "at": dict(by),
        "calls": dict(zip(KINDS, counts, strict=True)),
        **{name: total[name] for name in names},
        "examples": examples,
    }


def try_bad_input(contestant: Contestant, scratch: Path) -> dict[str, object]:
    """One malformed line in a thousand, no kills: what is stored, and what became of the bad lines."""
    source = scratch / "bad.ndjson"
    expected = generate(source, bad=1000)
    folder = Path(tempfile.mkdtemp(dir=scratch))
    contestant.prepare(folder, source)
    lives = [live(contestant, folder, source, {}, None) for _ in range(3)]
    outcome = judge(expected, contestant.found(folder))
    return {
        "bad_lines": RECORDS - len(expected),
        "good_lines_missing": outcome["lost"],
        "duplicated": outcome["duplicated"],
        "set_aside": contestant.set_aside(folder),
        "exit_codes": [life.code for life in lives],
        "said": lives[-1].last_words,
    }


def contestants(only: list[str]) -> list[Contestant]:
    all_ = {
        "dlt-append": (
            "dlt",
            "filesystem | read_jsonl, incremental by modification_date; write_disposition=append",
        ),
        "dlt-merge": ("dlt", "the same, write_disposition=merge, primary_key=seq"),
        "bytewax": ("bytewax", "FileSource → FileSink, recovery -s 0 -b 0"),
        "collectors-sqlite": ("collectors", "file → sqlite"),
        "collectors-parquet": ("collectors", "file → parquet, max_rows 300"),
        "collectors-duckdb": ("collectors", "file → duckdb"),
    }
    chosen = []
    for name, (product, settings) in all_.items():
        if only and name not in only:
            continue
        if (
            name == "collectors-duckdb"
            and importlib.util.find_spec("collectors.storage.backends.duckdb") is None
        ):
            continue
        python = sys.executable if product == "collectors" else environments.python_of(product)
        chosen.append(Contestant(name, product, settings, python))
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--kills", type=int, default=80)
    options = parser.parse_args()
    for contestant in contestants(options.only):
        with tempfile.TemporaryDirectory() as scratch:
            library = compile_shim(Path(scratch))
            started = time.monotonic()
            about = record.circumstances()
            line = {
                "contestant": contestant.name,
                "version": contestant.version(),
                "settings": contestant.settings,
                "at_time": about.pop("at"),
                **about,
                "records": RECORDS,
                **try_kills(contestant, Path(scratch), library, options.kills),
                "bad_input": try_bad_input(contestant, Path(scratch)),
                "seconds": 0.0,
                "command": f"python benchmarks/peers/run.py --only {contestant.name} --kills {options.kills}",
            }
            line["seconds"] = round(time.monotonic() - started, 1)
        print(json.dumps(line), flush=True)
        record.append("peers.jsonl", line)


if __name__ == "__main__":
    main()
