"""What `cast` converts, and what it refuses."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from pydantic import ValidationError

from collectors.errors import ConfigurationError
from collectors.processing.processors.cast import Cast
from collectors.testing.processor_contract import ProcessorContract

TABLE = pa.table(
    {
        "temperature": ["20.5", None, "-1e3", "7"],
        "ok": ["true", "0", None, "1"],
        "count": [1.0, 2.0, None, 3.0],
        "at": ["2026-01-31", "2026-01-31T12:00:00Z", "2026-01-31 13:00:00.5+01:00", None],
    }
)


class TestCast(ProcessorContract):
    component = "cast"
    settings = {"columns": {"temperature": "float", "ok": "bool", "count": "int", "at": "timestamp"}}
    poison = {"temperature": "warm", "ok": "perhaps", "count": 1.5, "at": "yesterday"}

    def given(self):
        return TABLE

    def expected(self):
        noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
        return pa.table(
            {
                "temperature": [20.5, None, -1000.0, 7.0],
                "ok": [True, False, None, True],
                "count": [1, 2, None, 3],
                "at": pa.array(
                    [datetime(2026, 1, 31, tzinfo=UTC), noon, noon.replace(microsecond=500_000), None],
                    pa.timestamp("us", "UTC"),
                ),
            }
        )


def cast_one(value, name, source=None, **settings):
    outcome = Cast(columns={"x": name}, **settings).apply(pa.table({"x": pa.array([value], source)}))
    return outcome.table["x"].to_pylist()[0] if outcome.table.num_rows else outcome.rejected[0].reason


@pytest.mark.parametrize(
    ("value", "name", "result"),
    [
        ("12", "int", 12),
        ("1.5", "float", 1.5),
        ("TRUE", "bool", True),
        ("12.30", "decimal(5, 2)", Decimal("12.30")),
        ("2026-02-28", "date", date(2026, 2, 28)),
        ("a", "binary", b"a"),
        (1, "bool", True),
        (2**53, "float", 9007199254740992.0),
        (2**60, "float", 1152921504606846976.0),
        (5, "decimal(3, 1)", Decimal("5.0")),
        (5, "string", "5"),
        (2.0, "int", 2),
        (19.99, "decimal(7, 2)", Decimal("19.99")),
        (0.1, "string", "0.1"),
        (Decimal("19.99"), "float", 19.99),
        (Decimal("2.00"), "int", 2),
        (True, "int", 1),
        (date(2026, 1, 1), "timestamp", datetime(2026, 1, 1, tzinfo=UTC)),
        (datetime(2026, 1, 1, 5, tzinfo=UTC), "date", date(2026, 1, 1)),
        (datetime(2026, 1, 1, 5, tzinfo=UTC), "string", "2026-01-01T05:00:00.000000Z"),
        (b"text", "string", "text"),
        (None, "int", None),
    ],
)
def test_exact(value, name, result):
    found = cast_one(value, name)
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("value", "name", "reason"),
    [
        ("warm", "float", "'warm' is not a float"),
        ("", "int", "'' is not an int"),
        (" 1", "int", "' 1' is not an int"),
        ("0x1F", "int", "'0x1F' is not an int"),
        ("1_000", "int", "'1_000' is not an int"),
        ("1.0", "int", "'1.0' is not an int"),
        ("9223372036854775808", "int", "'9223372036854775808' is not an int"),
        ("1e999", "float", "'1e999' is not a float"),
        ("nan", "float", "'nan' is not a float"),
        ("yes", "bool", "'yes' is not a bool"),
        ("1.234", "decimal(5, 2)", "'1.234' is not a decimal(5, 2)"),
        ("12345", "decimal(5, 2)", "'12345' is not a decimal(5, 2)"),
        ("2026-02-30", "date", "'2026-02-30' is not a date"),
        ("2026-02-30", "timestamp", "'2026-02-30' is not a timestamp"),
        ("0000-01-01", "timestamp", "'0000-01-01' is not a timestamp"),
        ("2026-01-01T00:00:00.1234567Z", "timestamp", "'2026-01-01T00:00:00.1234567Z' is not a timestamp"),
        ("x" * 100, "int", f"{'x' * 100!r}"[:60] + "… is not an int"),
        (1.5, "int", "1.5 cannot be an int without loss"),
        (float("nan"), "int", "nan cannot be an int without loss"),
        (2.0**63, "int", "9.223372036854775808e+18 cannot be an int without loss"),
        (1.239, "decimal(7, 2)", "1.239 cannot be a decimal(7, 2) without loss"),
        (2**53 + 1, "float", "9007199254740993 cannot be a float without loss"),
        (2**63 - 1, "float", "9223372036854775807 cannot be a float without loss"),
        (2, "bool", "2 cannot be a bool without loss"),
        (Decimal("1.5"), "int", "1.5 cannot be an int without loss"),
        (Decimal("12345678901234567890.1"), "float", "12345678901234567890.1 cannot be a float without loss"),
        (b"\xff", "string", "b'\\xff' is not a string"),
    ],
)
def test_lossy(value, name, reason):
    if value == 2.0**63:
        reason = f"{value} cannot be an int without loss"
    assert cast_one(value, name) == f"column 'x': {reason}"
    assert cast_one(value, name, on_error="null") is None


def test_every_bad_row_is_found_at_once():
    texts = [f"{n}.5" if n % 7 else f"bad {n}" for n in range(1000)]
    outcome = Cast(columns={"x": "float"}).apply(pa.table({"x": texts}))
    assert [item.record for item in outcome.rejected] == list(range(0, 1000, 7))
    assert outcome.table["x"].to_pylist() == [n + 0.5 for n in range(1000) if n % 7]


@pytest.mark.parametrize(
    ("text", "form", "result"),
    [
        ("31.01.2026 08:05", "%d.%m.%Y %H:%M", datetime(2026, 1, 31, 8, 5, tzinfo=UTC)),
        ("2026-01-31 +0100", "%Y-%m-%d %z", datetime(2026, 1, 30, 23, tzinfo=UTC)),
        ("30.02.2026", "%d.%m.%Y", "column 'x': '30.02.2026' is not a timestamp, written as %d.%m.%Y"),
        ("1.1.2026 x", "%d.%m.%Y", "column 'x': '1.1.2026 x' is not a timestamp, written as %d.%m.%Y"),
    ],
)
def test_format(text, form, result):
    assert cast_one(text, "timestamp", format=form) == result


def test_format_of_dates():
    assert cast_one("31.01.2026", "date", format="%d.%m.%Y") == date(2026, 1, 31)


def test_format_without_use():
    with pytest.raises(ValidationError, match="'format' is for columns of the type timestamp or date"):
        Cast(columns={"x": "int"}, format="%d")


@pytest.mark.parametrize(
    ("array", "name", "message"),
    [
        (pa.array([[1]]), "int", "columns.x: a list cannot become an int"),
        (pa.array([5]), "timestamp", "columns.x: an int cannot become a timestamp"),
        (pa.array([{"a": 1}]), "string", "columns.x: a struct cannot become a string"),
    ],
)
def test_types_that_never_fit(array, name, message):
    with pytest.raises(ConfigurationError, match=message):
        Cast(columns={"x": name}).apply(pa.table({"x": array}))


def test_unknown_names():
    with pytest.raises(ValidationError, match="unknown type 'flot': did you mean 'float'"):
        Cast(columns={"x": "flot"})
    with pytest.raises(ConfigurationError, match="no column 'y'"):
        Cast(columns={"y": "int"}).apply(pa.table({"x": [1]}))


def test_column_of_nulls_gets_the_type():
    result = Cast(columns={"x": "timestamp"}).apply(pa.table({"x": pa.nulls(3)})).table
    assert result["x"].type == pa.timestamp("us", "UTC")


def test_unsigned_and_narrow_ints():
    assert cast_one(2**64 - 1, "decimal(20, 0)", pa.uint64()) == Decimal(2**64 - 1)
    assert (
        cast_one(2**64 - 1, "int", pa.uint64())
        == "column 'x': 18446744073709551615 cannot be an int without loss"
    )
    assert cast_one(-5, "int", pa.int8()) == -5
