"""Makes the SQLite file that sql-table.yaml reads."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

path = Path(__file__).parent / "out" / "shop.db"
path.parent.mkdir(exist_ok=True)
path.unlink(missing_ok=True)
with closing(sqlite3.connect(path)) as database, database:
    database.execute(
        "create table orders (id integer primary key, customer text, total decimal(10, 2), updated_at text not null)"
    )
    database.executemany(
        "insert into orders values (?, ?, ?, ?)",
        [
            (n, f"customer {n % 7}", n / 4, f"2026-01-01T00:{n // 60 % 60:02}:{n % 60:02}Z")
            for n in range(1000)
        ],
    )
