"""A server for tests that speaks Kafka: its own folder, a free loopback port, gone afterwards.

    with KafkaServer() as server:
        Producer({"bootstrap.servers": server.address})

The program comes from the wheel `noida-db`. It is an imitation of one broker, not Kafka: fit for tests of clients, no
proof of what a real cluster does.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from collectors.testing.local_server import LocalServer, ServerUnavailableError

__all__ = ["KafkaServer", "ServerUnavailableError"]


class KafkaServer(LocalServer):
    """Started by entering it; `kill` and `start` make it die and come back with its data."""

    what = "Kafka"

    def __init__(self) -> None:
        self._program = _find_program()
        super().__init__()
        self.address = f"127.0.0.1:{self.port}"

    def command(self) -> Sequence[str | Path]:
        """Return the program and its arguments."""
        folder, port = self.home / "data", str(self.port)
        return [self._program, "start", "--data-dir", folder, "--only", "kafka", "--kafka-port", port]

    def pause(self) -> None:
        """Let it hang: it takes connections and answers nothing."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.send_signal(signal.SIGCONT)


def _find_program() -> Path:
    found = find_spec("noida_db")
    for place in (found.submodule_search_locations or []) if found else []:
        program = Path(place) / "noida-db"
        if program.exists():
            program.chmod(program.stat().st_mode | 0o100)
            return program
    raise ServerUnavailableError("there is no server that speaks Kafka here: pip install noida-db")
