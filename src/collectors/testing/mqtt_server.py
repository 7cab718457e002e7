"""MQTT brokers for tests, on a free loopback port, gone afterwards.

with MqttServer() as server:      # rumqttd, from the wheel `iotcore`: MQTT 3.1.1, sessions in memory
    connect("127.0.0.1", server.port)

with Mosquitto() as server:       # the program of the system: MQTT 5 too, users, TLS, sessions on disk
    server.kill()
    server.start()
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from collectors.testing.local_server import LocalServer, ServerUnavailableError

__all__ = ["Mosquitto", "MqttServer", "ServerUnavailableError"]


class MqttServer(LocalServer):
    """rumqttd; it keeps sessions while it lives. `window` is how many messages it has on their way to one client."""

    what = "rumqttd"

    def __init__(self, window: int = 100, port: int | None = None) -> None:
        if find_spec("iotcore") is None:
            raise ServerUnavailableError("there is no MQTT broker here: pip install iotcore")
        super().__init__(port)
        self._window = window

    def command(self) -> Sequence[str | Path]:
        """Return the program and its arguments."""
        options = f'{{"listen": "127.0.0.1", "port": {self.port}, "max_inflight_count": {self._window}}}'
        return [sys.executable, "-c", "from iotcore._serve import main; main()", options]


class Mosquitto(LocalServer):
    """Mosquitto. `settings` are further lines of its configuration; `HOME` in them is its folder."""

    what = "Mosquitto"

    def __init__(
        self, settings: Sequence[str] = ("allow_anonymous true",), listener: Sequence[str] = ()
    ) -> None:
        found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if found is None:
            raise ServerUnavailableError("there is no mosquitto here: apt-get install mosquitto")
        super().__init__()
        self._program = found
        self._settings = settings
        self._listener = listener

    def command(self) -> Sequence[str | Path]:
        """Return the program and its arguments."""
        lines = [
            f"listener {self.port} 127.0.0.1",
            *self._listener,
            *self._settings,
            "persistence true",
            "persistence_location HOME/",
            "max_queued_messages 0",
            "log_dest stderr",
            "user root",
        ]
        text = "".join(f"{line}\n" for line in lines).replace("HOME", str(self.home))
        (self.home / "mosquitto.conf").write_text(text)
        return [self._program, "-c", str(self.home / "mosquitto.conf")]
