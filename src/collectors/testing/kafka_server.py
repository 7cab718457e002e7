"""A server for tests that speaks Kafka: its own folder, a free loopback port, gone afterwards.

    with KafkaServer() as server:
        Producer({"bootstrap.servers": server.address})

The program comes from the wheel `noida-db`. It is an imitation of one broker, not Kafka: fit for tests of clients, no
proof of what a real cluster does.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Self

__all__ = ["KafkaServer", "ServerUnavailableError"]


class ServerUnavailableError(Exception):
    """There is no such server to be started here; the message says what to install."""


class KafkaServer:
    """Started by entering it; `kill` and `start` make it die and come back with its data."""

    def __init__(self) -> None:
        self._program = _find_program()
        self._home = Path(tempfile.mkdtemp(prefix="kafka-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it takes connections. Raises ServerUnavailableError when it does not."""
        folder, port = str(self._home / "data"), str(self.port)
        command = [str(self._program), "start", "--data-dir", folder, "--only", "kafka", "--kafka-port", port]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._home)
        end = time.monotonic() + 30
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                raise ServerUnavailableError(f"it does not start: {(self._home / 'log').read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the server as its operator would."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
        self.kill()

    def kill(self) -> None:
        """End the server by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it hang: it takes connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _is_ready(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def _find_program() -> Path:
    found = find_spec("noida_db")
    for place in (found.submodule_search_locations or []) if found else []:
        program = Path(place) / "noida-db"
        if program.exists():
            program.chmod(program.stat().st_mode | 0o100)
            return program
    raise ServerUnavailableError("there is no server that speaks Kafka here: pip install noida-db")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
