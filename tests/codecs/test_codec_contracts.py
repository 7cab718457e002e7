"""Every codec keeps the contract."""

from __future__ import annotations

import pyarrow as pa

from collectors.testing import hostile
from collectors.testing.codec_contract import CodecContract

TYPES = {"at": "timestamp", "day": "date", "price": "decimal(12, 2)", "raw": "binary"}


class TestNdjson(CodecContract):
    component = "ndjson"


class TestNdjsonTyped(CodecContract):
    component = "ndjson"
    settings = {"columns": TYPES}

    def sample(self):
        return hostile.typed_table()


class TestJson(CodecContract):
    component = "json"


class TestCsv(CodecContract):
    component = "csv"


class TestCsvTyped(CodecContract):
    component = "csv"
    settings = {"columns": TYPES, "delimiter": ";"}

    def sample(self):
        return hostile.typed_table().drop_columns(["tags", "point"])


class TestLines(CodecContract):
    component = "lines"

    def sample(self):
        texts = [text for text in hostile.TEXTS if text.strip() and "\n" not in text]
        return pa.table({"line": texts})


class TestParquet(CodecContract):
    component = "parquet"

    def sample(self):
        return everything()


class TestArrow(CodecContract):
    component = "arrow"

    def sample(self):
        return everything()


def everything():
    typed = hostile.typed_table()
    plain = hostile.plain_table(typed.num_rows)
    return pa.table([*plain.columns, *typed.columns], names=[*plain.column_names, *typed.column_names])
