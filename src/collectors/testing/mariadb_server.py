"""A MariaDB server for tests: its own folder, a free loopback port, gone afterwards.

    with MariaDbServer() as server:
        connect(port=server.port, user="root")

The programs are those of the system: apt-get install mariadb-server-core.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collectors.testing.local_server import LocalServer, ServerUnavailableError

__all__ = ["MariaDbServer", "ServerUnavailableError"]

_SETTINGS = {
    "bind-address": "127.0.0.1",
    "skip-networking": "0",
    "innodb-buffer-pool-size": "32M",
    "innodb-log-file-size": "8M",
    "default-time-zone": "+05:30",  # not UTC: what depends on the server's zone shows
    "character-set-server": "utf8mb4",
}


class MariaDbServer(LocalServer):
    """Started by entering it; `kill` and `start` make it die and come back with its data. `options` are those of mariadbd."""

    what = "MariaDB"

    def __init__(self, **options: str) -> None:
        self._options = {name.replace("_", "-"): value for name, value in options.items()}
        self._server = _find("mariadbd")
        self._installer = _find("mariadb-install-db")
        super().__init__()
        self.url = f"mysql://reader:geheim@127.0.0.1:{self.port}/test"

    def command(self) -> Sequence[str | Path]:
        """Return the program and its arguments."""
        settings = {
            **_SETTINGS,
            **self._options,
            "datadir": self.home / "data",
            "port": self.port,
            "socket": self.home / "socket",
            "pid-file": self.home / "pid",
            "init-file": self.home / "init.sql",
            "tmpdir": self.home,
        }
        given = [f"--{key}={value}" for key, value in settings.items()]
        return [self._server, "--no-defaults", *given, *_as_root()]

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

    def prepare(self) -> None:
        """Make the folder of the data, and the users."""
        done = subprocess.run(
            [
                self._installer,
                "--no-defaults",
                f"--datadir={self.home / 'data'}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                *_as_root(),
            ],
            capture_output=True,
            check=False,
            cwd=self.home,
            env=os.environ
            | {"TMPDIR": str(self.home)},  # two at a time would take one another's temporary tables
        )
        if done.returncode != 0:
            raise ServerUnavailableError(f"mariadb-install-db: {done.stderr.decode(errors='replace')}")
        (self.home / "init.sql").write_text(
            "create database if not exists test;\n"
            "create user if not exists writer identified by 'geheim';\n"
            "grant all on *.* to writer;\n"
            "create user if not exists reader identified by 'geheim';\n"
            "grant select, insert, execute on test.* to reader;\n"
        )

    def is_ready(self) -> bool:
        """Return whether one can log in."""
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
