"""Parquet and Arrow: slices of large files, types that change, damaged bytes."""

from __future__ import annotations

import io
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.codecs.arrow import ArrowCodec
from collectors.codecs.parquet import ParquetCodec
from collectors.errors import ConfigurationError, DataError

CODECS = [ArrowCodec, ParquetCodec]
TABLE = pa.table({"a": [1, 2, 3], "s": ["x", None, "z"]})


def schema(**types):
    return pa.schema(list(types.items()))


@pytest.fixture(params=CODECS, ids=lambda codec: codec.__name__)
def codec(request):
    return request.param()


@pytest.mark.parametrize(
    ("known", "values", "expected"),
    [
        (pa.float64(), pa.array([1, None], pa.int32()), pa.float64()),
        (pa.int64(), pa.array([1.5, None]), pa.float64()),
        (pa.int64(), pa.array([1], pa.int8()), pa.int64()),
        (pa.int8(), pa.array([1], pa.int64()), pa.int64()),
        (pa.uint8(), pa.array([1], pa.int8()), pa.int64()),
        (pa.null(), pa.array(["x"]), pa.string()),
        (pa.string(), pa.nulls(2), pa.string()),
        (pa.string(), pa.array(["x"], pa.large_string()), pa.string()),
        (pa.string(), pa.array(["x", "x"]).dictionary_encode(), pa.string()),
        (pa.binary(), pa.array([b"xy"], pa.large_binary()), pa.binary()),
        (pa.timestamp("ms", "UTC"), pa.array([1], pa.timestamp("us", "UTC")), pa.timestamp("us", "UTC")),
        (pa.list_(pa.int64()), pa.array([[1.5]]), pa.list_(pa.float64())),
        (
            pa.struct([("x", pa.int64())]),
            pa.array([{"y": "q"}]),
            pa.struct([("x", pa.int64()), ("y", pa.string())]),
        ),
    ],
)
def test_types_widen(codec, known, values, expected):
    decoded = codec.decode(codec.encode(pa.table({"b": values, "a": values})), schema(z=pa.bool_(), a=known))
    assert decoded.rejected == []
    assert decoded.table.schema.names == ["z", "a", "b"]
    assert decoded.table.schema.field("a").type == expected
    plain = values.cast(pa.string()) if pa.types.is_dictionary(values.type) else values
    wanted = plain.to_pylist()
    if pa.types.is_struct(expected):
        wanted = [{"x": None, **item} for item in wanted]
    assert decoded.table.column("a").to_pylist() == wanted


@pytest.mark.parametrize(
    ("known", "values"),
    [
        (pa.string(), pa.array([1])),
        (pa.int64(), pa.array(["x"])),
        (pa.float64(), pa.array([2**53 + 1])),
        (pa.list_(pa.int64()), pa.array([["x"]])),
        (pa.struct([("x", pa.int64())]), pa.array([{"x": "q"}])),
        (pa.timestamp("us", "UTC"), pa.array([1], pa.timestamp("us"))),
        (pa.int64(), pa.array([2**64 - 1], pa.uint64())),
    ],
)
def test_types_that_do_not_go_together_cost_no_row_silently(codec, known, values):
    decoded = codec.decode(codec.encode(pa.table({"a": values, "n": [7]})), schema(a=known))
    assert decoded.table.schema == schema(a=known)
    assert decoded.read == len(decoded.rejected) == 1
    assert b'"n": 7' in decoded.rejected[0].raw
    assert decoded.rejected[0].reason.startswith("column 'a': expected ")


def test_columns_of_one_name():
    decoded = ArrowCodec().decode(ArrowCodec().encode(pa.table([[1, 2], [3, 4]], names=["a", "a"])))
    assert [item.reason for item in decoded.rejected] == ["two columns are named 'a'"] * 2


def test_rows_without_columns_are_refused():
    batch = pa.RecordBatch.from_struct_array(pa.array([{}, {}], pa.struct([])))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    decoded = ArrowCodec().decode(sink.getvalue().to_pybytes())
    assert [item.reason for item in decoded.rejected] == ["not an Arrow stream: it has rows but no columns"]


def test_broken_bytes_are_one_record(codec):
    good = codec.encode(TABLE)
    for data in (b"garbage", good[: len(good) // 2], good + b"xyz"):
        decoded = codec.decode(data, TABLE.schema)
        assert decoded.read == 1
        assert decoded.table.equals(TABLE.schema.empty_table())
        assert [item.raw for item in decoded.rejected] == [data]
        assert decoded.rejected[0].reason.startswith("not a")


def test_a_second_stream_behind_the_first_is_not_dropped():
    data = ArrowCodec().encode(TABLE)
    decoded = ArrowCodec().decode(data + data)
    assert "bytes lie behind its end" in decoded.rejected[0].reason


def test_text_that_is_not_utf8_is_found():
    """The bytes are a well-formed file; only validation in full finds it."""
    text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff")]
    )
    decoded = ArrowCodec().decode(ArrowCodec().encode(pa.table({"a": text})))
    assert "UTF8" in decoded.rejected[0].reason


def test_damaged_bytes_crash_nothing():
    """In a process of its own, so that a crash of the native readers is a failing test and not the end of all."""
    program = (
        "import random, pyarrow as pa\n"
        "from collectors.codecs.arrow import ArrowCodec\n"
        "from collectors.codecs.parquet import ParquetCodec\n"
        "from collectors.testing.hostile import typed_table\n"
        "rng = random.Random(3)\n"
        "for codec in (ArrowCodec(), ParquetCodec()):\n"
        "    data = codec.encode(typed_table())\n"
        "    for _ in range(1500):\n"
        "        broken = bytearray(data)\n"
        "        for _ in range(rng.randrange(1, 6)):\n"
        "            broken[rng.randrange(len(broken))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])\n"
        "        decoded = codec.decode(bytes(broken))\n"
        "        assert decoded.read == decoded.table.num_rows + len(decoded.rejected)\n"
        "        decoded.table.validate(full=True)\n"
        "print('survived')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "survived\n", (done.returncode, done.stderr[-500:])


def test_columns_cannot_be_declared():
    for codec_class in CODECS:
        with pytest.raises(ConfigurationError, match="leave `columns` out"):
            codec_class(columns={"a": "int"})


def test_what_parquet_cannot_hold():
    with pytest.raises(DataError, match="Parquet cannot hold"):
        ParquetCodec().encode(pa.table({"a": pa.array([{}], pa.struct([]))}))


def parquet_file(table):
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=90_000)
    return ParquetCodec(), file


def arrow_stream(table):
    return ArrowCodec(), io.BytesIO(ArrowCodec().encode(table))


def arrow_file(table):
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=150_000)
    return ArrowCodec(), file


@pytest.mark.parametrize("make", [parquet_file, arrow_stream, arrow_file])
class TestSlices:
    def test_a_file_comes_in_slices_and_goes_on_from_any(self, make):
        table = pa.table({"n": range(200_000)})
        codec, file = make(table)
        file.seek(0)
        slices = list(codec.slices(file, 0))
        sizes = [ArrowCodec().decode(raw).table.num_rows for _, raw in slices]
        assert max(sizes) <= 64 * 1024
        assert [index for index, _ in slices] == [sum(sizes[: end + 1]) for end in range(len(sizes))]
        tables = [ArrowCodec().decode(raw).table for _, raw in slices]
        assert pa.concat_tables(tables).equals(table)
        for place, (index, _) in enumerate(slices):
            file.seek(0)
            assert list(codec.slices(file, index)) == slices[place + 1 :]

    def test_no_rows(self, make):
        codec, file = make(pa.table({"n": pa.array([], pa.int64())}))
        file.seek(0)
        assert list(codec.slices(file, 0)) == []

    def test_a_broken_file(self, make):
        codec, file = make(TABLE)
        with pytest.raises(DataError, match="not a"):
            list(codec.slices(io.BytesIO(b"garbage" + file.getvalue()[7:-20] + b"garbage"), 0))


def test_a_large_parquet_file_is_never_in_memory_as_a_whole(tmp_path):
    path = tmp_path / "large.parquet"
    with pq.ParquetWriter(path, schema(t=pa.string()), compression="none", use_dictionary=False) as writer:
        for group in range(20):
            writer.write_table(pa.table({"t": [f"{group}-{n}" + "x" * 40 for n in range(50_000)]}))
    size = path.stat().st_size
    before = pa.total_allocated_bytes()
    peak = 0
    with path.open("rb") as file:
        for _, raw in ParquetCodec().slices(file, 0):
            peak = max(peak, pa.total_allocated_bytes() - before + len(raw))
    assert peak < size / 3
