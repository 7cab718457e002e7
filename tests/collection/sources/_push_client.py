"""HTTP clients for tests of the webhook source: plain sockets, so that they can also do what no library would."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import threading
from dataclasses import dataclass


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


def free_port() -> int:
    """Return a port from below those that the system hands out itself, so that no other test gets it meanwhile."""
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def head(method="POST", path="/", **headers) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class Client:
    """One connection."""

    def __init__(self, port, context=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.reader = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.reader.close()
        self.socket.close()

    def write(self, data):
        self.socket.sendall(data)

    def send(self, body=b"", method="POST", path="/", **headers):
        """Send a whole request without waiting for its answer."""
        self.write(head(method, path, Content_Length=len(body), **headers) + body)

    def answer(self) -> Answer | None:
        """Return the next answer; None when the connection is closed instead."""
        try:
            status = self.reader.readline().split()
        except ConnectionError:
            return None
        if not status:
            return None
        headers = {}
        while (line := self.reader.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return Answer(int(status[1]), headers, self.reader.read(int(headers.get("content-length", 0))))

    def request(self, body=b"", **about) -> Answer | None:
        self.send(body, **about)
        return self.answer()


class StubbornSender:
    """Sends bodies in order over one connection each time it can connect, as a sender does that is not answered."""

    def __init__(self, port, bodies):
        self.port = port
        self.bodies = bodies
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.stopping.set()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def _run(self):
        while not self.stopping.is_set():
            with contextlib.suppress(OSError):
                self._send_all()
            self.stopping.wait(0.02)

    def _send_all(self):
        clients = []
        try:
            for body in self.bodies:
                client = Client(self.port)
                clients.append(client)
                client.send(body)
            clients[0].socket.settimeout(0.05)
            while not self.stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    if not clients[0].socket.recv(65536):
                        return
        finally:
            for client in clients:
                client.__exit__()
