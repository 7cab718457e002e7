"""Run by test_access_log_sanitized.py, with the sanitizers loaded: reads damaged lines for some seconds.

python _sanitized_log.py LIBRARY SECONDS SEED
"""

import random
import sys
import time
from pathlib import Path

from collectors.codecs import _access_native as native

GOOD = b'1.2.3.4 - bob [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 304 - "http://x/" "Mozilla/5.0 (X11)"\n'
PIECES = [bytes([code]) for code in b' "[]-:/\\\n\r09aA\x00\xff'] + [
    b"[10/Oct/2000",
    b'"GET / HTTP/1.1"',
    b"9" * 19,
    GOOD,
]

native._LIBRARY = Path(sys.argv[1])
assert native._functions() is not None
chance, taken, ends = random.Random(int(sys.argv[3])), 0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < ends:
    damaged = bytearray(GOOD * chance.randrange(1, 5))
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(damaged))
        damaged[place : place + chance.randrange(3)] = chance.choice(PIECES)
    data = bytes(damaged[: chance.choice([len(damaged), chance.randrange(len(damaged) + 1)])])
    for combined in (True, False):
        found = native.read(data, combined=combined)
        taken += found.count
        for column in found.columns.values():
            column.validate(full=True)
print(taken)
