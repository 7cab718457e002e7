"""Rows on standard output: one JSON object a line, or a table for people.

    storage:
      type: stdout
      format: ndjson

In JSON times are ISO 8601, decimals exact text, bytes base64, NaN and infinities the texts `NaN`, `Infinity` and
`-Infinity`. What was printed can be neither queried nor deleted.

Delivery: at least once: the position is remembered after the rows are out, so a crash between the two prints them twice.
"""

from __future__ import annotations

import os
import re
import sys
from select import select
from typing import Any, Literal

import pyarrow as pa

from collectors.chunks import ChunkKey
from collectors.enums import ErrorType
from collectors.errors import FatalError
from collectors.rows import batches
from collectors.storage.base import Backend, BackendConfig
from collectors.storage.records import to_exact_json_lines, to_records

__all__ = ["COMPONENT", "StdoutBackend", "StdoutConfig"]


class StdoutConfig(BackendConfig):
    """Settings of the `stdout` backend."""

    format: Literal["ndjson", "table"] = "ndjson"
    """`ndjson`: a JSON object a line, for programs. `table`: columns, for people."""


class StdoutBackend(Backend[StdoutConfig]):
    """Prints; remembers the last key of each flow, so that what is tried again is not printed again.

    No more than that one: an owner that took the flow over in between may have other rows under the same numbers.
    """

    def open(self) -> None:
        """Begin with no flow printed. Raises FatalError when there is no standard output."""
        if sys.stdout is None:
            raise FatalError(
                "standard output is closed, and nothing can be printed; let it go to a file or a program, or take this "
                "storage out",
                error_type=ErrorType.STORAGE,
            )
        self._printed: dict[str, ChunkKey] = {}

    def write(self, table: pa.Table, key: ChunkKey) -> int:
        """Print the rows and return their number."""
        if self._printed.get(key.flow) == key:
            return 0
        if self.config.format == "table":
            _print(_as_table(table))
        else:  # some rows at a time: their text is not copied together, and is still in the processor's cache
            for start, count in batches(table.num_rows):
                _print(to_exact_json_lines(table.slice(start, count)))
        self._printed[key.flow] = key
        return int(table.num_rows)

    def describe(self) -> str:
        """Return where the rows go."""
        return "standard output"


def _print(content: bytes) -> None:
    stream = sys.stdout
    try:
        stream.flush()
        if hasattr(stream, "buffer"):
            _write(getattr(stream.buffer, "raw", stream.buffer), content)
        else:
            stream.write(content.decode())
        stream.flush()
    except BrokenPipeError as error:
        # The interpreter flushes standard output once more at its end; it must not fail a second time there.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        raise FatalError(
            "standard output is closed: the program that read it has ended", error_type=ErrorType.STORAGE
        ) from error
    except OSError as error:
        raise FatalError(
            f"standard output cannot be written: {error.strerror or error}", error_type=ErrorType.STORAGE
        ) from error


def _write(stream: Any, content: bytes) -> None:
    """Write all of it to a stream without a buffer, which may take a part at a time, or nothing for now."""
    left = memoryview(content)
    while left:
        written = stream.write(left)
        if written:
            left = left[written:]
        else:
            select([], [stream], [])


def _as_table(table: pa.Table) -> bytes:
    from rich.table import Table
    from rich.text import Text

    from collectors.terminal import Console

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for field in table.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        shown.add_column(Text(_visible(field.name)), justify="right" if number else "left", overflow="fold")
    for record in to_records(table):
        shown.add_row(*(Text("–" if value is None else _visible(str(value))) for value in record.values()))
    console = Console()
    with console.capture() as capture:
        console.print(shown)
    return capture.get().encode("utf-8", "backslashreplace")


def _visible(text: str) -> str:
    """Return the text with control characters spelled out: data must not steer the terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


COMPONENT = StdoutBackend
