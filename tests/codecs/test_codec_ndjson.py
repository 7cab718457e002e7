"""NDJSON: the traps of the decoder beneath, each pinned; what is refused, and in which words."""

from __future__ import annotations

import datetime as dt
import json
import random
import subprocess
import sys
import time
from decimal import Decimal

import pyarrow as pa
import pytest

from collectors.codecs import _json_native
from collectors.codecs.ndjson import NdjsonCodec
from collectors.errors import DataError
from collectors.testing import hostile

INT = pa.schema([("a", pa.int64())])
FLOAT = pa.schema([("a", pa.float64())])


def decode(data, schema=None, **columns):
    decoded = NdjsonCodec(columns=columns).decode(data, schema)
    assert decoded.read == decoded.table.num_rows + len(decoded.rejected)
    for item in decoded.rejected:
        assert data[item.offset : item.offset + len(item.raw)] == item.raw
    return decoded


def rows(data, schema=None, **columns):
    decoded = decode(data, schema, **columns)
    assert decoded.rejected == []
    return decoded.table.to_pylist()


def reasons(data, schema=None, **columns):
    return {item.record: item.reason for item in decode(data, schema, **columns).rejected}


@pytest.mark.parametrize("schema", [None, INT, FLOAT])
@pytest.mark.parametrize("line", hostile.JSON_LINES, ids=lambda line: repr(line[:20]))
def test_a_line_that_is_no_record_costs_that_line_alone(line, schema):
    data = b'{"a":1}\n' + line + b'\n{"a":2}\n'
    decoded = decode(data, schema)
    assert decoded.table.column("a").to_pylist() == [1, 2]
    assert [item.raw for item in decoded.rejected] == [line]
    assert decoded.rejected[0].record == 1
    assert decoded.rejected[0].offset == 8


@pytest.mark.parametrize("schema", [None, INT])
@pytest.mark.parametrize("line", hostile.JSON_LINES, ids=lambda line: repr(line[:20]))
def test_also_as_the_first_line(line, schema):
    decoded = decode(line + b'\n{"a":2}', schema)
    assert decoded.table.to_pylist() == [{"a": 2}]
    assert [item.raw for item in decoded.rejected] == [line.removeprefix(b"\xef\xbb\xbf")]


def test_no_bytes_crash_the_process():
    """In a process of its own, so that a crash of the native decoder is a failing test and not the end of all."""
    program = (
        "import random\n"
        "from collectors.codecs.ndjson import NdjsonCodec\n"
        "from collectors.testing.hostile import BYTES, JSON_LINES\n"
        "import pyarrow as pa\n"
        "rng = random.Random(7)\n"
        "schemas = [None, pa.schema([('a', pa.int64())]), pa.schema([('a', pa.null()), ('b', pa.list_(pa.null()))]),\n"
        "    pa.schema([('a', pa.struct([('b', pa.string())]))])]\n"
        "parts = [*BYTES, *JSON_LINES, b'null', b'\\n', b' ', b'\\r\\n', b'{\"a\":1}', b'{\"b\":[]}', b'{}', b'[', b'\\xef\\xbb\\xbf']\n"
        "for turn in range(1500):\n"
        "    data = b''.join(rng.choice(parts)[:2000 if turn % 50 else None] for _ in range(rng.randrange(1, 6)))\n"
        "    decoded = NdjsonCodec().decode(data, rng.choice(schemas))\n"
        "    assert decoded.read == decoded.table.num_rows + len(decoded.rejected)\n"
        "print('survived')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "survived\n", (done.returncode, done.stderr[-500:])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a":"warm"}', """column 'a': expected float, got "warm" (string)"""),
        (b'{"a":true}', "column 'a': expected float, got true (bool)"),
        (b'{"a":{"b":[1]}}', """column 'a': expected float, got {"b": [1]} (object)"""),
        (b'{"a":NaN}', "NaN is not JSON (RFC 8259): write null, or a string"),
        (b'{"a":-Infinity}', "-Infinity is not JSON (RFC 8259): write null, or a string"),
        (b'{"a":1,"a":2}', 'the key "a" is there twice'),
        (b'{"a":1e999}', "1e999 is too large for a number"),
        (b'{"b":"\\ud800"}', "a lone surrogate (\\ud800) is half a character"),
        (b'{"b":"\xff"}', "not UTF-8: byte 0xff at byte 7 of the record"),
        (b'{"a":1', "not JSON: Expecting ',' delimiter at character 7"),
        (b'{"a":01}', "not JSON: Expecting ',' delimiter at character 7"),
        (b'{"a":1}{"a":2}', "not JSON: Extra data at character 8"),
        (b"null", "expected an object, got null (null)"),
        (b"[1]", "expected an object, got [1] (array)"),
        (b'{"a":' + b"[" * 101 + b"]" * 101 + b"}", "nested deeper than 100 levels"),
        (
            b'{"a":9007199254740993}',
            (
                "column 'a': a float cannot hold 9007199254740993 (int) exactly; to keep it declare `columns: {a: string}` "
                "or `decimal(38, 0)`"
            ),
        ),
    ],
)
def test_reasons_are_for_people(line, reason):
    assert reasons(b'{"a":1.5}\n' + line) == {1: reason}
    assert reasons(line + b'\n{"a":1.5}', FLOAT) == {0: reason}


def test_nested_values_are_named_by_their_path():
    data = b'{"a":{"b":[{"c":1}]}}\n{"a":{"b":[{"c":1},{"c":"x"}]}}'
    assert reasons(data) == {1: """column 'a.b[].c': expected int, got "x" (string)"""}


def test_a_long_value_is_shortened_in_the_reason():
    (reason,) = reasons(b'{"a":"' + b"x" * 10_000 + b'"}', INT).values()
    assert len(reason) < 200


class TestTypes:
    def test_text_that_looks_like_a_time_stays_text(self):
        data = b'{"a":"2020-01-01","b":["2020-01-01T00:00:00"],"c":{"d":"2020-01-01 10:00:00"}}'
        assert rows(data) == [json.loads(data)]

    def test_the_type_of_most_records_wins(self):
        data = b'{"a":"x"}\n{"a":1}\n{"a":2}\n'
        assert decode(data).table.schema == INT
        assert reasons(data) == {0: """column 'a': expected int, got "x" (string)"""}

    def test_of_equally_many_the_first_wins(self):
        assert decode(b'{"a":"x"}\n{"a":1}\n').table.schema.types == [pa.string()]
        assert decode(b'{"a":1}\n{"a":"x"}\n').table.schema.types == [pa.int64()]

    @pytest.mark.parametrize("text", [b"1.0", b"1e2", b"1.5", b"-0.0"])
    def test_int_widens_to_float(self, text):
        decoded = decode(b'{"a":7}\n{"a":' + text + b"}", INT)
        assert decoded.rejected == []
        assert decoded.table.schema == FLOAT
        assert decoded.table.column("a").to_pylist() == [7.0, float(text)]

    def test_int_does_not_widen_when_digits_would_be_lost(self):
        decoded = decode(b'{"a":9007199254740993}\n{"a":1.5}\n', INT)
        assert decoded.table.to_pylist() == [{"a": 9007199254740993}]
        assert decoded.table.schema == INT
        assert [item.reason for item in decoded.rejected] == ["column 'a': expected int, got 1.5 (float)"]

    def test_widening_only_for_a_refused_record_does_not_happen(self):
        decoded = decode(
            b'{"a":1,"b":1}\n{"a":1.5,"b":"x"}\n', pa.schema([("a", pa.int64()), ("b", pa.int64())])
        )
        assert decoded.table.schema.types == [pa.int64(), pa.int64()]
        assert len(decoded.rejected) == 1

    def test_a_large_integer_beside_floats_is_not_rounded(self):
        decoded = decode(b'{"a":1.5}\n{"a":9007199254740993}\n{"a":9007199254740994}\n')
        assert decoded.table.column("a").to_pylist() == [1.5, 9007199254740994.0]
        assert [item.record for item in decoded.rejected] == [1]

    @pytest.mark.parametrize("path", [b'{"a":{"b":%s}}', b'{"a":[%s]}', b'{"a":[{"b":[%s]}]}'])
    def test_nor_inside_of_nested_values(self, path):
        decoded = decode(path % b"1.5" + b"\n" + path % b"9007199254740993")
        assert len(decoded.rejected) == 1
        assert "cannot hold 9007199254740993" in decoded.rejected[0].reason

    def test_large_floats_are_floats(self):
        assert rows(b'{"a":1e300}\n{"a":1.5e18}', FLOAT) == [{"a": 1e300}, {"a": 1.5e18}]

    @pytest.mark.parametrize("value", [2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**400])
    def test_integers_of_more_than_64_bits_are_refused_with_advice(self, value):
        decoded = decode(b'{"a":%d}\n' % value)
        assert decoded.table.num_rows == 0
        assert "declare `columns: {a: string}`" in decoded.rejected[0].reason or value == 10**400

    @pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2**53 + 1])
    def test_integers_of_64_bits_are_exact(self, value):
        assert rows(b'{"a":%d}' % value) == [{"a": value}]

    def test_null_becomes_anything(self):
        schema = decode(b'{"a":null,"b":{"c":null},"d":[]}').table.schema
        assert schema.types == [pa.null(), pa.struct([("c", pa.null())]), pa.list_(pa.null())]
        assert rows(b'{"a":null,"b":{"c":null},"d":[]}', schema) == [{"a": None, "b": {"c": None}, "d": []}]
        data = b'{"a":"x","b":{"c":1,"d":2},"d":[true]}'
        assert rows(data, schema) == [json.loads(data)]

    def test_an_empty_object_is_null_until_a_member_is_seen(self):
        schema = decode(b'{"a":{},"b":[{}]}').table.schema
        assert schema.types == [pa.null(), pa.list_(pa.null())]
        assert rows(b'{"a":{"x":1},"b":[{},{"y":1}]}\n{"a":{}}', schema) == [
            {"a": {"x": 1}, "b": [{"y": None}, {"y": 1}]},
            {"a": {"x": None}, "b": None},
        ]

    def test_a_column_of_nulls_stays_on_the_fast_path(self):
        codec, data = NdjsonCodec(), b'{"a":null,"b":1,"c":{}}\n' * 3
        schema = codec.decode(data).table.schema
        assert codec._lines.decode_fast(data, schema).table.num_rows == 3

    def test_new_keys_become_columns_at_the_end(self):
        decoded = decode(b'{"z":1}\n{"a":1,"b":"x"}\n{"c":true}', INT)
        assert decoded.table.schema.names == ["a", "z", "b", "c"]
        assert decoded.rejected == []

    def test_keys_that_are_data_do_not_become_columns_without_end(self):
        data = b"".join(b'{"tags":{"key-%d":1},"n":%d}\n' % (n, n) for n in range(20_000))
        decoded = decode(data)
        assert decoded.table.schema.field("tags").type.num_fields < 1000
        assert decoded.table.nbytes < 40 * len(data)
        assert "column 'tags.key-" in decoded.rejected[0].reason
        assert "`columns: {tags: string}`" in decoded.rejected[0].reason
        assert rows(data, tags="string")[7] == {"tags": '{"key-7":1}', "n": 7}

    def test_records_without_fields_need_a_column(self):
        assert rows(b'{}\n{"a":1}') == [{"a": None}, {"a": 1}]
        assert rows(b"{}", INT) == [{"a": None}]
        assert reasons(b"{}\n{}\n") == dict.fromkeys(
            range(2), "the record has no fields, and no column is known so far"
        )


class TestDeclared:
    def test_declared_types(self):
        data = (
            b'{"t":"2020-01-01T01:00:00.5+01:00","d":"2020-02-29","p":12.10,"b":"AP8=","f":1,"n":null}\n'
            b'{"t":"2020-01-01","p":"0.01"}\n'
        )
        columns = {"t": "timestamp", "d": "date", "p": "decimal(10, 2)", "b": "binary", "f": "float"}
        table = decode(data, None, **columns).table
        assert table.schema.names == ["t", "d", "p", "b", "f", "n"]
        midnight = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        assert table.to_pylist() == [
            {
                "t": midnight + dt.timedelta(seconds=0.5),
                "d": dt.date(2020, 2, 29),
                "p": Decimal("12.10"),
                "b": b"\x00\xff",
                "f": 1.0,
                "n": None,
            },
            {"t": midnight, "d": None, "p": Decimal("0.01"), "b": None, "f": None, "n": None},
        ]

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            ("timestamp", '"warm"'),
            ("timestamp", "5"),
            ("timestamp", '"2020-13-01"'),
            ("timestamp", '"2020-01-01T00:00:00.123456789Z"'),
            ("date", '"2020-02-30"'),
            ("date", "18000"),
            ("binary", '"!!"'),
            ("decimal(5, 2)", "1.555"),
            ("decimal(5, 2)", "10000"),
            ("decimal(5, 2)", '"x"'),
            ("int", '"5"'),
            ("int", "true"),
            ("bool", "1"),
        ],
    )
    def test_what_cannot_be_read_is_refused_by_name(self, kind, value):
        data = b'{"a":null}\n{"a":%s}\n{"a":null}' % value.encode()
        (reason,) = reasons(data, None, a=kind).values()
        assert reason.startswith(f"column 'a': expected {kind}, got {json.loads(value)!r}"[:30])

    def test_declared_string_keeps_the_source_text(self):
        data = b'{"a":1.10}\n{"a":123456789012345678901234567890}\n{"a":{"x": [1,  2]}}\n{"a":true}\n{"a":"s"}\n{"a":null}'
        expected = ["1.10", "123456789012345678901234567890", '{"x": [1,  2]}', "true", "s", None]
        assert [row["a"] for row in rows(data, None, a="string")] == expected
        assert reasons(b'{"a":1,"b":1,"b":2}', None, a="string") == {0: 'the key "b" is there twice'}

    def test_declared_decimal_is_exact(self):
        data = b'{"a":123456789012345678901234567890}\n{"a":18446744073709551615}'
        assert [row["a"] for row in rows(data, None, a="decimal(38, 0)")] == [
            Decimal(123456789012345678901234567890),
            Decimal(2**64 - 1),
        ]

    def test_a_declaration_wins_over_the_columns_so_far(self):
        """The advice to declare a column has to work in a pipeline that has run before."""
        assert rows(b'{"a":9007199254740993}', FLOAT, a="string") == [{"a": "9007199254740993"}]

    def test_unknown_types_are_refused_when_it_is_made(self):
        with pytest.raises(ValueError, match="column 'a': unknown type 'integer'"):
            NdjsonCodec(columns={"a": "integer"})


class TestLines:
    @pytest.mark.parametrize(
        "data",
        [
            b'\xef\xbb\xbf{"a":1}\n{"a":2}\n',
            b'{"a":1}\r\n{"a":2}\r\n',
            b'{"a":1}\n{"a":2}',
            b'\n\n{"a":1}\n \t\r\n\n  {"a":2}  \n\n',
        ],
    )
    @pytest.mark.parametrize("schema", [None, INT])
    def test_what_is_not_a_record(self, data, schema):
        decoded = decode(data, schema)
        assert decoded.read == 2
        assert decoded.table.to_pylist() == [{"a": 1}, {"a": 2}]

    def test_two_objects_on_a_line_do_not_make_up_for_one_on_two_lines(self):
        decoded = decode(b'{"a":{}}{"a":{}}\n{"a":\n{}}\n', pa.schema([("a", pa.null())]))
        assert decoded.read == 3
        assert len(decoded.rejected) == 3

    @pytest.mark.parametrize("places", [[0], [50_000], [99_999], [0, 1, 49_999, 99_998, 99_999]])
    def test_one_bad_line_of_a_hundred_thousand_costs_that_line(self, places):
        lines = [b'{"id":%d,"name":"n%d","value":%d.5}' % (n, n, n) for n in range(100_000)]
        for place in places:
            lines[place] = b'{"id":%d,"name":"torn' % place
        decoded = decode(b"\n".join(lines), NdjsonCodec().decode(lines[2]).table.schema)
        assert decoded.read == 100_000
        assert [item.record for item in decoded.rejected] == places
        assert decoded.table.column("id").to_pylist() == [n for n in range(100_000) if n not in places]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line[:-10],
        lambda line: line.replace(b'"ok"', b"5"),
        lambda line: line.replace(b"ok", b"\xff"),
        lambda line: line.replace(b'"id":', b'"id":' + b"9" * 20),
        lambda line: line.replace(b'"id":', b'"id":1,"id":'),
    ],
    ids=["torn", "type", "utf8", "large", "twins"],
)
def test_one_bad_line_in_a_hundred_costs_little(spoil, monkeypatch):
    """Measured without compiled code, so that the yardstick is the same everywhere."""
    monkeypatch.setattr(_json_native, "_functions", lambda: None)
    rng = random.Random(1)
    lines = [
        b'{"id":%d,"ts":"2026-11-22T10:00:%02dZ","device":"d-%d","status":"ok","t":%.1f,"h":20.5}'
        % (n, n % 60, n % 100, rng.uniform(-20, 50))
        for n in range(20_000)
    ]
    bad = [spoil(line) if n % 100 == 7 else line for n, line in enumerate(lines)]
    codec, clean, spoilt = NdjsonCodec(), b"\n".join(lines), b"\n".join(bad)
    schema = codec.decode(clean).table.schema
    assert len(codec.decode(spoilt, schema).rejected) == 200

    def seconds(data):
        started = time.process_time()
        codec.decode(data, schema)
        return time.process_time() - started

    ratios = sorted(seconds(spoilt) / seconds(clean) for _ in range(9))
    assert ratios[2] < 5


class TestEncode:
    def test_values(self):
        table = pa.table(
            {
                "at": pa.array([dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC)], pa.timestamp("us", "UTC")),
                "ns": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "UTC")),
                "day": [dt.date(2026, 1, 2)],
                "price": [Decimal("1.10")],
                "raw": [b"\x00\xff"],
                "none": pa.nulls(1),
                "big": [2**63 - 1],
                "nested": [{"a": [1, None]}],
            }
        )
        assert NdjsonCodec().encode(table) == (
            b'{"at":"2026-01-02T03:04:05.000006Z","ns":"2023-11-14T22:13:20.123456789Z","day":"2026-01-02",'
            b'"price":"1.10","raw":"AP8=","none":null,"big":9223372036854775807,"nested":{"a":[1,null]}}\n'
        )

    @pytest.mark.parametrize(
        "values", [[1.0, float("nan")], [[1.0], [float("inf")]], [{"a": 1.0}, {"a": -float("inf")}]]
    )
    def test_numbers_that_json_does_not_have(self, values):
        with pytest.raises(DataError, match="has no form in JSON") as caught:
            NdjsonCodec().encode(pa.table({"a": values}))
        assert list(caught.value.rows) == [1]

    def test_two_columns_of_one_name(self):
        with pytest.raises(DataError, match="same name"):
            NdjsonCodec().encode(pa.table([[1], [2]], names=["a", "a"]))
