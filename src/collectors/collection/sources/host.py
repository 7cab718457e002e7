"""This machine's metrics: CPU, load, memory, disks, network, processes.

    source:
      type: host
      every: 10s
      metrics: [cpu, memory, disk]

Each reading gives one record for each thing that is measured. Every record has `time` (of the reading, UTC), `host`,
`kind` and `name`, and the columns of its kind; sizes are bytes, percentages run from 0 to 100, times are seconds:

- `cpu` (name `all`, with `per_cpu` also `0`, `1`, …): `percent` busy, of it `user_percent`, `system_percent`,
  `iowait_percent` (Linux), since the reading before, null in the first; `cores`
- `load` (`system`): `load_1m`, `load_5m`, `load_15m`, the mean number of processes that could run
- `memory` (`physical`, `swap`): `total_bytes`, `used_bytes`, `available_bytes`, `percent` used
- `disk` (the mount point): `device`, `filesystem`, `total_bytes`, `used_bytes`, `available_bytes`, `percent` used
- `disk_io` (the device, unless it never did anything; with the metric `disk`): `reads`, `writes`, `read_bytes`, `written_bytes`, counted since the
  machine started; `read_bytes_per_second`, `written_bytes_per_second` since the reading before, null in the first
- `network` (the interface): `received_bytes`, `sent_bytes`, `received_packets`, `sent_packets`, `errors`, `drops`,
  counted since the machine started; `received_bytes_per_second`, `sent_bytes_per_second` as above
- `process` (the program's name): `pid`, `user`, `status`, `percent` of one core since the reading before, null in the
  first; `memory_bytes` resident, `threads`, `started`

Delivery: exactly once from the spool on; a reading cannot be made again.
Position: none.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Literal

import msgspec
import psutil
from pydantic import Field

from collectors.collection.base import Source, SourceConfig
from collectors.models import CollectedData, Position

__all__ = ["COMPONENT", "HostConfig", "HostSource"]

_EVERY_SECONDS = 10.0
Record = dict[str, Any]


class HostConfig(SourceConfig):
    """Settings of the host source; `every` is 10 s when left out."""

    metrics: list[Literal["cpu", "load", "memory", "disk", "network", "processes"]] = Field(
        default=["cpu", "load", "memory", "disk", "network"], min_length=1
    )
    """What to measure."""
    per_cpu: bool = False
    """Give a record for each CPU, too."""
    top: int = Field(default=20, ge=1)
    """Of the processes, give so many: those that used most CPU, then those that hold most memory."""
    once: bool = False
    """Make one reading and end."""


class HostSource(Source[HostConfig]):
    """Makes one chunk of each reading; rates are between two readings of the same object."""

    def __init__(self, config: HostConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._rates = _Rates()

    def poll_interval(self) -> float | None:
        """Read again after `every`, or 10 s; never with `once`."""
        if self.config.once:
            return None
        return _EVERY_SECONDS if self.config.every is None else self.config.every

    def needs_spool(self) -> bool:
        """Return True: a reading cannot be made again."""
        return True

    def format(self) -> dict[str, Any]:
        """Return NDJSON whose times are timestamps."""
        columns = {"time": "timestamp"}
        if "processes" in self.config.metrics:
            columns["started"] = "timestamp"
        return {"type": "ndjson", "columns": columns}

    def read(self, since: Position | None) -> Iterator[CollectedData]:
        """Yield one reading."""
        common = {"time": self.now(), "host": socket.gethostname()}
        self._rates.next_reading(monotonic())
        lines = [
            msgspec.json.encode({**common, **record})
            for metric in dict.fromkeys(self.config.metrics)
            for record in getattr(self, f"_{metric}")()
        ]
        yield self.chunk(b"".join(line + b"\n" for line in lines), None, records=len(lines))

    def _cpu(self) -> Iterator[Record]:
        times = [("all", psutil.cpu_times())]
        if self.config.per_cpu:
            times += [(str(number), each) for number, each in enumerate(psutil.cpu_times(percpu=True))]
        for name, spent in times:
            record: Record = {"kind": "cpu", "name": name, **self._shares(name, spent._asdict())}
            if name == "all":
                record["cores"] = psutil.cpu_count()
            yield record

    def _shares(self, name: str, spent: dict[str, float]) -> Record:
        """Return how the CPU time since the reading before is divided; guests' time is in `user` already."""
        parts = {part: seconds for part, seconds in spent.items() if not part.startswith("guest")}
        deltas = {part: self._rates.delta(("cpu", name, part), seconds) for part, seconds in parts.items()}
        known = {part: max(0.0, delta) for part, delta in deltas.items() if delta is not None}
        total = sum(known.values())

        def percent(*names: str) -> float | None:
            return round(100 * sum(known.get(part, 0.0) for part in names) / total, 2) if total else None

        busy = [part for part in known if part not in {"idle", "iowait"}]
        shares = {
            "percent": percent(*busy),
            "user_percent": percent("user", "nice"),
            "system_percent": percent("system", "irq", "softirq"),
        }
        if "iowait" in spent:
            shares["iowait_percent"] = percent("iowait")
        return shares

    def _load(self) -> Iterator[Record]:
        one, five, fifteen = psutil.getloadavg()
        yield {"kind": "load", "name": "system", "load_1m": one, "load_5m": five, "load_15m": fifteen}

    def _memory(self) -> Iterator[Record]:
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        for name, found, available in (
            ("physical", memory, memory.available),
            ("swap", swap, swap.free),
        ):
            yield {
                "kind": "memory",
                "name": name,
                "total_bytes": found.total,
                "used_bytes": found.used,
                "available_bytes": available,
                "percent": float(found.percent),
            }

    def _disk(self) -> Iterator[Record]:
        mounted = {each.mountpoint: each for each in psutil.disk_partitions(all=False)}
        for name in sorted({"/", *mounted}):
            try:
                usage = psutil.disk_usage(name)
            except OSError:
                continue  # unmounted since it was listed, or not for us to look at
            yield {
                "kind": "disk",
                "name": name,
                "device": mounted[name].device if name in mounted else None,
                "filesystem": mounted[name].fstype if name in mounted else None,
                "total_bytes": usage.total,
                "used_bytes": usage.used,
                "available_bytes": usage.free,
                "percent": float(usage.percent),
            }
        for name, moved in sorted((psutil.disk_io_counters(perdisk=True) or {}).items()):
            if not moved.read_count and not moved.write_count:
                continue
            yield {
                "kind": "disk_io",
                "name": name,
                "reads": moved.read_count,
                "writes": moved.write_count,
                "read_bytes": moved.read_bytes,
                "written_bytes": moved.write_bytes,
                "read_bytes_per_second": self._rates.rate(("read", name), moved.read_bytes),
                "written_bytes_per_second": self._rates.rate(("written", name), moved.write_bytes),
            }

    def _network(self) -> Iterator[Record]:
        for name, moved in sorted(psutil.net_io_counters(pernic=True).items()):
            yield {
                "kind": "network",
                "name": name,
                "received_bytes": moved.bytes_recv,
                "sent_bytes": moved.bytes_sent,
                "received_packets": moved.packets_recv,
                "sent_packets": moved.packets_sent,
                "errors": moved.errin + moved.errout,
                "drops": moved.dropin + moved.dropout,
                "received_bytes_per_second": self._rates.rate(("received", name), moved.bytes_recv),
                "sent_bytes_per_second": self._rates.rate(("sent", name), moved.bytes_sent),
            }

    def _processes(self) -> Iterator[Record]:
        records = [record for each in psutil.process_iter() if (record := self._process(each)) is not None]
        records.sort(key=lambda record: (-(record["percent"] or 0.0), -record["memory_bytes"]))
        yield from records[: self.config.top]

    def _process(self, process: psutil.Process) -> Record | None:
        """Return what is known of a process, None when it has ended meanwhile or is not for us to look at."""
        try:
            with process.oneshot():
                spent = process.cpu_times()
                started = process.create_time()
                rate = self._rates.rate(("process", process.pid, started), spent.user + spent.system)
                return {
                    "kind": "process",
                    "name": process.name(),
                    "pid": process.pid,
                    "user": process.username(),
                    "status": process.status(),
                    "percent": None if rate is None else round(100 * rate, 2),
                    "memory_bytes": process.memory_info().rss,
                    "threads": process.num_threads(),
                    "started": datetime.fromtimestamp(started, UTC),
                }
        except (psutil.Error, KeyError):
            return None


class _Rates:
    """Differences of counters between this reading and the one before."""

    def __init__(self) -> None:
        self._now: dict[tuple[Any, ...], float] = {}
        self._before: dict[tuple[Any, ...], float] = {}
        self._at: float | None = None
        self._seconds: float | None = None

    def next_reading(self, at: float) -> None:
        """Begin a reading, at this time on a clock that never goes back; what was not read any more is forgotten."""
        self._seconds = None if self._at is None else at - self._at
        self._at = at
        self._before, self._now = self._now, {}

    def delta(self, counter: tuple[Any, ...], value: float) -> float | None:
        """Return by how much a counter has grown; None when it is new."""
        self._now[counter] = value
        before = self._before.get(counter)
        return None if before is None else value - before

    def rate(self, counter: tuple[Any, ...], value: float) -> float | None:
        """Return by how much a counter has grown a second; None when it is new or has begun again at 0."""
        delta = self.delta(counter, value)
        if delta is None or delta < 0 or not self._seconds:
            return None
        return round(delta / self._seconds, 3)


COMPONENT = HostSource
