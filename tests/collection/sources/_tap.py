"""A Singer tap for tests: gives the rows of a table, a file of JSON lines, behind the row that its state says.

Settings: `table`; `state_every` so many rows (0: never); `exact` false begins with the row of the bookmark, as many taps
do; `once` makes a STATE that says nothing of where to go on; `fail_after` rows it dies, but only as long as the file
`fail_while` is there; `noise` is written to standard error at first; `wait` a while after every 50 rows.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

CATALOG = {
    "streams": [
        {
            "tap_stream_id": name,
            "stream": name,
            "schema": {
                "properties": {
                    "id": {"type": ["null", "integer"]},
                    "at": {"type": "string", "format": "date-time"},
                }
            },
            "metadata": [{"breadcrumb": ["properties", "id"], "metadata": {"inclusion": "available"}}],
        }
        for name in ("numbers", "letters")
    ]
}


def write(**message):
    sys.stdout.write(json.dumps(message) + "\n")


def selected(catalog):
    for stream in catalog["streams"]:
        root = next(item["metadata"] for item in stream["metadata"] if not item["breadcrumb"])
        if root["selected"]:
            yield stream["stream"]


def sync(stream, settings, state):
    every = settings.get("state_every", 0)
    first = state.get("bookmarks", {}).get(stream, {}).get("row", 0)
    if first and not settings.get("exact", True):
        first -= 1
    keys = {"key_properties": ["id"], "schema": {"properties": {"id": {"type": "integer"}}}}
    write(type="SCHEMA", stream=stream, **keys)
    rows = Path(settings["table"]).read_text().splitlines()
    for number, row in enumerate(rows[first:], first + 1):
        sys.stdout.write(f'{{"type": "RECORD", "stream": "{stream}", "record": {row}}}\n')
        if every and number % every == 0:
            bookmark = {"progress_markers": {"row": number}} if settings.get("once") else {"row": number}
            state = {"bookmarks": state.get("bookmarks", {}) | {stream: bookmark}}
            write(type="STATE", value=state)
        if settings.get("wait") and number % 50 == 0:
            sys.stdout.flush()
            time.sleep(0.02)  # between two pages of a slow service
        if number == settings.get("fail_after") and Path(settings["fail_while"]).exists():
            sys.stdout.flush()
            sys.stderr.write(f"CRITICAL no access with {settings.get('token')}\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL) if settings.get("killed") else sys.exit(3)
    return state


def main():
    parser = argparse.ArgumentParser()
    for name in ("config", "state", "catalog"):
        parser.add_argument(f"--{name}", type=lambda path: json.loads(Path(path).read_text()), default={})
    parser.add_argument("--discover", action="store_true")
    given = parser.parse_args()
    sys.stderr.write(given.config.get("noise", ""))
    if given.discover:
        sys.stdout.write(json.dumps(CATALOG))
        return
    state = given.state
    for stream in selected(given.catalog) if given.catalog else ["numbers"]:
        state = sync(stream, given.config, state)


main()
