"""A MariaDB server for tests: its own folder, a free loopback port, gone afterwards.

    with MariaDbServer() as server:
        connect(port=server.port, user="root")

The programs are those of the system: apt-get install mariadb-server-core.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

__all__ = ["MariaDbServer", "ServerUnavailableError"]

_SETTINGS = {
    "bind-address": "127.0.0.1",
    "skip-networking": "0",
    "innodb-buffer-pool-size": "32M",
    "innodb-log-file-size": "8M",
    "default-time-zone": "+05:30",  # not UTC: what depends on the server's zone shows
    "character-set-server": "utf8mb4",
}


class ServerUnavailableError(Exception):
    """There is no MariaDB to be started here; the message says what to install."""


class MariaDbServer:
    """Started by entering it; `kill` and `start` make it die and come back with its data. `options` are those of mariadbd."""

    def __init__(self, **options: str) -> None:
        self._options = {name.replace("_", "-"): value for name, value in options.items()}
        self._server = _find("mariadbd")
        self._installer = _find("mariadb-install-db")
        self._home = Path(tempfile.mkdtemp(prefix="mariadb-"))
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"mysql://reader:geheim@127.0.0.1:{self.port}/test"

    def __enter__(self) -> Self:
        try:
            self._make()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it takes connections. Raises ServerUnavailableError when it does not."""
        settings = {
            **_SETTINGS,
            **self._options,
            "datadir": self._home / "data",
            "port": self.port,
            "socket": self._home / "socket",
            "pid-file": self._home / "pid",
            "init-file": self._home / "init.sql",
            "tmpdir": self._home,
        }
        with (self._home / "log").open("ab") as log:
            command = [
                self._server,
                "--no-defaults",
                *(f"--{key}={value}" for key, value in settings.items()),
                *_as_root(),
            ]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._home)
        end = time.monotonic() + 60
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                raise ServerUnavailableError(
                    f"MariaDB does not start: {(self._home / 'log').read_text()[-2000:]}"
                )
            time.sleep(0.05)

    def kill(self) -> None:
        """End the server by SIGKILL, as a power cut of its machine would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def connect(self, **settings: Any) -> Any:
        """Return a connection that may write, in autocommit mode."""
        import pymysql

        login = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "writer",
            "password": "geheim",
            "database": "test",
        }
        return pymysql.connect(**{**login, "autocommit": True, **settings})

    def _make(self) -> None:
        done = subprocess.run(
            [
                self._installer,
                "--no-defaults",
                f"--datadir={self._home / 'data'}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                *_as_root(),
            ],
            capture_output=True,
            check=False,
            cwd=self._home,
            env=os.environ
            | {"TMPDIR": str(self._home)},  # two at a time would take one another's temporary tables
        )
        if done.returncode != 0:
            raise ServerUnavailableError(f"mariadb-install-db: {done.stderr.decode(errors='replace')}")
        (self._home / "init.sql").write_text(
            "create database if not exists test;\n"
            "create user if not exists writer identified by 'geheim';\n"
            "grant all on *.* to writer;\n"
            "create user if not exists reader identified by 'geheim';\n"
            "grant select, insert, execute on test.* to reader;\n"
        )

    def _is_ready(self) -> bool:
        import pymysql

        try:
            self.connect(connect_timeout=2).close()
        except pymysql.Error:
            return False
        return True


def _find(name: str) -> str:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise ServerUnavailableError("there is no MariaDB server here: apt-get install mariadb-server-core")
    return found


def _as_root() -> list[str]:
    return ["--user=root"] if os.geteuid() == 0 else []
