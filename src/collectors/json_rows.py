"""Tables as lines of JSON, written by compiled code, where it was built for this machine; see `_native/json_rows.c`.

The text is that which msgspec would write of the values; who calls this has to have that way too.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from collectors import native

__all__ = ["written"]

_LIBRARY = Path(__file__).parent / "_native" / "json_rows.so"
_NOTHING, _BOOL, _INT, _FLOAT, _STRING, _STRUCT, _LIST, _TIME, _UTC_TIME = range(9)
_KINDS = {
    pa.null(): _NOTHING,
    pa.bool_(): _BOOL,
    pa.int64(): _INT,
    pa.float64(): _FLOAT,
    pa.string(): _STRING,
    pa.timestamp("us"): _TIME,
    pa.timestamp("us", "UTC"): _UTC_TIME,
}
_BLOCK = 16
"""So many bytes of a name are copied at a time, also of a shorter one."""
_ARROW_ARRAY_BYTES = 80
"""The size of a `struct ArrowArray` where pointers have 64 bits."""
_BATCH_ROWS = 4096
"""The text of so many rows finds room in the heap: larger pieces of memory are given back, and had anew each time."""


@lru_cache(maxsize=1)
def _functions() -> Any:
    """Return the compiled code: what writes, and what frees the text, with a table of powers; None where it is not
    installed, or switched off by `COLLECTORS_NATIVE=0`.
    """
    found = native.functions(_LIBRARY, "collectors_write_json_1", "collectors_free_1")
    if found is None:
        return None
    write, free = found
    write.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
    free.argtypes = (ctypes.c_void_p,)
    write.restype, free.restype = ctypes.c_int64, None
    return write, free, b"".join(map(_power_of_ten, range(-292, 325)))


def _power_of_ten(exponent: int) -> bytes:
    """Return the upper 128 bits of a power of ten, rounded up, as two words, the higher first."""
    numerator, denominator = 10 ** max(exponent, 0), 10 ** max(-exponent, 0)
    shift = 128 - (numerator.bit_length() - denominator.bit_length())
    bits = -((-numerator << max(shift, 0)) // (denominator << max(-shift, 0)))
    if bits >> 128:
        bits = -((-numerator << max(shift - 1, 0)) // (denominator << max(1 - shift, 0)))
    return struct.pack("=QQ", bits >> 64, bits & (2**64 - 1))


def written(table: pa.Table) -> bytes | None:
    """Return one JSON object a row, each with a line feed; None when this path does not take the columns, or a value."""
    functions = _functions()
    plan = _plan_of(table.schema) if functions is not None else None
    if plan is None:
        return None
    try:
        return b"".join(_texts(table, plan, *functions))
    except OverflowError:
        return None


def _texts(table: pa.Table, plan: bytes, write: Any, free: Any, powers: bytes) -> Iterator[bytes]:
    array, text = ctypes.create_string_buffer(_ARROW_ARRAY_BYTES), ctypes.c_void_p()
    for batch in table.to_batches(_BATCH_ROWS):
        batch._export_to_c(ctypes.addressof(array))  # noqa: SLF001  # how ctypes is served
        length = write(array, plan, powers, ctypes.byref(text))
        if length < 0:
            raise OverflowError
        try:
            yield ctypes.string_at(text, length)
        finally:
            free(text)


@lru_cache(maxsize=64)
def _plan_of(schema: pa.Schema) -> bytes | None:
    """Return the columns in the form that the compiled code reads, None when there is one that it does not write."""
    try:
        return _plan(b"", pa.struct(list(schema))) + bytes(_BLOCK)
    except NotImplementedError:
        return None


def _plan(name: bytes, data_type: pa.DataType) -> bytes:
    children: list[pa.Field] = []
    if pa.types.is_struct(data_type):
        kind, children = _STRUCT, list(data_type)
        if len({child.name for child in children}) < len(children):
            raise NotImplementedError
    elif pa.types.is_list(data_type):
        kind, children = _LIST, [data_type.value_field]
    elif data_type in _KINDS:
        kind = _KINDS[data_type]
    else:
        raise NotImplementedError
    head = struct.pack("=Bii", kind, len(name), len(children))
    return head + name + b"".join(_plan(msgspec.json.encode(c.name) + b":", c.type) for c in children)
