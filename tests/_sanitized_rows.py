"""Run by test_rows_sanitized.py, with the sanitizers loaded: takes rows apart and writes them for some seconds.

python _sanitized_rows.py LIBRARY SECONDS SEED
"""

import random
import struct
import sys
import time
from pathlib import Path

import pyarrow as pa

from collectors import json_rows, rows

TYPES = {
    pa.bool_(): lambda chance: chance.random() < 0.5,
    pa.int64(): lambda chance: chance.choice([0, -1, 2**63 - 1, -(2**63), chance.getrandbits(40)]),
    pa.float64(): lambda chance: struct.unpack("<d", chance.randbytes(8))[0],
    pa.string(): lambda chance: "".join(chance.choices('ab"\\\x00\x1f\x7fé😀', k=chance.randrange(20))),
    pa.timestamp("us"): lambda chance: chance.choice(
        [0, -(2**63), 2**63 - 1, chance.randrange(-(10**17), 10**17)]
    ),
    pa.list_(pa.string()): lambda chance: [None, "x"][: chance.randrange(3)],
    pa.struct([("x", pa.float64())]): lambda chance: {"x": chance.random()},
}
STRANGE = [2**64, "\ud800", b"bytes", object(), 1j, "x" * 10_000]


def columns(chance, count):
    """Return columns by name, of values with nulls among them."""
    kinds = [chance.choice(list(TYPES)) for _ in range(chance.randrange(1, 5))]
    return {
        f"c{number}": pa.array(
            [None if chance.random() < 0.2 else TYPES[kind](chance) for _ in range(count)], kind
        )
        for number, kind in enumerate(kinds)
    }


def work(chance):
    """Write rows, make dicts of them and take these apart, some of them damaged; return how often it was done."""
    count = chance.randrange(50)
    table = pa.table(columns(chance, count))
    written = json_rows.written(table.slice(chance.randrange(5)))
    calendar = [number for number, kind in enumerate(table.schema.types) if not pa.types.is_timestamp(kind)]
    table = table.select(calendar)
    made = rows.dicts_of(table.slice(chance.randrange(5)))
    for record in chance.sample(made, chance.choice([0, 0, min(len(made), 2)])):
        record[chance.choice(["c0", "other"])] = chance.choice(STRANGE)
    found = rows.take_apart(table.column_names, made)
    called = rows.call_for_rows(
        lambda record: chance.choice([*made, record, record, None]), table.column_names, table, 0
    )
    for column in [*(found or ()), *(called.columns if called else ())]:
        if isinstance(column, pa.Array):
            column.validate(full=True)
    return (written is not None) + (found is not None)


library = Path(sys.argv[1])
module = rows if library.stem == "rows" else json_rows
module._LIBRARY = library
assert module._functions() is not None
chance, done, ends = random.Random(int(sys.argv[3])), 0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < ends:
    done += work(chance)
print(done)
