"""MQTT brokers for tests, on a free loopback port, gone afterwards.

with MqttServer() as server:      # rumqttd, from the wheel `iotcore`: MQTT 3.1.1, sessions in memory
    connect("127.0.0.1", server.port)

with Mosquitto() as server:       # the program of the system: MQTT 5 too, users, TLS, sessions on disk
    server.kill()
    server.start()
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Self

__all__ = ["Mosquitto", "MqttServer", "MqttServerUnavailableError"]


class MqttServerUnavailableError(Exception):
    """There is no broker to be started here; the message says what to install."""


class _Server:
    """Started by entering it; `kill` and `start` make it die and come back, `stop` asks it to end."""

    def __init__(self, port: int | None = None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="mqtt-"))
        self.port = port or _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def _command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Start the broker and wait until it takes connections. Raises MqttServerUnavailableError when it does not."""
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.home
            )
        end = time.monotonic() + 30
        while not _is_open(self.port):
            if self._process.poll() is not None or time.monotonic() > end:
                raise MqttServerUnavailableError(f"no broker: {self.log()}")
            time.sleep(0.02)

    def log(self) -> str:
        """Return what the broker has said."""
        return (self.home / "log").read_text(errors="replace")

    def kill(self) -> None:
        """End the broker by SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the broker by SIGTERM: what it keeps on disk is there."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


class MqttServer(_Server):
    """rumqttd; it keeps sessions while it lives. `window` is how many messages it has on their way to one client."""

    def __init__(self, window: int = 100, port: int | None = None) -> None:
        if find_spec("iotcore") is None:
            raise MqttServerUnavailableError("there is no MQTT broker here: pip install iotcore")
        super().__init__(port)
        self._window = window

    def _command(self) -> list[str]:
        options = f'{{"listen": "127.0.0.1", "port": {self.port}, "max_inflight_count": {self._window}}}'
        return [sys.executable, "-c", "from iotcore._serve import main; main()", options]


class Mosquitto(_Server):
    """Mosquitto. `settings` are further lines of its configuration; `HOME` in them is its folder."""

    def __init__(
        self, settings: Sequence[str] = ("allow_anonymous true",), listener: Sequence[str] = ()
    ) -> None:
        found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if found is None:
            raise MqttServerUnavailableError("there is no mosquitto here: apt-get install mosquitto")
        super().__init__()
        self._program = found
        self._settings = settings
        self._listener = listener

    def _command(self) -> list[str]:
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


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
