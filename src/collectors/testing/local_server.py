"""What the servers for tests share: a program with its own folder and a free loopback port, gone afterwards."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

__all__ = ["LocalServer", "ServerUnavailableError", "free_port"]

_STARTING_SECONDS = 60
_ENDING_SECONDS = 10


class ServerUnavailableError(Exception):
    """There is no such server to be started here; the message says what to install."""


class LocalServer:
    """Started by entering it; `kill` and `start` make it die and come back with its data, under the same port."""

    what: ClassVar[str]
    """What it is, for messages and the name of its folder."""

    def __init__(self, port: int | None = None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix=f"{self.what.lower()}-"))
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def prepare(self) -> None:
        """Do what has to be done once before the first start."""

    def command(self) -> Sequence[str | Path]:
        """Return the program and its arguments."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Return whether it serves."""
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def log(self) -> str:
        """Return what it has said."""
        return (self.home / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it and wait until it serves. Raises ServerUnavailableError when it does not."""
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.home
            )
        end = time.monotonic() + _STARTING_SECONDS
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                raise ServerUnavailableError(f"{self.what} does not start: {self.log()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ask it to end, as who runs it would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._end(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_ENDING_SECONDS)
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def free_port() -> int:
    """Return a port of the loopback address that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
