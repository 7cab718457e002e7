"""A Singer target that keeps each stream in a file, one row for each key; real ones come from a package index."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Speak the protocol: rows are kept at the end of the input, and then the last STATE is written back."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=lambda path: json.loads(Path(path).read_text()), default={})
    folder = Path(parser.parse_args().config.get("folder", "."))
    keys: dict[str, list[str]] = {}
    rows: dict[str, dict[str, Any]] = {}
    state = None
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "SCHEMA":
            keys[message["stream"]] = message["key_properties"]
            rows.setdefault(message["stream"], {})
        elif message["type"] == "RECORD":
            stream, record = message["stream"], message["record"]
            rows[stream][json.dumps([record[name] for name in keys[stream]])] = record
        elif message["type"] == "STATE":
            state = message["value"]
    folder.mkdir(parents=True, exist_ok=True)
    for stream, found in rows.items():
        path = folder / f"{stream}.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(kept | found, indent=1))
    if state is not None:
        sys.stdout.write(json.dumps(state) + "\n")


if __name__ == "__main__":
    main()
