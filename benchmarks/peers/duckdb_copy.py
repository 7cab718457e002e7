"""DuckDB alone: one statement, nothing that survives a crash half-way. Arguments: input, parquet | duckdb, threads."""

import sys

import duckdb

path, kind, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
COLUMNS = "id: 'BIGINT', device: 'VARCHAR', ts: 'VARCHAR', temperature: 'DOUBLE', humidity: 'DOUBLE', status: 'VARCHAR', seq: 'BIGINT'"
SELECT = f"""
select *, temperature * 9 / 5 + 32 as temperature_f
from read_json('{path}', format = 'newline_delimited', columns = {{{COLUMNS}}})
where status <> 'fail' and temperature between -50 and 60
"""
with duckdb.connect("out/out.duckdb" if kind == "duckdb" else ":memory:") as connection:
    connection.sql(f"set threads = {threads}")
    if kind == "duckdb":
        connection.sql(f"create table sensors as {SELECT}")
    else:
        connection.sql(
            f"copy ({SELECT}) to 'out/out.parquet' (format parquet, compression zstd, compression_level 1)"
        )
