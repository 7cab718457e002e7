"""Results of measurements: one line of JSON each, with when, which commit and which machine, appended to results/."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "append", "circumstances"]

RESULTS = Path(__file__).resolve().parent / "results"


def circumstances() -> dict[str, str]:
    """Return what each line begins with."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=RESULTS.parent,
    )
    return {
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}",
        "commit": commit.stdout.strip(),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}",
    }


def append(name: str, line: dict[str, Any]) -> None:
    """Append a line to a file of the results."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / name).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
