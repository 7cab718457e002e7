"""A Singer tap of two streams, small enough to read; real ones come from a package index."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STATIONS = [
    {"station": 1, "name": "harbour", "height": 3.5},
    {"station": 2, "name": "summit", "height": 2962.06},
]
SCHEMAS = {
    "stations": {"station": "integer", "name": "string", "height": "number"},
    "readings": {"id": "integer", "station": "integer", "celsius": "number", "at": "string"},
}
KEYS = {"stations": ["station"], "readings": ["id"]}


def write(**message: Any) -> None:
    """Write one message."""
    sys.stdout.write(json.dumps(message) + "\n")


def schema(stream: str) -> dict[str, Any]:
    """Return the JSON Schema of a stream."""
    return {"type": "object", "properties": {name: {"type": kind} for name, kind in SCHEMAS[stream].items()}}


def discover() -> None:
    """Write the catalog."""
    streams = [
        {"tap_stream_id": name, "stream": name, "schema": schema(name), "metadata": []} for name in SCHEMAS
    ]
    json.dump({"streams": streams}, sys.stdout)


def stations() -> Iterator[dict[str, Any]]:
    """Yield all stations, each time."""
    yield from STATIONS


def readings(count: int, state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the readings behind the one that the state names, and move the state on."""
    for number in range(state["bookmarks"].get("readings", 0) + 1, count + 1):
        at = f"2026-01-01T{number // 60 % 24:02}:{number % 60:02}:00Z"
        yield {"id": number, "station": number % 2 + 1, "celsius": round(number % 70 / 3 - 5, 2), "at": at}
        state["bookmarks"]["readings"] = number


def main() -> None:
    """Speak the protocol."""
    parser = argparse.ArgumentParser()
    for name in ("config", "state", "catalog"):
        parser.add_argument(f"--{name}", type=lambda path: json.loads(Path(path).read_text()), default={})
    parser.add_argument("--discover", action="store_true")
    given = parser.parse_args()
    if given.discover:
        discover()
        return
    state = given.state or {"bookmarks": {}}
    for stream in given.catalog["streams"]:
        name = stream["stream"]
        if not any(item["metadata"].get("selected") for item in stream["metadata"] if not item["breadcrumb"]):
            continue
        write(type="SCHEMA", stream=name, schema=schema(name), key_properties=KEYS[name])
        records = stations() if name == "stations" else readings(given.config["readings"], state)
        for number, record in enumerate(records, 1):
            write(type="RECORD", stream=name, record=record)
            if number % 100 == 0:
                write(type="STATE", value=state)
    write(type="STATE", value=state)


if __name__ == "__main__":
    main()
