"""Run by test_json_native_sanitized.py, with the sanitizers loaded: reads damaged texts for some seconds.

python _sanitized.py LIBRARY SECONDS SEED
"""

import json
import random
import sys
import time
from pathlib import Path

import pyarrow as pa

from collectors.codecs import _json_native as native
from collectors.testing import hostile

SCHEMAS = (
    pa.schema(
        [("i", pa.int64()), ("f", pa.float64()), ("s", pa.string()), ("b", pa.bool_()), ("n", pa.null())]
    ),
    pa.schema(
        [("o", pa.struct([("x", pa.int64())])), ("l", pa.list_(pa.struct([("v", pa.list_(pa.float64()))])))]
    ),
)
GOOD = [
    json.dumps(record).encode()
    for record in (
        {"i": 1, "f": 2.5, "s": 'a\n😀"', "b": True, "n": None},
        {"o": {"x": 5}, "l": [{"v": [1.5, 2.5e100]}, None, {}]},
    )
]
PIECES = [
    *(bytes([code]) for code in b'{}[]":,\\n1-.e0 \n\x00\xff'),
    *(b"\\u", b"d83d", b"\\ud83d\\ude00", b"null", b"true", b"fals", b"9" * 20, b"x" * 9),
    *(b'"i":', b'"f":', b'"s":"', b'"o":{', b'"l":[', b'"v":[', b'"x":1'),
]


def text(chance):
    """Return pieces in any order, or good lines of which some bytes are others."""
    kind = chance.random()
    if kind < 0.4:
        return b"".join(chance.choices(PIECES, k=chance.randrange(1, 40)))
    if kind > 0.95:
        return chance.choice(hostile.JSON_LINES)
    damaged = bytearray(b"\n".join(chance.choices(GOOD, k=chance.randrange(1, 6))))
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(damaged))
        damaged[place : place + chance.randrange(3)] = chance.choice(PIECES)
    return bytes(damaged)


native._LIBRARY = Path(sys.argv[1])
assert native._functions() is not None
chance, taken, ends = random.Random(int(sys.argv[3])), 0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < ends:
    data = text(chance)
    for schema in SCHEMAS:
        table = native.read(data, schema)
        if table is not None:
            taken += 1
            try:
                data.decode()
            except UnicodeDecodeError:
                continue  # the caller's part
            table.validate(full=True)
print(taken)
