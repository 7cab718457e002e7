"""Names, values and bytes that have broken decoders and stores; the contracts feed them to every component."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa

__all__ = ["BYTES", "FLOATS", "INTEGERS", "JSON_LINES", "NAMES", "TEXTS", "plain_table", "typed_table"]

NAMES = (
    "id",
    "",
    " ",
    "a b",
    'a "quoted" one',
    "it's",
    "back\\slash",
    "select",
    "Select",
    "class",
    "__proto__",
    "a.b",
    "a;b,c\td",
    "x" * 300,
    "é",
    "e\u0301",
    "😀",
    "$[0]",
    "nul\0l",
    "line\nbreak",
)
"""Names of columns: white space, quotes, keywords, case-only differences, not normalised, empty, long, with a NUL."""

TEXTS = (
    "",
    " ",
    " padded ",
    "null",
    "NaN",
    "true",
    "007",
    "+1",
    "1e5",
    "0x10",
    "2020-01-01",
    "2020-01-01T00:00:00Z",
    "12345678901234567890",
    'quoted "text"',
    "'; drop table x; --",
    "a,b;c\td",
    "back\\slash \\u0041",
    "two\nlines",
    "carriage\r\nreturn",
    "nul\0l",
    "😀 é e\u0301",
    "\u202eright to left",
    "\ufeffmark",
    "\x7f\x1b[31m",
    "{}",
    "[1]",
    "x" * 70_000,
)

INTEGERS = (0, -1, 1, 2**31, 2**53 - 1, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63))

FLOATS = (0.0, -0.0, 0.1, -1.5, 1e-300, 5e-324, 1e300, 1.7976931348623157e308, 2.0**53, 0.30000000000000004)

JSON_LINES = (
    b"null",
    b"true",
    b"1",
    b'"x"',
    b"[]",
    b"[1]",
    b"{",
    b"}",
    b'{"a":',
    b'{"a":1',
    b'{"a":1,}',
    b'{"a":01}',
    b'{"a":1.}',
    b'{"a":.5}',
    b'{"a":+1}',
    b'{"a":NaN}',
    b'{"a":-Infinity}',
    b'{"a":Inf}',
    b'{"a":1e999}',
    b'{"a":tru}',
    b"{'a':1}",
    b"{a:1}",
    b'{"a":1,"a":2}',
    b'{"a":{"b":1,"b":2}}',
    b'{"a":1}{"a":2}',
    b'{"a":1} {"a":2}',
    b'{"a":1} null',
    b'{"a":1}x',
    b'{"a":"\\ud800"}',
    b'{"a":"\\udc00x"}',
    b'{"\\ud800":1}',
    b'{"a":"\xff"}',
    b'{"\xff":1}',
    b'{"a":"\xed\xa0\x80"}',
    b'{"a":"x\x01y"}',
    b'{"a":"x\x00y"}',
    b'{"a":1}\x00',
    b'\x00{"a":1}',
    b'{"a":1} // note',
    b"\xef\xbb\xbf\xef\xbb\xbf{}",
    b'{"a":' + b"[" * 100_000,
    b'{"a":' + b"[" * 2_000 + b"]" * 2_000 + b"}",
    b'{"a":' * 50_000,
    b"[" * 100_000,
    b'{"a":' + b"9" * 5_000 + b"}",
)
"""Lines that are no record of JSON, by RFC 8259 and what it leaves open."""

BYTES = (
    *JSON_LINES,
    b"null\n",
    b'null\n{"a":1}\n',
    b'null{"a":1}\n',
    b'{"a":1}\nnull\n',
    b'\xef\xbb\xbfnull\n{"a":1}\n',
    b' \n\t\r\n null\n{"a":1}',
    b'{"a":\n1}\n',
    b'{"a":1}{"a":2}\n{"a":\n{}}\n',
    b"\x00" * 100,
    b"\xff\xfe{\x00}\x00",
    b"\xff" * 100,
    b"\n\n\r\n",
    b"\xef\xbb\xbf",
    b"a,a\n1,2\n",
    b'a,b\n"open,1\n2,3\n',
    b"a,b\n1\n1,2,3\n",
    b"a\r1\r2\n",
    b'"' * 1001,
    b'","x","\n' * 2_000,
    b"PAR1" + b"\xff" * 60 + b"PAR1",
    b"ARROW1\x00\x00" + b"\xff" * 60,
    b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"x" * 100,
)
"""Chunks that no decoder may fail on, crash on, or lose count of."""


def plain_table(rows: int = 30) -> pa.Table:
    """Return a table of nasty names and values with the types that every format of records can hold."""
    columns: dict[str, pa.Array] = {}
    for number, name in enumerate(NAMES):
        values, data_type = (
            (TEXTS, pa.string()),
            (INTEGERS, pa.int64()),
            (FLOATS, pa.float64()),
            ((True, False), pa.bool_()),
        )[number % 4]
        # Every fifth value is null, but never in the first column, so that each row can be told from the others.
        chosen = [None if number and row % 5 == 4 else values[row % len(values)] for row in range(rows)]
        columns[name] = pa.array(chosen if number else list(range(rows)), data_type if number else pa.int64())
    return pa.table(list(columns.values()), names=list(columns))


def typed_table() -> pa.Table:
    """Return a table with types that text formats have to be told, and with nested values."""
    moment = datetime(2026, 11, 22, 10, 20, 30, 123456, tzinfo=UTC)
    return pa.table(
        {
            "at": pa.array([moment, datetime(1, 1, 1, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
            "day": pa.array([date(2024, 2, 29), date(9999, 12, 31), None], pa.date32()),
            "price": pa.array([Decimal("0.10"), Decimal("-9999999999.99"), None], pa.decimal128(12, 2)),
            "raw": pa.array([b"\x00\xff", b"", None], pa.binary()),
            "tags": pa.array([["a", None, "b"], [], None], pa.list_(pa.string())),
            "point": pa.array([{"x": 1, "y": {"z": "q"}}, {"x": None, "y": None}, None]),
        }
    )
