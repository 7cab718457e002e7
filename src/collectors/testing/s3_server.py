"""A server that speaks S3, for tests: its own folder, a free loopback port, gone afterwards.

    with S3Server() as server:
        server.put("folder/a.ndjson", b"...")
        read(server.settings)

It is the program of the wheel `localbucket`, which keeps each object as a file. It looks at no credentials and at no
If-Match.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from collectors.testing.postgres_server import ServerUnavailableError

__all__ = ["S3Server"]


class S3Server:
    """Started by entering it; `kill` and `start` make it die and come back with its objects, under the same port.

    With a `home` the folders in there are its buckets; else it has one, which is empty.
    """

    bucket = "the-bucket"

    def __init__(self, home: Path | None = None) -> None:
        if find_spec("localbucket") is None:
            raise ServerUnavailableError("there is no S3 server here: pip install localbucket")
        self._own = Path(tempfile.mkdtemp(prefix="s3-"))
        self._home = home or self._own
        self._log = self._own / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = self._home / self.bucket
        """Where the objects of the bucket are, as files."""
        if home is None:
            self.folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._own, ignore_errors=True)

    def settings(self, folder: str = "", port: int | None = None) -> dict[str, Any]:
        """Return the settings of a component that uses a folder of the bucket; `port`: that of a proxy in front."""
        return {
            "url": f"s3://{self.bucket}/{folder}",
            "endpoint": f"http://127.0.0.1:{port or self.port}",
            "region": "us-east-1",
            "access_key_id": "tester",
            "secret_access_key": "a-secret",
        }

    def put(self, key: str, data: bytes) -> Path:
        """Store an object at once, as a PUT does; return its file."""
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        # The server takes files with this beginning for its own unfinished ones.
        draft = path.with_name(f".localbucket-{path.name}")
        draft.write_bytes(data)
        draft.replace(path)
        return path

    def start(self) -> None:
        """Start the server and wait until it takes connections. Raises ServerUnavailableError when it does not."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "localbucket", self._home, "--port", str(self.port)],
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 30
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                raise ServerUnavailableError(f"localbucket does not start: {self._log.read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End the server by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _is_ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
