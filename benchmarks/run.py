"""How fast pipelines are beside their peers, on the same work and in the same run.

    make bench                                     everything, recorded
    python benchmarks/run.py --only parquet one    some jobs

Every contestant is a process of its own, from its start to its end: interpreter, imports and all. Ours is `collectors run`
on a file of benchmarks/pipelines as it stands there, with positions, ledger, dead letters and fsync. "One core" is
`taskset -c 1`. The contestants of a job take turns, `--rounds` times (3), the page cache is warm, and `sync` is called
before each; the median counts. What was stored is counted from outside each time, and must be right. CPU is that of
the process and those it started; a database server's is not in it. Memory is the largest process's peak.

With `--record` each result becomes a line in results/throughput.jsonl, from which the chart and docs/performance.md are made.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import environments
import inputs
import record

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
PIPELINES = HERE / "pipelines"


@dataclass(frozen=True)
class Contestant:
    """One product on one job; `command` is given the number of cores."""

    name: str
    version: Callable[[], str]
    command: Callable[[int], list[str]]
    found: str
    """How `outputs.py` counts what it has stored."""
    cores: tuple[int, ...] = (1, 2)
    file: str = ""
    records: int = inputs.SENSORS


@dataclass(frozen=True)
class Job:
    name: str
    title: str
    contestants: list[Contestant]
    checks_sum: bool = True
    rows: int | None = None
    """How many rows come out; None: as many readings as pass the filter."""


@dataclass
class Runs:
    """What was measured of one contestant on so many cores."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)


class Bench:
    """The folder of inputs and what the contestants share."""

    def __init__(self, folder: Path) -> None:
        self.data = inputs.inputs(folder)
        self.expected = inputs.expected(folder)

    def jobs(self) -> list[Job]:
        ours, dlt, duckdb, bytewax = self._ours, self._dlt, self._duckdb, self._bytewax
        return [
            Job(
                "parquet",
                "NDJSON, filter, a new column, Parquet",
                [ours("parquet"), dlt("parquet"), bytewax("parquet", (1,)), duckdb("parquet")],
            ),
            Job("sqlite", "the same into SQLite", [ours("sqlite"), dlt("sqlite")]),
            Job("duckdb", "the same into DuckDB", [ours("duckdb"), dlt("duckdb"), duckdb("duckdb")]),
            Job("postgres", "the same into PostgreSQL", [ours("postgres"), dlt("postgres")]),
            Job(
                "access-log",
                "access log into fields; ours: Parquet, rsyslog: NDJSON",
                [ours("access-log", "parquet", records=inputs.LINES), self._rsyslog()],
                checks_sum=False,
                rows=inputs.LINES,
            ),
            Job(
                "python",
                "a Python function for every record, NDJSON to NDJSON",
                [ours("python", "lines"), bytewax("python", (1, 2))],
            ),
            Job(
                "nested",
                "nested JSON into Parquet; dlt: a tenth of the records",
                [
                    ours("nested", "parquet", (1,), inputs.EVENTS),
                    Contestant(
                        "dlt",
                        lambda: installed("dlt"),
                        lambda _: [
                            python("dlt"),
                            str(PEERS / "dlt_records.py"),
                            str(self.data / "few-events.ndjson"),
                        ],
                        "parquet",
                        (1,),
                        "dlt_records.py",
                        inputs.FEW_EVENTS,
                    ),
                ],
                checks_sum=False,
                rows=inputs.EVENTS,
            ),
            Job(
                "one",
                "a single record, into Parquet",
                [
                    ours("one", "parquet", (1,), 1),
                    self._dlt("parquet", "one.ndjson", (1,), 1),
                ],
                checks_sum=False,
                rows=1,
            ),
        ]

    def _ours(
        self, name: str, found: str = "", cores: tuple[int, ...] = (1, 2), records: int = inputs.SENSORS
    ) -> Contestant:
        command = [sys.executable, "-m", "collectors", "run", "--quiet", f"{name}.yaml"]
        return Contestant(
            "collectors",
            lambda: version("collectors-io"),
            lambda _: command,
            found or name,
            cores,
            f"{name}.yaml",
            records,
        )

    def _dlt(
        self,
        kind: str,
        file: str = "sensors.ndjson",
        cores: tuple[int, ...] = (1, 2),
        records: int = inputs.SENSORS,
    ) -> Contestant:
        return Contestant(
            "dlt (Arrow)",
            lambda: installed("dlt"),
            lambda cores: [
                python("dlt"),
                str(PEERS / "dlt_tables.py"),
                str(self.data / file),
                kind,
                str(cores),
            ],
            kind,
            cores,
            "dlt_tables.py",
            records,
        )

    def _duckdb(self, kind: str) -> Contestant:
        return Contestant(
            "DuckDB alone",
            lambda: installed("duckdb"),
            lambda cores: [
                python("duckdb"),
                str(PEERS / "duckdb_copy.py"),
                str(self.data / "sensors.ndjson"),
                kind,
                str(cores),
            ],
            kind,
            file="duckdb_copy.py",
        )

    def _bytewax(self, name: str, cores: tuple[int, ...]) -> Contestant:
        return Contestant(
            "Bytewax (orjson)",
            lambda: installed("bytewax"),
            lambda cores: [python("bytewax"), "-m", "bytewax.run", f"bytewax_{name}:flow", "-w", str(cores)],
            {"parquet": "parquet", "python": "lines"}[name],
            cores,
            f"bytewax_{name}.py",
        )

    def _rsyslog(self) -> Contestant:
        return Contestant(
            "rsyslog",
            lambda: subprocess.run(
                [rsyslogd() or "", "-v"], capture_output=True, text=True, check=True
            ).stdout.split()[1],
            lambda _: [sys.executable, str(PEERS / "rsyslog_fields.py"), str(self.data / "access.log")],
            "lines",
            file="rsyslog_fields.py",
            records=inputs.LINES,
        )

    def measure(self, job: Job, rounds: int) -> Iterator[dict[str, object]]:
        """Run a job and yield a line for each contestant and number of cores."""
        entries = [
            (contestant, cores)
            for cores in (1, 2)
            for contestant in job.contestants
            if cores in contestant.cores and (contestant.name != "rsyslog" or rsyslogd())
        ]
        runs = [Runs() for _ in entries]
        for _ in range(rounds):
            for (contestant, cores), taken in zip(entries, runs, strict=True):
                self._run(job, contestant, cores, taken)
        for (contestant, cores), taken in zip(entries, runs, strict=True):
            yield {
                "job": job.name,
                "title": job.title,
                "contestant": contestant.name,
                "version": contestant.version(),
                "cores": cores,
                "records": contestant.records,
                "wall_s": [round(value, 3) for value in taken.wall],
                "cpu_s": round(statistics.median(taken.cpu), 3),
                "records_per_second": round(contestant.records / statistics.median(taken.wall), 2),
                "records_per_cpu_second": round(contestant.records / statistics.median(taken.cpu), 2),
                "peak_mib": round(max(taken.peak), 1),
                "file": contestant.file,
            }

    def _run(self, job: Job, contestant: Contestant, cores: int, taken: Runs) -> None:
        with tempfile.TemporaryDirectory(dir=self.data.parent) as folder, ExitStack() as stack:
            (Path(folder) / "out").mkdir()
            if contestant.name == "collectors":  # paths in a pipeline are meant from its own folder
                shutil.copy(PIPELINES / contestant.file, folder)
            environ = {
                key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"
            } | {
                "BENCH_INPUT": str(self.data),
                "PYTHONPATH": os.pathsep.join((str(PEERS), str(PIPELINES))),
                "DLT_DATA_DIR": f"{folder}/out/pipelines",
                "RUNTIME__DLTHUB_TELEMETRY": "false",
                "RUNTIME__LOG_LEVEL": "ERROR",
                "NORMALIZE__DATA_WRITER__COMPRESSION": "zstd",
                "SOURCES__DATA_WRITER__COMPRESSION": "zstd",
            }
            if contestant.found == "postgres":
                environ["BENCH_DSN"] = stack.enter_context(database())
            command = contestant.command(cores)
            os.sync()
            wall, cpu, peak = timed(
                ["taskset", "-c", "1", *command] if cores == 1 else command, Path(folder), environ
            )
            self._check(job, contestant, Path(folder), environ)
        taken.wall.append(wall)
        taken.cpu.append(cpu)
        taken.peak.append(peak)

    def _check(self, job: Job, contestant: Contestant, folder: Path, environ: dict[str, str]) -> None:
        done = subprocess.run(
            [sys.executable, str(HERE / "outputs.py"), contestant.found],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env=environ,
        )
        if done.returncode != 0:
            raise SystemExit(f"{job.name}, {contestant.name}: the output cannot be read: {done.stderr}")
        found = json.loads(done.stdout)
        rows = self.expected["rows"] if job.rows is None else min(job.rows, contestant.records)
        right = found["rows"] == rows
        if job.checks_sum:
            right = right and abs(found["sum"] - self.expected["sum"]) < 1e-9 * self.expected["sum"]
        if not right:
            raise SystemExit(f"{job.name}, {contestant.name}: {found} is stored, {rows} rows were expected")


def timed(command: list[str], folder: Path, environ: dict[str, str]) -> tuple[float, float, float]:
    """Run a command; return seconds, seconds of CPU and peak MiB."""
    with (folder / "out/out.ndjson").open("wb") as out, (folder / "said").open("w+b") as said:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=out, stderr=said, stdin=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} failed: {said.read().decode()[-3000:]}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


@contextmanager
def database() -> Iterator[str]:
    """Yield the address of a new PostgreSQL server, which runs on all cores."""
    from collectors.testing.postgres_server import PostgresServer

    with PostgresServer() as server:
        yield server.dsn.replace("postgres@", "postgres:unused@")  # dlt insists on a password


def python(peer: str) -> str:
    return environments.python_of(peer)


def installed(name: str) -> str:
    asked = f"import importlib.metadata as m; print(m.version('{name}'))"
    done = subprocess.run([python(name), "-c", asked], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def rsyslogd() -> str | None:
    return shutil.which("rsyslogd", path="/usr/sbin:" + os.environ["PATH"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=[], metavar="JOB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=HERE / ".data", help="where the inputs are or are made")
    parser.add_argument("--record", action="store_true", help="append to results/throughput.jsonl")
    options = parser.parse_args()
    bench = Bench(options.data.resolve())
    about = record.circumstances()
    if not rsyslogd():
        print(
            "rsyslogd is not installed (Debian: apt install rsyslog): that row is left out", file=sys.stderr
        )
    for job in bench.jobs():
        if options.only and job.name not in options.only:
            continue
        for line in bench.measure(job, options.rounds):
            print(
                f"{line['job']:11} {line['contestant']:17} {line['cores']} core(s) "
                f"{line['records_per_second']:>12,.2f} records/s  CPU {line['cpu_s']:>6.2f} s  {line['peak_mib']:>6,.0f} MiB",
                flush=True,
            )
            if options.record:
                record.append("throughput.jsonl", about | line)
    if options.record:
        subprocess.run([environments.python_of("chart"), HERE / "chart.py"], check=True)


if __name__ == "__main__":
    main()
