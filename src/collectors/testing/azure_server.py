"""A server that speaks Azure's Blob service, for tests: its own folder, a free loopback port, gone afterwards.

    with AzureServer() as server:
        server.put("folder/a.ndjson", b"...")
        read(server.settings("folder"))

It is the program `azurite-blob`, Microsoft's own, which no wheel has: `npm install -g azurite`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from collectors.testing.local_server import LocalServer, ServerUnavailableError

__all__ = ["AzureServer"]

_VERSION = "2021-08-06"
_ACCOUNT = "tester"
_KEY = base64.b64encode(b"the key of an account that is nowhere else").decode()
_CREATED = 201


class AzureServer(LocalServer):
    """Started by entering it; `stop` and `start` make it go and come back with its objects, under the same port.

    After `kill` it lacks those of the last seconds: it is no server to try deaths with.
    """

    what = "Azure"
    container = "the-container"

    def __init__(self) -> None:
        program = shutil.which("azurite-blob")
        if program is None:
            raise ServerUnavailableError("there is no server of Azure's blobs here: npm install -g azurite")
        super().__init__()
        self._program = program

    def command(self) -> Sequence[str | Path]:
        """Return the program and its arguments."""
        accounts = f"AZURITE_ACCOUNTS={_ACCOUNT}:{_KEY}"
        options = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
        where = ["--location", str(self.home), "--blobHost", "127.0.0.1", "--blobPort", str(self.port)]
        return ["env", accounts, self._program, *options, *where]

    def start(self) -> None:
        """Start it, with its container."""
        super().start()
        self._make_container()

    def settings(self, folder: str = "") -> dict[str, Any]:
        """Return the settings of a component that uses a folder of the container."""
        return {
            "url": f"az://{self.container}/{folder}",
            "endpoint": f"http://127.0.0.1:{self.port}/{_ACCOUNT}",
            "account": _ACCOUNT,
            "account_key": _KEY,
        }

    def put(self, key: str, data: bytes) -> None:
        """Store an object at once."""
        import obstore
        from obstore.store import AzureStore

        given = self.settings()
        store = AzureStore(
            self.container,
            endpoint=given["endpoint"],
            account_name=_ACCOUNT,
            account_key=_KEY,
            client_options={"allow_http": True},
        )
        obstore.put(store, key, data)

    def _make_container(self) -> None:
        """Ask for the container, in a request signed with the account's key: obstore makes none."""
        now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        own = f"x-ms-date:{now}\nx-ms-version:{_VERSION}\n"
        text = f"PUT{chr(10) * 12}{own}/{_ACCOUNT}/{_ACCOUNT}/{self.container}\nrestype:container"
        signature = hmac.new(base64.b64decode(_KEY), text.encode(), hashlib.sha256).digest()
        headers = {
            "x-ms-date": now,
            "x-ms-version": _VERSION,
            "Authorization": f"SharedKey {_ACCOUNT}:{base64.b64encode(signature).decode()}",
            "Content-Length": "0",
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("PUT", f"/{_ACCOUNT}/{self.container}?restype=container", headers=headers)
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        if answer.status not in {_CREATED, http.client.CONFLICT}:  # it is there when the server comes back
            raise ServerUnavailableError(f"Azure makes no container: {answer.status} {said[:200]!r}")
