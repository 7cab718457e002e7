"""How many records a second can be pushed over HTTP when each answer waits for the disk.

python benchmarks/push.py [--seconds 10] [--connections 32] [--records 64] [--size 1000] [--storage parquet] [--rate 20000]

A pipeline (webhook → storage) and a client run in processes of their own on this machine. The client sends requests of
`records` NDJSON records of `size` bytes over several connections, each waiting for its answer: 200 means that the spool
has them on disk. The first second is left out. When the client stops, the pipeline goes on until all is stored, and the
storage is counted: nothing may be missing and nothing twice. Beside it stands what the disk can do: 64-record frames
written and synced one by one, with nothing else. `--record` appends the figures to results/reliability.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import record as results

PIPELINE = """
name: push
memory: 512 MiB
sources:
  - {{type: webhook, id: events, listen: "127.0.0.1:{port}", path: /events}}
storage:
  - {storage}
"""
STORAGES = {
    "parquet": "{type: parquet, path: lake/events}",
    "sqlite": "{type: sqlite, path: push.db, table: events}",
}


def record(number: int, size: int) -> bytes:
    """Return a record of so many bytes that looks like an event."""
    fields = {
        "id": number,
        "time": f"2026-11-23T08:{number // 60 % 60:02d}:{number % 60:02d}Z",
        "device": f"dev-{number % 500}",
        "temperature": number % 700 / 10,
        "status": "ok" if number % 25 else "fail",
        "message": "",
    }
    bare = len(json.dumps(fields)) + 1
    fields["message"] = ("the quick brown fox jumps over the lazy dog " * (size // 40 + 1))[
        : max(0, size - bare)
    ]
    return json.dumps(fields).encode() + b"\n"


class Connection(threading.Thread):
    """Sends one request after the other until told to stop."""

    def __init__(self, port: int, bodies: list[bytes], stop: threading.Event, interval: float) -> None:
        super().__init__()
        self.answers: list[tuple[float, float]] = []
        self.turned_away = 0
        self._bodies = bodies
        self._stop_event = stop
        self._interval = interval
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self) -> None:
        """Send."""
        turn, due = 0, time.perf_counter()
        while not self._stop_event.is_set():
            due += self._interval
            time.sleep(max(0.0, due - time.perf_counter()) if self._interval else 0)
            body = self._bodies[turn % len(self._bodies)]
            turn += 1
            head = b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            started = time.perf_counter()
            self._socket.sendall(head + body)
            answer = b""
            while b"}" not in answer:
                piece = self._socket.recv(65536)
                if not piece:
                    raise ConnectionError(answer)
                answer += piece
            if b" 200 " in answer[:16]:
                self.answers.append((time.perf_counter(), time.perf_counter() - started))
            else:
                self.turned_away += 1
                time.sleep(0.05)


def client(arguments: argparse.Namespace) -> None:
    """Send for the time that was asked for and print what was answered, as JSON."""
    numbers = range(arguments.records)
    bodies = [
        b"".join(record(turn * arguments.records + n, arguments.size) for n in numbers) for turn in range(16)
    ]
    stop = threading.Event()
    interval = arguments.connections * arguments.records / arguments.rate if arguments.rate else 0
    connections = [Connection(arguments.client, bodies, stop, interval) for _ in range(arguments.connections)]
    started = time.perf_counter()
    for connection in connections:
        connection.start()
    time.sleep(arguments.seconds + 1)
    stop.set()
    for connection in connections:
        connection.join()
    answers = [each for connection in connections for each in connection.answers]
    counted = [seconds for at, seconds in answers if started + 1 <= at <= started + 1 + arguments.seconds]
    sys.stdout.write(
        json.dumps(
            {
                "answered": len(answers),
                "per_second": len(counted) / arguments.seconds,
                "median_ms": statistics.median(counted) * 1000,
                "p99_ms": statistics.quantiles(counted, n=100)[98] * 1000,
                "turned_away": sum(connection.turned_away for connection in connections),
                "cpu": time.process_time(),
            }
        )
    )


def fsync_rate(folder: Path, size: int) -> float:
    """Return how many writes of so many bytes a second the disk makes durable, one by one."""
    descriptor = os.open(folder / "probe", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    data, count, started = os.urandom(size), 0, time.perf_counter()
    while time.perf_counter() - started < 1:
        os.write(descriptor, data)
        os.fdatasync(descriptor)
        count += 1
    os.close(descriptor)
    return count / (time.perf_counter() - started)


def stored(folder: Path, storage: str) -> int:
    """Return how many rows the storage has."""
    if storage == "sqlite":
        import sqlite3

        (count,) = sqlite3.connect(folder / "push.db").execute("SELECT count(*) FROM events").fetchone()
        return int(count)
    import pyarrow.dataset as ds

    return int(
        ds.dataset(folder / "lake" / "events", format="parquet", exclude_invalid_files=True).count_rows()
    )


def wait_until_it_listens(port: int, pipeline: subprocess.Popen[bytes]) -> None:
    """Return when the pipeline answers."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if pipeline.poll() is not None:
                raise SystemExit("the pipeline did not start") from None
            time.sleep(0.05)
        else:
            return


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Run pipeline and client once and return the figures."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (folder / "push.yaml").write_text(PIPELINE.format(port=port, storage=STORAGES[arguments.storage]))
    rate = fsync_rate(folder, arguments.records * arguments.size)
    command = [sys.executable, "-m", "collectors", "run", "push.yaml", "--json", "--drain", "10m"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as pipeline:
        wait_until_it_listens(port, pipeline)
        load = [each for each in sys.argv[1:] if not each.startswith("--client")]
        done = subprocess.run(
            [sys.executable, __file__, *load, "--client", str(port)], check=True, capture_output=True
        )
        sent = time.perf_counter()
        figures: dict[str, float] = json.loads(done.stdout)
        pipeline.send_signal(signal.SIGTERM)
        report = json.loads(pipeline.communicate()[0])
        figures["drained_in"] = time.perf_counter() - sent
    figures["fsync_rate"] = rate
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures["pipeline_cpu"] = used.ru_utime + used.ru_stime - figures["cpu"]
    figures["stored"] = stored(folder, arguments.storage)
    figures["peak_mib"] = report["peak_memory_bytes"] / 2**20
    figures["chunks"] = sum(flow["chunks"] for flow in report["flows"])
    figures["balanced"] = report["balanced"]
    return figures


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--records", type=int, default=64, help="records in a request")
    parser.add_argument("--size", type=int, default=1000, help="bytes of a record")
    parser.add_argument("--rate", type=float, help="records a second; as many as possible when left out")
    parser.add_argument("--storage", choices=STORAGES, default="parquet")
    parser.add_argument("--folder", type=Path, help="where to work; a disk, not memory")
    parser.add_argument(
        "--record", action="store_true", help="append the figures to results/reliability.jsonl"
    )
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        client(arguments)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder or Path.cwd()) as folder:
        found = measure(arguments, Path(folder))
    expected = found["answered"] * arguments.records
    rate = found["per_second"] * arguments.records
    print(
        f"{arguments.connections} connections, requests of {arguments.records} x {arguments.size} bytes, {arguments.storage}"
    )
    for name, value in [
        ("records/s, answered behind fsync", f"{rate:,.0f}"),
        ("MB/s", f"{rate * arguments.size / 1e6:,.1f}"),
        ("requests/s", f"{found['per_second']:,.0f}"),
        ("time to the answer, median / p99", f"{found['median_ms']:.1f} / {found['p99_ms']:.1f} ms"),
        ("turned away (503)", f"{found['turned_away']:,}"),
        ("the disk: durable writes of one request, one by one", f"{found['fsync_rate']:,.0f}/s"),
        ("answered = stored", f"{expected:,} = {found['stored']:,.0f}"),
        ("until all was stored", f"{found['drained_in']:.1f} s"),
        ("peak memory of the pipeline", f"{found['peak_mib']:.0f} MiB"),
        ("CPU of the pipeline for a million records", f"{found['pipeline_cpu'] / expected * 1e6:.1f} s"),
        ("CPU of the client for a million records", f"{found['cpu'] / expected * 1e6:.1f} s"),
    ]:
        print(f"  {name:52} {value}")
    if expected != found["stored"] or not found["balanced"]:
        raise SystemExit("not every record that was answered is stored exactly once")
    if arguments.record:
        results.append(
            "reliability.jsonl",
            {
                "figure": "durable acknowledgements over HTTP push",
                **results.circumstances(),
                "storage": arguments.storage,
                "load": f"at {arguments.rate:,.0f}/s" if arguments.rate else "as many as possible",
                "records_per_request": arguments.records,
                "record_bytes": arguments.size,
                "connections": arguments.connections,
                "records_per_second": round(rate),
                "fsyncs_of_the_disk_per_second": round(found["fsync_rate"]),
                "median_ms": round(found["median_ms"], 1),
                "p99_ms": round(found["p99_ms"], 1),
                "answered": expected,
                "stored": found["stored"],
            },
        )


if __name__ == "__main__":
    main()
