"""A virtual environment for each peer, below benchmarks/.venv or the folder that PEERS_ENVIRONMENTS names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["python_of"]

FOLDER = Path(os.environ.get("PEERS_ENVIRONMENTS", Path(__file__).resolve().parent / ".venv"))
NEEDED = {
    "dlt": [
        "dlt[duckdb,parquet,filesystem,sqlalchemy,postgres]==1.31.*",
        "adbc-driver-manager",
        "adbc-driver-postgresql",
        "adbc-driver-sqlite",
        "orjson",
    ],
    "bytewax": ["bytewax==0.21.1", "orjson", "pyarrow"],
    "duckdb": ["duckdb==2.0.*"],
    "decoders": ["pyarrow==26.*", "arro3-core", "arro3-io", "polars", "duckdb==2.0.*"],
    "chart": ["matplotlib>=3.11"],
}


def python_of(peer: str) -> str:
    """Return the Python of the peer's virtual environment, which is made where there is none."""
    python = FOLDER / peer / "bin" / "python"
    if not python.exists():
        print(f"making a virtual environment for {peer} …", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", FOLDER / peer], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *NEEDED[peer]], check=True)
    return str(python)
