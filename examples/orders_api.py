"""The API that orders-to-api.yaml sends to: keeps orders in out/orders-api.ndjson, and takes each idempotency key once."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

KEPT = Path("out", "orders-api.ndjson")
LOCK = Lock()


def known_keys() -> set[str]:
    """Return the keys of all requests whose orders are kept."""
    lines = KEPT.read_text().splitlines() if KEPT.exists() else []
    return {json.loads(line)["key"] for line in lines}


class Api(BaseHTTPRequestHandler):
    """Takes POST with JSON, from those who have the token."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Keep the orders of a request, or say what is wrong with it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Idempotency-Key"] or ""
        if self.headers["Authorization"] != "Bearer demo":
            self.answer(401, {"error": "who are you?"})
            return
        orders = json.loads(body)["orders"]
        if any(float(order["amount"]) < 0 for order in orders):
            self.answer(422, {"error": "an order has a negative amount"})
            return
        with LOCK:
            if key not in known_keys():
                KEPT.parent.mkdir(exist_ok=True)
                with KEPT.open("a") as file:
                    file.writelines(json.dumps({**order, "key": key}) + "\n" for order in orders)
        self.answer(200, {"taken": len(orders)})

    def answer(self, status: int, body: object) -> None:
        """Send JSON."""
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 18091), Api).serve_forever()
