"""A server that speaks S3, for tests: its own folder, a free loopback port, gone afterwards.

    with S3Server() as server:
        server.put("folder/a.ndjson", b"...")
        read(server.settings)

It is the program of the wheel `localbucket`, which keeps each object as a file. It looks at no credentials and at no
If-Match.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from collectors.testing.local_server import LocalServer, ServerUnavailableError

__all__ = ["S3Server", "ServerUnavailableError"]


class S3Server(LocalServer):
    """Started by entering it; `kill` and `start` make it die and come back with its objects, under the same port.

    With `buckets`, a folder, the folders in there are its buckets; else it has one, which is empty.
    """

    what = "S3"
    bucket = "the-bucket"

    def __init__(self, buckets: Path | None = None) -> None:
        if find_spec("localbucket") is None:
            raise ServerUnavailableError("there is no S3 server here: pip install localbucket")
        super().__init__()
        self._buckets = buckets or self.home / "buckets"
        self.folder = self._buckets / self.bucket
        """Where the objects of the bucket are, as files."""
        if buckets is None:
            self.folder.mkdir(parents=True)

    def command(self) -> Sequence[str | Path]:
        """Return the program and its arguments."""
        return [sys.executable, "-m", "localbucket", self._buckets, "--port", str(self.port)]

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
