"""The fastest path of JSON: one pass of compiled code, where it was built for this machine; see `_native/json_lines.c`.

It takes a chunk only when every record fits in the known columns beyond doubt; then its table is the one that pyarrow
would have made. Without a compiler at installation there is no such code, and everything goes the way through pyarrow.
"""

from __future__ import annotations

import ctypes
import re
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from collectors import native

__all__ = ["count_lines", "read"]

_LIBRARY = Path(__file__).parent / "_native" / "json_lines.so"
_NOTHING, _BOOL, _INT, _FLOAT, _STRING, _STRUCT, _LIST = range(7)
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
"""What JSON writes otherwise than it is; names are compared as they are written."""
_DEEPEST = 60
"""Arrow takes over no more than 64 levels from other code."""
_ARROW_ARRAY_BYTES = 80
"""The size of a `struct ArrowArray` where pointers have 64 bits."""


@lru_cache(maxsize=1)
def _functions() -> Any:
    """Return the compiled code: what reads, and what counts lines; None where it is not installed, or switched off by
    `COLLECTORS_NATIVE=0`.
    """
    found = native.functions(_LIBRARY, "collectors_read_json_1", "collectors_count_lines_1")
    if found is None:
        return None
    read, count = found
    read.argtypes = (ctypes.c_char_p, ctypes.c_int64, ctypes.c_char_p, ctypes.c_void_p)
    count.argtypes = (ctypes.c_char_p, ctypes.c_int64)
    read.restype = count.restype = ctypes.c_int64
    return read, count


def count_lines(text: bytes) -> tuple[int, bool]:
    """Return how many line feeds are in the text, and whether all of it is ASCII."""
    functions = _functions()
    if functions is None:
        return text.count(b"\n"), text.isascii()
    count = int(functions[1](text, len(text)))
    return (count, True) if count >= 0 else (-1 - count, False)


def read(text: bytes, schema: pa.Schema) -> pa.Table | None:
    """Return the records as a table of exactly this schema; None when this path does not take them.

    The text is UTF-8. Types that JSON has no values of (dates, decimals, …) are not taken.
    """
    functions = _functions()
    plan = _plan_of(schema) if functions is not None and len(text) < 2**31 else None
    if plan is None:
        return None
    array = ctypes.create_string_buffer(_ARROW_ARRAY_BYTES)
    if functions[0](text, len(text), plan, array) < 0:
        return None
    batch = pa.RecordBatch._import_from_c(ctypes.addressof(array), schema)  # noqa: SLF001  # how ctypes is served
    return pa.Table.from_batches([batch])


@lru_cache(maxsize=64)
def _plan_of(schema: pa.Schema) -> bytes | None:
    """Return the columns in the form that the compiled code reads, None when there is one that it cannot fill."""
    try:
        return _plan("", pa.struct(list(schema)))
    except (NotImplementedError, UnicodeEncodeError):
        return None


def _plan(name: str, data_type: pa.DataType, depth: int = 0) -> bytes:
    if _ESCAPED.search(name) or depth > _DEEPEST:
        raise NotImplementedError
    children: list[pa.Field] = []
    if pa.types.is_struct(data_type):
        kind, children = _STRUCT, list(data_type)
        if len({child.name for child in children}) < len(children):
            raise NotImplementedError
    elif pa.types.is_list(data_type):
        kind, children = _LIST, [data_type.value_field]
    else:
        kinds = {
            pa.null(): _NOTHING,
            pa.bool_(): _BOOL,
            pa.int64(): _INT,
            pa.float64(): _FLOAT,
            pa.string(): _STRING,
        }
        if data_type not in kinds:
            raise NotImplementedError
        kind = kinds[data_type]
    raw = name.encode()
    return b"".join(
        (
            struct.pack("=Bii", kind, len(raw), len(children)),
            raw,
            *(_plan(c.name, c.type, depth + 1) for c in children),
        )
    )
