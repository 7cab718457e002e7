"""CSV: quotes, cutting, types that keep every digit and spelling, and what becomes of bad records."""

from __future__ import annotations

import csv
import io
import time

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collectors.codecs._csv_records import Dialect
from collectors.codecs.csv import CsvCodec
from collectors.errors import DataError

INT, FLOAT, TEXT, BOOL, NULL = pa.int64(), pa.float64(), pa.string(), pa.bool_(), pa.null()


def decode(data, schema=None, **settings_):
    decoded = CsvCodec(**settings_).decode(data, schema)
    assert decoded.read == decoded.table.num_rows + len(decoded.rejected)
    for item in decoded.rejected:
        assert data[item.offset : item.offset + len(item.raw)] == item.raw
    return decoded


def column(values, **settings_):
    """Return the column that these fields give, beside one that keeps blank lines apart."""
    data = "n,a\n" + "".join(f"0,{value}\n" for value in values)
    return decode(data.encode(), **settings_).table.column("a")


@pytest.mark.parametrize(
    ("values", "data_type"),
    [
        (["0", "-12", "9223372036854775807"], INT),
        (["9223372036854775808"], TEXT),
        (["12345678901234567890"], TEXT),
        (["007"], TEXT),
        (["1", "007"], TEXT),
        (["+1"], TEXT),
        (["-0"], FLOAT),
        (["0x10"], TEXT),
        ([" 1"], TEXT),
        (["1_000"], TEXT),
        (["1.5", "2", "-0.25", "1e5", "2.5E-7"], FLOAT),
        (["0.1234567890123456"], FLOAT),
        (["21.123456789012345"], FLOAT),
        (["0.123456789012345678901"], TEXT),
        (["1.5", "9007199254740993"], TEXT),
        (["00.5"], TEXT),
        ([".5"], TEXT),
        (["1."], TEXT),
        (["1e999"], TEXT),
        (["nan"], TEXT),
        (["inf"], TEXT),
        (["true", "false"], BOOL),
        (["True"], TEXT),
        (["true", "1"], TEXT),
        (["2020-01-01"], TEXT),
        (["2020-01-01T00:00:00Z"], TEXT),
        (["", ""], NULL),
        (["", "1"], INT),
        (['""'], TEXT),
        (['"1"'], INT),
        (["١"], TEXT),
    ],
)
def test_types_are_those_that_lose_nothing(values, data_type):
    found = column(values)
    assert found.type == data_type
    if data_type == TEXT:
        assert found.to_pylist() == [value.strip('"') for value in values]


@pytest.mark.parametrize(
    ("known", "value", "got"),
    [
        (INT, "007", '"007"'),
        (INT, "0x10", '"0x10"'),
        (INT, "warm", '"warm"'),
        (INT, "9223372036854775808", '"9223372036854775808"'),
        (FLOAT, "nan", '"nan"'),
        (FLOAT, "9007199254740993", '"9007199254740993"'),
        (FLOAT, "1e999", '"1e999"'),
        (BOOL, "1", '"1"'),
    ],
)
def test_a_value_that_does_not_fit_costs_its_record(known, value, got):
    name = {INT: "int", FLOAT: "float", BOOL: "bool"}[known]
    good = {INT: "5", FLOAT: "5.5", BOOL: "true"}[known]
    decoded = decode(f"a,b\n{good},x\n{value},y\n,z\n".encode(), pa.schema([("a", known)]))
    assert decoded.table.schema == pa.schema([("a", known), ("b", TEXT)])
    assert decoded.table.column("b").to_pylist() == ["x", "z"]
    assert [(item.record, item.reason) for item in decoded.rejected] == [
        (1, f"column 'a': expected {name}, got {got}")
    ]


def test_int_widens_to_float_unless_digits_would_be_lost():
    schema = pa.schema([("a", INT)])
    decoded = decode(b"a\n1\n2.5\nx\n", schema)
    assert decoded.table.column("a").to_pylist() == [1.0, 2.5]
    assert [item.reason for item in decoded.rejected] == ["column 'a': expected float, got \"x\""]
    decoded = decode(b"a\n9007199254740993\n2.5\n", schema)
    assert decoded.table.column("a").to_pylist() == [9007199254740993]
    assert [item.reason for item in decoded.rejected] == ["column 'a': expected int, got \"2.5\""]


def test_text_takes_anything():
    decoded = decode(b"a\n1\n", pa.schema([("a", TEXT)]))
    assert decoded.table.to_pylist() == [{"a": "1"}]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("int", ["007", "+1", "-5"], ["0x10", "1.5", "x", "9" * 20]),
        ("float", ["1.", ".5", "nan", "+1e5"], ["x", "1,5"]),
        ("bool", ["true", "False", "TRUE", "0", "1"], ["yes", "tRUE"]),
        ("date", ["2020-02-29"], ["2020-02-30", "29.02.2020", "2020-2-9"]),
        (
            "timestamp",
            ["2020-01-01", "2020-01-01 10:00", "2020-01-01T10:00:00.5+02:00"],
            ["10:00", "2020-13-01", "1577836800"],
        ),
        ("decimal(5, 2)", ["1.5", "-0.01", "100"], ["1.555", "10000", "x"]),
        ("binary", ["AP8="], ["!!"]),
        ("string", ["007"], []),
    ],
)
def test_declared_types(kind, good, bad):
    values = [value for pair in zip(good * 9, bad or good, strict=False) for value in pair] if bad else good
    data = "a;b\n" + "".join(f"{value};\n" for value in values)
    decoded = decode(data.encode(), columns={"a": kind}, delimiter=";")
    assert len(decoded.rejected) == len(bad)
    assert [item.raw.decode() for item in decoded.rejected] == [f"{value};" for value in bad]
    assert decoded.table.column("a").null_count == 0


def test_empty_is_null_and_empty_quotes_are_empty_text():
    assert decode(b'a,b\n,""\n"",x\n').table.to_pylist() == [{"a": None, "b": ""}, {"a": "", "b": "x"}]
    rows = decode(b'a,b\nNA,"NA"\n,-\n', null_values=["NA", "-"]).table.to_pylist()
    assert rows == [{"a": None, "b": "NA"}, {"a": "", "b": None}]


def test_a_chunk_with_bad_records_keeps_the_good_ones():
    data = b'a,b\r\n1,"x\r\ny"\r\n2\r\n\r\n3,\xff\r\n4,z,5\r\n6,q\rw\r\n7,"5"" disk"\r\n8,"open\r\n9,ok\r\n'
    decoded = decode(data)
    assert decoded.table.to_pylist() == [
        {"a": 1, "b": "x\r\ny"},
        {"a": 7, "b": '5" disk'},
        {"a": 9, "b": "ok"},
    ]
    assert {item.record: item.reason for item in decoded.rejected} == {
        1: "expected 2 fields, got 1",
        2: "not UTF-8: byte 0xff at byte 3 of the record",
        3: "expected 2 fields, got 3",
        4: "a carriage return outside of quotes breaks the record in two",
        6: "a quote is opened and never closed",
    }


def test_a_byte_order_mark_in_the_middle_is_no_field():
    """Two files that were joined; pyarrow would drop the record that is only a mark."""
    decoded = decode(b"a\n\xef\xbb\xbf\n1\n")
    assert decoded.table.to_pylist() == [{"a": 1}]
    assert [item.raw for item in decoded.rejected] == [b"\xef\xbb\xbf"]


def test_one_bad_record_of_a_hundred_thousand_costs_that_record():
    lines = [b"%d,n%d,%d.5" % (n, n, n) for n in range(100_000)]
    lines[70_001] = b"70001,torn"
    lines[5] = b"x,n5,1.5"
    decoded = decode(b"a,b,c\n" + b"\n".join(lines), pa.schema([("a", INT), ("b", TEXT), ("c", FLOAT)]))
    assert [(item.record, item.raw) for item in decoded.rejected] == [(5, lines[5]), (70_001, lines[70_001])]
    assert decoded.table.num_rows == 99_998


class TestHeader:
    def test_names_twice_cost_no_record_silently(self):
        decoded = decode(b"a,b,a\n1,2,3\n4,5,6\n")
        assert [item.raw for item in decoded.rejected] == [b"1,2,3", b"4,5,6"]
        assert "names the column 'a' twice" in decoded.rejected[0].reason
        assert decode(b"a,b,a\n1,2,3\n", names=["a", "b", "c"]).table.to_pylist() == [
            {"a": 1, "b": 2, "c": 3}
        ]

    def test_quotes_and_line_breaks_in_names(self):
        codec, data = CsvCodec(), b'\xef\xbb\xbf"a\nb","c""d",\n1,2,3\n'
        assert codec.preamble(data) == data.index(b"1,2")
        assert codec.decode(data).table.schema.names == ["a\nb", 'c"d', ""]

    def test_a_header_that_is_not_complete_is_waited_for(self):
        assert CsvCodec().preamble(b'a,"b\nc') == 0
        assert CsvCodec().preamble(b"a,b") == 0
        assert CsvCodec(header=False, names=["a"]).preamble(b"a,b\n1,2\n") == 0

    def test_only_a_header(self):
        for data in (b"a,b", b"a,b\n", b"\xef\xbb\xbfa,b\r\n"):
            decoded = decode(data)
            assert decoded.read == 0
            assert decoded.table.schema == pa.schema([("a", NULL), ("b", NULL)])

    def test_no_header(self):
        assert decode(b"1\tx\n", header=False, names=["n", "t"], delimiter="\t").table.to_pylist() == [
            {"n": 1, "t": "x"}
        ]

    @pytest.mark.parametrize(
        ("settings_", "message"),
        [
            ({"header": False}, "`names` must say"),
            ({"names": ["a", "a"]}, "a name is there twice"),
            ({"delimiter": ";;"}, "delimiter: expected one ASCII character"),
            ({"delimiter": "é"}, "delimiter: expected one ASCII character"),
            ({"quote": "\n"}, "quote: expected one ASCII character"),
            ({"delimiter": '"'}, "delimiter and quote are both"),
        ],
    )
    def test_settings_that_do_not_fit(self, settings_, message):
        with pytest.raises(ValueError, match=message):
            CsvCodec(**settings_)


class TestCut:
    @pytest.mark.parametrize(
        ("data", "end"),
        [
            (b"1,2\n3", 4),
            (b"1,2", 0),
            (b'1,"x\ny', 0),
            (b'1,"x\ny"\n2', 8),
            (b'1,2\n3,"x\n', 4),
            (b'1,"a""\n', 0),
            (b'5" disk,1\nx\n"y', 12),
            (b'5" disk,1\n2,"open\n\n', 10),
            (b'a"b"c\n', 6),
            (b'"a" b"\nx\n', 9),
            (b'1,"x"\r\n2,"\r\n', 7),
            (b'nul\0,"\n"\n"', 9),
            (b'\xef\xbb\xbf"\n"\n"', 7),
        ],
    )
    def test_behind_the_last_whole_record(self, data, end):
        assert CsvCodec().cut(data, final=False) == end
        assert CsvCodec().cut(data, final=True) == len(data)

    def test_other_quotes_and_delimiters(self):
        codec = CsvCodec(quote="'", delimiter="|")
        assert codec.cut(b"1|'x\ny", final=False) == 0
        assert codec.cut(b'1,"x\ny', final=False) == 5

    @pytest.mark.parametrize("line", [b'","x","\n', b'"\n', b'"a"b"\n', b'a,"\n', b'"""\n', b'5" \n'])
    def test_no_text_takes_long(self, line):
        data = b"a,b,c\n" + line * 50_000 + b'"'
        started = time.process_time()
        CsvCodec().cut(data, final=False)
        decode(data)
        assert time.process_time() - started < 10


FIELDS = st.text(st.sampled_from('a,"\n1 ;é'), max_size=6)


@given(
    table=st.lists(st.lists(FIELDS, min_size=2, max_size=2), min_size=1, max_size=8),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    step=st.integers(1, 30),
)
@settings(max_examples=200, deadline=None)
def test_what_the_standard_library_writes_is_read_whole_and_in_pieces(table, quoting, step):
    text = io.StringIO()
    csv.writer(text, quoting=quoting, lineterminator="\n").writerows([["x", "y"], *table])
    data = text.getvalue().encode()
    codec = CsvCodec(columns={"x": "string", "y": "string"}, null_values=["never"])
    decoded = codec.decode(data)
    assert decoded.rejected == []
    assert [[row["x"], row["y"]] for row in decoded.table.to_pylist()] == table
    head, held, tables = data[: codec.preamble(data)], b"", []
    for start in range(len(head), len(data), step):
        held += data[start : start + step]
        end = codec.cut(held, final=start + step >= len(data))
        tables.append(codec.decode(head + held[:end], decoded.table.schema).table)
        held = held[end:]
    assert pa.concat_tables(tables).equals(decoded.table)


@given(data=st.text(st.sampled_from('a,"\n\r1\0é'), max_size=40).map(str.encode))
@settings(max_examples=400, deadline=None)
@example(data=b'\r"\n1')
@example(data=b'"\n"\n')
@example(data=b'a\n"')
def test_no_bytes_make_it_raise_or_lose_count(data):
    decoded = decode(b"x,y\n" + data)
    assert decoded.read == len(Dialect(b",", b'"').split(data).raw)
    decode(data)


@given(data=st.text(st.sampled_from('a,"\n\r'), max_size=25).map(str.encode))
@settings(max_examples=400, deadline=None)
def test_the_quick_ways_find_the_same_records_as_the_careful_one(data):
    dialect = Dialect(b",", b'"')
    records = dialect.split(data)
    assert dialect.count(data) == (None if records.unclosed else len(records.raw))
    last = data.rfind(b"\n") + 1
    whole = dialect.split(data[:last])
    assert dialect.end_of_last(data) == (whole.offsets[whole.unclosed[0]] if whole.unclosed else last)


class TestEncode:
    def test_values(self):
        table = pa.table({"a": [1, None], "t": ["x", ""], "n": [{"k": [1]}, None], "b": [b"\x00", b""]})
        assert (
            CsvCodec(delimiter=";").encode(table) == b'"a";"t";"n";"b"\n1;"x";"{""k"":[1]}";"AA=="\n;"";;""\n'
        )

    def test_what_csv_cannot_hold(self):
        with pytest.raises(DataError, match="blank line"):
            CsvCodec().encode(pa.table({"a": [1, None]}))
        with pytest.raises(DataError, match="quote"):
            CsvCodec(quote="'").encode(pa.table({"a": [1]}))
