"""Which format the content of a file has, by its name."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

__all__ = ["format_of"]

_FORMATS: dict[str, str | dict[str, Any]] = {
    "ndjson": "ndjson",
    "jsonl": "ndjson",
    "json": "json",
    "csv": "csv",
    "tsv": {"type": "csv", "delimiter": "\t"},
    "parquet": "parquet",
    "arrow": "arrow",
    "feather": "arrow",
    "log": "lines",
    "txt": "lines",
}


def format_of(path: str) -> str | dict[str, Any]:
    """Return the codec that a name or a pattern says, also in front of `.gz` and `.zst`. Raises ValueError."""
    name = re.sub(r"\[[^]]*\]|[*?]", "", PurePath(path).name).rstrip(".").lower()
    suffixes = [suffix.lstrip(".") for suffix in PurePath("_" + name).suffixes]
    while suffixes and (suffixes[-1] in {"gz", "zst", "zstd"} or suffixes[-1].isdigit()):
        suffixes.pop()
    if not suffixes or suffixes[-1] not in _FORMATS:
        raise ValueError(
            f"cannot tell the format of '{path}' from its name; set `format`, for example `format: ndjson`"
        )
    return _FORMATS[suffixes[-1]]
