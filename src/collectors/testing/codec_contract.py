"""The contract of codecs, as tests: subclass it, and pytest runs every rule against the component.

    class TestNdjson(CodecContract):
        component = "ndjson"

        def sample(self):
            return hostile.plain_table()

A rule that a format cannot keep is waived by name with the reason; it then has to fail, so that a waiver which is no
longer needed is found.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from collectors import registry
from collectors.codecs.base import Codec, Decoded
from collectors.testing import hostile

__all__ = ["CodecContract"]


class CodecContract:
    """What every codec promises."""

    component: ClassVar[str]
    """The type of the codec, as settings have it."""
    settings: ClassVar[dict[str, Any]] = {}
    """Settings to make it with."""
    waive: ClassVar[dict[str, str]] = {}
    """Rule (a test's name without `test_`) → why this format cannot keep it."""

    def make(self) -> Codec[Any]:
        """Return a new codec with the settings."""
        codec: Codec[Any] = registry.create("codec", self.component, dict(self.settings))
        return codec

    def sample(self) -> pa.Table:
        """Return rows that the format can hold, with names and values as nasty as it can bear."""
        return hostile.plain_table()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for rule, reason in cls.waive.items():
            test = getattr(cls, f"test_{rule}", None)
            if test is None:
                raise TypeError(f"{cls.__name__}.waive: there is no rule '{rule}'")
            setattr(cls, f"test_{rule}", pytest.mark.xfail(reason=reason, strict=True)(_copy(test)))

    def test_found_by_type(self) -> None:
        """The type's name leads to the class, and its file says what it is."""
        component = registry.find("codec", self.component)
        assert issubclass(component, Codec)
        assert component.__doc__, "the class needs a docstring"

    def test_unknown_setting_refused(self) -> None:
        """A setting that does not exist is refused by name."""
        with pytest.raises(ValueError, match="no_such_setting"):
            registry.create("codec", self.component, {**self.settings, "no_such_setting": 1})

    def test_empty(self) -> None:
        """No bytes are no records, in the columns so far."""
        codec, schema = self.make(), self._schema()
        assert _checked(codec.decode(b""), b"").read == 0
        decoded = _checked(codec.decode(b"", schema), b"")
        assert decoded.read == 0
        assert decoded.table.schema.equals(schema)

    def test_round_trip(self) -> None:
        """What was encoded comes back in the same types: names, order, nulls and every digit."""
        codec, table = self.make(), self.sample()
        data = codec.encode(table)
        decoded = _checked(codec.decode(data, table.schema), data)
        assert decoded.rejected == []
        assert decoded.table.schema.equals(table.schema)
        assert decoded.table.equals(table)

    def test_no_rows(self) -> None:
        """A table without rows is written and read as one."""
        codec, table = self.make(), self.sample().slice(0, 0)
        data = codec.encode(table)
        decoded = _checked(codec.decode(data, table.schema), data)
        assert decoded.read == 0
        assert decoded.table.equals(table)

    def test_garbage(self) -> None:
        """Whatever the bytes are, decoding does not raise, and each record is a row or is refused with a reason."""
        for schema in (None, self._schema()):
            for data in hostile.BYTES:
                _checked(self.make().decode(data, schema), data)

    def test_damage(self) -> None:
        """Bytes that were cut off or changed on the way do not make decoding raise or lose count."""
        codec, schema = self.make(), self._schema()
        data = codec.encode(self.sample())
        rng = random.Random(1)  # noqa: S311
        for _ in range(100):
            broken = bytearray(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.3 else data)
            for _ in range(rng.randrange(4)):
                if broken:
                    broken[rng.randrange(len(broken))] = rng.randrange(256)
            _checked(codec.decode(bytes(broken), rng.choice([None, schema])), bytes(broken))

    def test_schema_grows_in_order(self) -> None:
        """Columns so far keep their place and type; those that are missing are null, new ones stand behind."""
        codec, table = self.make(), self.sample()
        strange = pa.schema([("not in the data", pa.string()), *list(table.schema)[1:]])
        data = codec.encode(table)
        decoded = _checked(codec.decode(data, strange), data)
        assert decoded.rejected == []
        assert decoded.table.schema.names == [*strange.names, table.schema.names[0]]
        assert decoded.table.schema.types[: len(strange)] == strange.types
        assert decoded.table.column("not in the data").null_count == table.num_rows

    def test_arguments_are_not_changed(self) -> None:
        """The table that is encoded and the schema that is handed in stay as they are."""
        codec, table = self.make(), self.sample()
        copy = pa.ipc.open_stream(_stream(table)).read_all()
        data = codec.encode(table)
        schema = table.schema
        codec.decode(data, schema)
        assert table.equals(copy)
        assert schema.equals(copy.schema, check_metadata=True)

    def test_deterministic(self) -> None:
        """The same bytes and columns give the same rows and refusals, on any object and after anything else."""
        codec = self.make()
        chunks = [codec.encode(self.sample()), *hostile.BYTES[::5]]
        first = [codec.decode(data) for data in chunks]
        again = [self.make().decode(data) for data in reversed(chunks)][::-1]
        for one, other in zip(first, again, strict=True):
            assert one.table.equals(other.table)
            assert one.table.schema.equals(other.table.schema)
            assert one.rejected == other.rejected

    def test_cut_never_splits_a_record(self) -> None:
        """Rows are the same whether a stream is decoded as a whole or in the pieces that `cut` makes of it."""
        codec, table = self.make(), self.sample()
        data = codec.encode(table)
        whole = codec.decode(data, table.schema).table
        for step in (61, len(data) // 3 + 1, len(data)):
            tables = []
            for piece in _pieces(codec, data, step):
                decoded = _checked(codec.decode(piece, table.schema), piece)
                assert decoded.rejected == []
                tables.append(decoded.table)
            assert pa.concat_tables(tables).equals(whole)

    def test_joinable_chunks_join(self) -> None:
        """Where the codec says that chunks can be joined, the rows of both come back, in order."""
        codec, table = self.make(), self.sample()
        if codec.joinable:
            data = codec.encode(table)
            joined = codec.decode(data + data, table.schema).table
            assert joined.equals(pa.concat_tables([table, table]))

    def _schema(self) -> pa.Schema:
        return self.sample().schema


def _checked(decoded: Decoded, data: bytes) -> Decoded:
    """Return what was decoded, having checked that it is complete and in order."""
    decoded.table.validate(full=True)
    assert decoded.read == decoded.table.num_rows + len(decoded.rejected), data[:100]
    numbers = [item.record for item in decoded.rejected]
    assert numbers == sorted(set(numbers))
    assert all(0 <= number < decoded.read for number in numbers)
    for item in decoded.rejected:
        assert item.reason
        if item.offset is not None:
            assert data[item.offset : item.offset + len(item.raw)] == item.raw
    return decoded


def _pieces(codec: Codec[Any], data: bytes, step: int) -> Iterator[bytes]:
    """Yield the chunks that a source makes of a stream that comes in `step` bytes at a time."""
    begin = codec.preamble(data)
    head, held = data[:begin], b""
    for start in range(begin, len(data), step):
        held += data[start : start + step]
        final = start + step >= len(data)
        size = codec.cut(held, final=final)
        assert 0 <= size <= len(held)
        assert size == len(held) or not final
        if size:
            yield head + held[:size]
        held = held[size:]


def _stream(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _copy(test: Callable[..., None]) -> Callable[..., None]:
    """Return the same test as a function of its own, so that a mark on it stays in one subclass."""

    @functools.wraps(test)
    def waived(self: CodecContract) -> None:
        test(self)

    return waived
