"""A Singer target for tests: holds rows back, appends them to a file, and acknowledges what it has appended.

Settings: `out`, the file; `ack`: `each` STATE, with all rows stored first; `end`, at the end of its input; `never`; or
`pieced`: at each batch, the STATE put together from those of the streams whose rows are stored, beginning with the first one
that came, as a family of targets does. `batch`: store a stream when so many rows of it are held. `log`: a file that gets all
messages as they come; `pids`, one that gets its process id. `die_after` rows it dies, with `code`, as long as the file `die_while` is there. `noise` goes to
standard error, `rubbish` to standard output. `child` starts a process that stays; `hang_after` so many rows it takes no more.
`wait` a little behind every 50 rows. `stays`: it does not end with its input; `deaf`: nor at SIGTERM. `child_apart` starts a
process that stays, in a session of its own, with the same standard output and error.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class Target:
    def __init__(self, settings: dict) -> None:
        self.settings = settings
        self.rows: dict[str, list[bytes]] = {}
        self.schemas: dict[str, dict] = {}
        self.latest = None
        self.flushed = None
        self.count = 0

    def take(self, line: bytes) -> None:
        if self.settings.get("log"):
            append(self.settings["log"], [line])
        message = json.loads(line)
        kind = message["type"]
        if kind == "SCHEMA":
            if self.schemas.get(message["stream"]) not in {None, json.dumps(message)}:
                self.store(message["stream"])
            self.schemas[message["stream"]] = json.dumps(message)
        elif kind == "RECORD":
            self.record(message)
        elif kind == "STATE":
            self.latest = message["value"]
            self.flushed = self.flushed or copy.deepcopy(self.latest)
            if self.settings.get("ack") == "each":
                self.store_all()
                say(self.latest)

    def record(self, message: dict) -> None:
        stream = message["stream"]
        assert stream in self.schemas, "a record in front of its schema"
        self.rows.setdefault(stream, []).append(json.dumps({"stream": stream, **message["record"]}).encode())
        self.count += 1
        self.misbehave()
        if len(self.rows[stream]) >= self.settings.get("batch", 10**9):
            self.store(stream)
            if self.settings.get("ack") == "pieced":
                say(self.flushed)

    def misbehave(self) -> None:
        settings = self.settings
        if self.count == settings.get("die_after") and Path(settings["die_while"]).exists():
            sys.stderr.write(f"CRITICAL no room for {settings.get('password')}\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL) if settings.get("code") is None else os._exit(
                settings["code"]
            )
        if self.count == settings.get("hang_after"):
            signal.pause()

    def store(self, stream: str) -> None:
        append(self.settings["out"], [row + b"\n" for row in self.rows.pop(stream, [])])
        if self.latest and stream in self.latest["bookmarks"]:
            self.flushed["bookmarks"][stream] = self.latest["bookmarks"][stream]

    def store_all(self) -> None:
        for stream in list(self.rows):
            self.store(stream)


def append(path: str, lines: list[bytes]) -> None:
    with Path(path).open("ab", buffering=0) as file:
        file.write(b"".join(lines))
        os.fsync(file.fileno())


def say(state: dict | None) -> None:
    if state is not None:
        sys.stdout.write(json.dumps(state) + "\n")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=lambda path: json.loads(Path(path).read_text()), default={})
    settings = parser.parse_args().config
    if settings.get("pids"):
        append(settings["pids"], [b"%d\n" % os.getpid()])
    sys.stderr.write(settings.get("noise", ""))
    sys.stdout.write(settings.get("rubbish", ""))
    sys.stdout.flush()
    if settings.get("child"):
        subprocess.Popen(["sleep", "600"])
    if settings.get("child_apart"):
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        append(settings["child_apart"], [b"%d" % child.pid])
    if settings.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    target = Target(settings)
    for line in sys.stdin.buffer:
        target.take(line)
        if settings.get("wait") and target.count % 50 == 49:
            time.sleep(0.01)  # a service that takes its time
    target.store_all()
    if settings.get("ack") != "never":
        say(target.latest)
    if settings.get("stays"):
        while True:
            signal.pause()


main()
