"""The fastest path of access logs: compiled code, where it was built for this machine; see `_native/access_log.c`.

It takes only lines about which there can be no two opinions, and names the others. Without a compiler at installation there
is no such code, and all lines go the way that the others go.
"""

from __future__ import annotations

import ctypes
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from msgspec import Struct

from collectors import native
from collectors.settings import column_type

__all__ = ["Other", "Taken", "read"]

_LIBRARY = Path(__file__).parent / "_native" / "access_log.so"
_TEXTS = ("host", "ident", "user", "method", "path", "protocol", "referer", "user_agent")
"""The columns of text, in the order of the compiled code."""
_LINE_BYTES, _OTHER_BYTES = 8 * len(_TEXTS) + 24, 24
_TIME = column_type("timestamp")


class Other(Struct, frozen=True):
    """A line that was not taken: its number among all that hold a record, where it begins, where it ends."""

    number: int
    begin: int
    end: int


class Taken(Struct, frozen=True):
    """The columns of so many lines that were taken, and the others."""

    columns: dict[str, pa.Array]
    count: int
    others: list[Other]


@lru_cache(maxsize=1)
def _functions() -> Any:
    """Return the compiled code: what finds fields, what copies text, what copies numbers; None where it is not
    installed, or switched off by `COLLECTORS_NATIVE=0`.
    """
    names = [f"collectors_{name}_1" for name in ("scan_log", "copy_field", "copy_numbers")]
    found = native.functions(_LIBRARY, *names)
    if found is None:
        return None
    scan, text, numbers = found
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    scan.argtypes = (ctypes.c_char_p, size, number, pointer, pointer, pointer)
    text.argtypes = (ctypes.c_char_p, pointer, size, number, pointer, pointer, pointer)
    numbers.argtypes = (pointer, size, pointer, pointer, pointer, pointer)
    scan.restype = text.restype = numbers.restype = size
    return scan, text, numbers


def read(data: bytes, *, combined: bool) -> Taken | None:
    """Return the lines as columns of the pattern `combined`, or of `common`; None where there is no compiled code."""
    functions = _functions()
    if functions is None or len(data) >= 2**31:
        return None
    scan, copy_text, copy_numbers = functions
    most = data.count(b"\n") + 1
    lines, rest = pa.allocate_buffer(most * _LINE_BYTES), pa.allocate_buffer(most * _OTHER_BYTES)
    lengths = (ctypes.c_int64 * (len(_TEXTS) + 1))()
    count = scan(data, len(data), combined, lines.address, rest.address, lengths)
    columns: dict[str, pa.Array] = {}
    for which, name in enumerate(_TEXTS if combined else _TEXTS[:-2]):
        valid, offsets, text = (
            _bits(count),
            pa.allocate_buffer(4 * count + 4),
            pa.allocate_buffer(lengths[which]),
        )
        nulls = copy_text(data, lines.address, count, which, valid.address, offsets.address, text.address)
        columns[name] = pa.Array.from_buffers(
            pa.string(), count, [valid if nulls else None, offsets, text], nulls
        )
    times, statuses, sizes = (pa.allocate_buffer(8 * count) for _ in range(3))
    valid = _bits(count)
    nulls = copy_numbers(lines.address, count, times.address, statuses.address, sizes.address, valid.address)
    columns["time"] = pa.Array.from_buffers(_TIME, count, [None, times], 0)
    columns["status"] = pa.Array.from_buffers(pa.int64(), count, [None, statuses], 0)
    columns["size"] = pa.Array.from_buffers(pa.int64(), count, [valid if nulls else None, sizes], nulls)
    columns["request"] = pa.nulls(count, pa.string())
    others = struct.iter_unpack("=qqq", memoryview(rest)[: lengths[len(_TEXTS)] * _OTHER_BYTES])
    return Taken(columns, count, [Other(*numbers) for numbers in others])


def _bits(count: int) -> pa.Buffer:
    return pa.allocate_buffer((count + 7) // 8)
