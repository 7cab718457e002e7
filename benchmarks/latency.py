"""How long it takes from the arrival of a record until it is stored, at rates that are given.

    make bench-latency                                        recorded
    python benchmarks/latency.py --sources socket --rates 1000

A program writes records of about 100 bytes, one by one at up to 1,000 a second, in bursts each millisecond beyond that: to the
`socket` source over TCP, to the standard input of `collectors run`, or to the end of a file that is followed. Each
carries the time at which it was written. It is stored in SQLite when the commit has returned, with its fsync; a storage
that does what `sqlite` does, and looks at the clock then, notes that (pipelines/noting.py). Up to 1,000 records a second
somebody else reads the new rows each millisecond meanwhile, and says when they were seen. What comes over a socket or a
pipe is measured with `latency: low` too, where there is more than a record a second.

The program writes at times that are fixed beforehand. When it is late, since the machine is busy or the pipeline takes
nothing, the records' own times hide that; so p99 is also given from the time at which they were due. The first record,
with which tables are made, is left out. Beside it stands how long the disk takes for one durable write.

With `--record` each result becomes a line in results/latency.jsonl, from which docs/performance.md and the chart are made.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from itertools import product
from pathlib import Path
from typing import Any

import environments
import psutil
import pyarrow as pa
import record
from push import fsync_rate, wait_until_it_listens

HERE = Path(__file__).resolve().parent
PIPELINE = """\
name: latency
latency: {latency}
sources:
  - {source}
storage:
  - {{type: "noting:Noting", id: sqlite, path: out.db, table: events}}
"""
SOURCES = {
    "socket": '{{type: socket, id: events, listen: "tcp://127.0.0.1:{port}", format: ndjson}}',
    "stdin": "{{type: stdin, id: events}}",
    "file": "{{type: file, id: events, path: events.ndjson, follow: true}}",
}
MOST_WATCHED = 1000
Write = Callable[[bytes], Any]


def line_of(n: int, due: int) -> bytes:
    """Return a record with the time at which it should have been written, and that at which it is."""
    return b'{"n":%d,"due":%d,"sent":%d,"device":"dev-7","temperature":21.5}\n' % (
        n,
        due,
        time.monotonic_ns(),
    )


def send(write: Write, rate: int, seconds: float) -> int:
    """Write so many records a second, and return how many it were."""
    burst = max(1, rate // 1000)
    interval = burst * 1_000_000_000 // rate
    count = max(1, round(rate * seconds / burst))
    start = time.monotonic_ns()
    for turn in range(count):
        due = start + turn * interval
        while (wait := due - time.monotonic_ns()) > 0:
            time.sleep(wait / 1e9)
        write(b"".join(line_of(turn * burst + n, due) for n in range(burst)))
    return count * burst


class Watcher(threading.Thread):
    """Reads the new rows of the database each millisecond, and keeps how long ago they were sent."""

    def __init__(self, database: Path) -> None:
        super().__init__()
        self.milliseconds: list[float] = []
        self._database = database
        self._stopping = threading.Event()

    def run(self) -> None:
        """Read until stopped."""
        last = 0
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)) as connection:
            while not self._stopping.wait(0.001):
                rows = connection.execute(
                    "SELECT _collectors_row, sent FROM events WHERE n >= 0 AND _collectors_row > ?", (last,)
                ).fetchall()
                now = time.monotonic_ns()
                self.milliseconds += [(now - sent) / 1e6 for _, sent in rows]
                last = max([last, *(row for row, _ in rows)])

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self.join()


def start(folder: Path, source: str, latency: str, stack: ExitStack) -> tuple[subprocess.Popen[bytes], Write]:
    """Start a pipeline and return it with that which writes to its source."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text = PIPELINE.format(latency=latency, source=SOURCES[source].format(port=port))
    (folder / "latency.yaml").write_text(text, encoding="utf-8")
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "collectors", "run", "latency.yaml", "--json"]
    pipeline = stack.enter_context(
        subprocess.Popen(
            command,
            cwd=folder,
            env=environ | {"PYTHONPATH": str(HERE / "pipelines")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    )
    stack.callback(pipeline.kill)
    if source == "socket":
        wait_until_it_listens(port, pipeline)
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return pipeline, connection.sendall
    if source == "stdin":
        number = pipeline.stdin.fileno()
        return pipeline, lambda data: os.write(number, data)
    return pipeline, stack.enter_context((folder / "events.ndjson").open("ab", buffering=0)).write


def wait_for_rows(database: Path, pipeline: subprocess.Popen[bytes], count: int) -> None:
    """Return when so many rows are stored."""
    until = time.monotonic() + 60
    while time.monotonic() < until and pipeline.poll() is None:
        with (
            suppress(sqlite3.OperationalError),
            closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection,
        ):
            if connection.execute("SELECT count(*) FROM events").fetchone()[0] >= count:
                return
        time.sleep(0.05)
    raise SystemExit(f"there are no {count:,} rows in {database}")


def measure(folder: Path, source: str, latency: str, rate: int, seconds: float) -> dict[str, Any]:
    """Run the pipeline and the program once, and return a line of figures."""
    sync = 1000 / fsync_rate(folder, 4096)
    database = folder / "out.db"
    with ExitStack() as stack:
        pipeline, write = start(folder, source, latency, stack)
        write(line_of(-1, 0))
        wait_for_rows(database, pipeline, 1)
        watcher = Watcher(database) if rate <= MOST_WATCHED else None
        if watcher is not None:
            watcher.start()
        process = psutil.Process(pipeline.pid)
        before, began = process.cpu_times(), time.monotonic()
        sent = send(write, rate, seconds)
        wait_for_rows(database, pipeline, sent + 1)
        after, took = process.cpu_times(), time.monotonic() - began
        if watcher is not None:
            watcher.stop()
        pipeline.send_signal(signal.SIGTERM)
        report = json.loads(pipeline.communicate()[0])
    cpu = after.user + after.system - before.user - before.system
    return {
        "source": source,
        "latency": latency,
        "rate": rate,
        "seconds": seconds,
        **figures(folder / "notes.arrow", sent, took),
        **({} if watcher is None else seen(watcher.milliseconds)),
        "cpu_cores": round(cpu / took, 3),
        "cpu_us_per_record": round(cpu / sent * 1e6, 1),
        "peak_mib": round(report["peak_memory_bytes"] / 2**20, 1),
        "disk_sync_ms": round(sync, 2),
    }


def figures(notes: Path, sent: int, took: float) -> dict[str, Any]:
    """Return what the storage has noted. Stops when a record is missing or there twice."""
    with pa.memory_map(str(notes)) as file:
        columns = pa.ipc.open_file(file).read_all().to_pydict()
    rows = [
        row
        for row in zip(*(columns[name] for name in ("n", "due", "sent", "stored")), strict=True)
        if row[0] >= 0
    ]
    if sorted(row[0] for row in rows) != list(range(sent)):
        raise SystemExit(f"{sent:,} records were sent, {len(rows):,} others are stored")
    latencies = sorted((stored - at) / 1e6 for _, _, at, stored in rows)
    commits = Counter(row[3] for row in rows)
    return {
        "records": sent,
        "p50_ms": round(part(latencies, 0.5), 2),
        "p99_ms": round(part(latencies, 0.99), 2),
        "max_ms": round(latencies[-1], 2),
        "p99_since_due_ms": round(part(sorted((row[3] - row[1]) / 1e6 for row in rows), 0.99), 2),
        "commits_per_second": round(len(commits) / took, 1),
        "rows_per_commit": round(statistics.fmean(commits.values()), 1),
        "most_rows_in_a_commit": max(commits.values()),
    }


def seen(milliseconds: list[float]) -> dict[str, float]:
    """Return what somebody who reads the database sees."""
    found = sorted(milliseconds)
    return {"seen_p50_ms": round(part(found, 0.5), 2), "seen_p99_ms": round(part(found, 0.99), 2)}


def part(values: list[float], share: float) -> float:
    """Return the value that so great a share of the sorted values is not above."""
    return values[min(len(values) - 1, int(share * len(values)))]


def show(line: dict[str, Any]) -> None:
    """Print a result."""
    reader = f", seen {line['seen_p50_ms']:.1f} / {line['seen_p99_ms']:.1f}" if "seen_p50_ms" in line else ""
    print(
        f"{line['source']:7} {line['latency']:6} {line['rate']:>6,}/s  p50 / p99 / max {line['p50_ms']:.1f} / {line['p99_ms']:.1f} / {line['max_ms']:.1f} ms"
        f" (since due: p99 {line['p99_since_due_ms']:.1f}){reader}; {line['commits_per_second']:.1f} commits/s of "
        f"{line['rows_per_commit']:.1f} rows, at most {line['most_rows_in_a_commit']:,}; {line['cpu_cores']:.2f} cores, "
        f"{line['cpu_us_per_record']:,.0f} µs a record; {line['peak_mib']:.0f} MiB; disk {line['disk_sync_ms']:.2f} ms",
        flush=True,
    )


def lines(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure each source at each rate, slow rates long enough for some records."""
    for source, rate, latency in product(options.sources, options.rates, ("normal", "low")):
        if latency == "low" and (rate == 1 or source == "file"):
            continue  # nothing gathers there
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            yield measure(Path(folder), source, latency, rate, max(options.seconds, options.least / rate))


def main() -> None:
    """Measure, print, and record if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--rates", nargs="+", type=int, default=[1, 1000, 20_000], help="records a second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--least", type=int, default=50, help="how many records are sent at least")
    parser.add_argument("--folder", type=Path, default=HERE, help="where to work; a disk, not memory")
    parser.add_argument("--record", action="store_true", help="append to results/latency.jsonl")
    options = parser.parse_args()
    about = record.circumstances()
    for line in lines(options):
        show(line)
        if options.record:
            record.append("latency.jsonl", about | line)
    if options.record:
        subprocess.run([environments.python_of("chart"), HERE / "chart.py"], check=True)


if __name__ == "__main__":
    main()
