"""The API that rest.yaml asks: stations in pages, and their readings behind a cursor; made up, and always the same."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

STATIONS = [
    {"id": f"st-{n}", "name": name} for n, name in enumerate(["harbour", "hill", "park", "mill", "lake"])
]


class Api(BaseHTTPRequestHandler):
    """Answers GET with JSON, to those who have the token."""

    def do_GET(self) -> None:
        """Answer with a page of stations, or of a station's readings."""
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        if self.headers["Authorization"] != "Bearer demo":
            self.answer(401, {"error": "who are you?"})
        elif parts == ["v1", "stations"]:
            page = int(asked.get("page", 1))
            self.answer(200, STATIONS[2 * page - 2 : 2 * page])
        elif parts[:2] == ["v1", "stations"] and parts[3:] == ["readings"]:
            times = [f"2026-01-01T{hour:02}:00:00Z" for hour in range(24)]
            found = [{"at": at, "celsius": len(parts[2]) + n / 4} for n, at in enumerate(times)]
            found = [each for each in found if str(each["at"]) >= asked.get("since", "")]
            first = int(asked.get("after", 0))
            more = first + 10 if first + 10 < len(found) else None
            self.answer(200, {"data": {"items": found[first : first + 10], "next": more}})
        else:
            self.answer(404, {"error": "no such path"})

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
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 18090), Api).serve_forever()
