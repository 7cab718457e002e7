"""A server that answers as S3 does, or as a test says it does instead."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

ERROR = "<Error><Code>{}</Code><Message>{}</Message></Error>"


class Answers:
    """`objects` are in the bucket `b`; `instead(method, key, count)` may return another answer: status, headers, body."""

    def __init__(self):
        self.objects = {}
        self.instead = lambda method, key, count: None
        self.tag = lambda key: f'"{hashlib.md5(self.objects[key]).hexdigest()}"'
        self.count = 0
        self.asked = []
        self.listed = sorted
        self.conditions = True
        answers = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def do_GET(self):
                answers.answer(self)

            do_HEAD = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    @property
    def settings(self):
        return {
            "url": "s3://b/",
            "endpoint": f"http://127.0.0.1:{self.server.server_port}",
            "access_key_id": "x",
            "secret_access_key": "y",
        }

    def answer(self, request):
        url = urlsplit(request.path)
        key = unquote(url.path).removeprefix("/b").lstrip("/")
        self.count += 1
        self.asked.append(
            (request.command, key, request.headers.get("Range"), request.headers.get("If-Match"))
        )
        status, headers, body = self.instead(request.command, key, self.count) or self.usual(
            request, key, url
        )
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)

    def usual(self, request, key, url):
        if not key:
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            keys = [key for key in self.listed(self.objects) if key > query.get("start-after", "")]
            items = "".join(
                f"<Contents><Key>{escape(key)}</Key><LastModified>2026-11-29T10:00:00.123Z</LastModified>"
                f"<ETag>{escape(self.tag(key) or '')}</ETag><Size>{len(self.objects[key])}</Size></Contents>"
                for key in keys
            )
            text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>"
            return 200, {"Content-Type": "application/xml"}, text.encode()
        if key not in self.objects:
            return 404, {}, ERROR.format("NoSuchKey", "There is none.").encode()
        data, tag = self.objects[key], self.tag(key)
        wanted = request.headers.get("If-Match")
        if self.conditions and wanted is not None and wanted != tag:
            return 412, {}, ERROR.format("PreconditionFailed", "It is another one.").encode()
        headers = {"Last-Modified": "Sun, 29 Nov 2026 10:00:00 GMT"}
        if tag is not None:
            headers["ETag"] = tag
        part = request.headers.get("Range")
        if part is None:
            return 200, headers, data
        first, last = (int(text) for text in part.removeprefix("bytes=").split("-"))
        if first >= len(data):
            return 416, {}, b""
        body = data[first : last + 1]
        return 206, {**headers, "Content-Range": f"bytes {first}-{first + len(body) - 1}/{len(data)}"}, body
