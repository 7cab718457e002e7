"""The contract of processors, as tests: subclass it with a table in and the table out, and pytest runs every rule.

    class TestFilter(ProcessorContract):
        component = "filter"
        settings = {"where": "status <> 'fail'"}
        one_to_one = False

        def given(self):
            return pa.table({"status": ["ok", "fail", "ok"], "n": [1, 2, 3]})

        def expected(self):
            return pa.table({"status": ["ok", "ok"], "n": [1, 3]})

A rule that a processor cannot keep is waived by name with the reason; it then has to fail, so that a waiver which is no
longer needed is found.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from abc import abstractmethod
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from collectors import registry
from collectors.processing.base import Outcome, Processor
from collectors.testing.waivers import waive_rules

__all__ = ["ProcessorContract"]

HOSTILE_NAMES = (
    "",
    " ",
    "a.b",
    "select",
    "null",
    "it's",
    'a "quoted" one',
    "a;b -- c",
    "{x} %s $1 \\",
    "naïve ключ 列 🎈",
    "line\nbreak\ttab\0nul",
    "__class__",
    "n" * 300,
)
"""Names of columns that the processor is not set up for, and must not stumble over."""


class ProcessorContract:
    """What every processor promises."""

    component: ClassVar[str]
    """The type of the processor, as settings have it."""
    settings: ClassVar[dict[str, Any]] = {}
    """Settings, without type, with which `given` becomes `expected`."""
    one_to_one: ClassVar[bool] = True
    """Whether each row that is not refused becomes exactly one row."""
    keeps_other_columns: ClassVar[bool] = True
    """Whether columns that the settings do not name go through as they are."""
    poison: ClassVar[dict[str, Any] | None] = None
    """A row, for the columns of `given`, that this processor refuses; None when there is none."""
    waive: ClassVar[dict[str, str]] = {}
    """Rule (a test's name without `test_`) → why this processor cannot keep it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        waive_rules(cls, cls.waive)

    @abstractmethod
    def given(self) -> pa.Table:
        """Return a table of at least three rows, none of which is refused."""

    @abstractmethod
    def expected(self) -> pa.Table:
        """Return what becomes of it: rows, columns, their order and their types."""

    def make(self, **more: Any) -> Processor[Any]:
        """Return a new processor with the settings."""
        processor: Processor[Any] = registry.create("processor", self.component, {**self.settings, **more})
        return processor

    def apply(self, table: pa.Table) -> Outcome:
        """Return what a new processor makes of the table."""
        return self.make().apply(table)

    def test_found_by_type(self) -> None:
        """The type's name leads to the class, and the step's name is the type or the id."""
        assert issubclass(registry.find("processor", self.component), Processor)
        assert self.make().get_processor_name() == self.component
        assert self.make(id="my-step").get_processor_name() == "my-step"

    def test_unknown_setting_refused(self) -> None:
        """A setting that does not exist is refused by name."""
        with pytest.raises(ValueError, match="no_such_setting"):
            self.make(no_such_setting=1)

    def test_result(self) -> None:
        """The table given becomes the table expected, in order and with its types, and no row is refused."""
        outcome = self.apply(self.given())
        _same(outcome.table, self.expected())
        assert outcome.rejected == []

    def test_input_is_unchanged(self) -> None:
        """The table handed in is the same afterwards, to the byte."""
        table = self.given()
        before = _bytes(table)
        self.apply(table)
        assert _bytes(table) == before

    def test_empty_table(self) -> None:
        """No rows become no rows; the first chunk of a source may be empty."""
        outcome = self.apply(self.given().slice(0, 0))
        assert outcome.table.num_rows == 0
        assert outcome.rejected == []

    def test_deterministic(self) -> None:
        """The same table gives the same result, from the same processor and from another: a replay depends on it."""
        processor = self.make()
        first = processor.apply(self.given())
        _same(processor.apply(self.given()).table, first.table)
        _same(self.apply(self.given()).table, first.table)

    def test_pieces_give_the_same(self) -> None:
        """Where a chunk is cut makes no difference, nor how a table is laid out in memory."""
        table = self.given()
        whole = self.apply(table).table.to_pylist()
        for size in (1, 2, table.num_rows - 1):
            pieces = [table.slice(start, size) for start in range(0, table.num_rows, size)]
            processor = self.make()
            rows = [row for piece in pieces for row in processor.apply(piece).table.to_pylist()]
            assert rows == whole, f"pieces of {size} rows"
            assert self.apply(pa.concat_tables(pieces)).table.to_pylist() == whole, f"blocks of {size} rows"

    def test_encoded_text(self) -> None:
        """Text that is dictionary-encoded, as Parquet files have it, or of the large type, is text."""
        table = self.given()
        whole = self.apply(table).table.to_pylist()
        for other in (pa.dictionary(pa.int32(), pa.string()), pa.large_string()):
            fields = [
                field.with_type(other) if field.type == pa.string() else field for field in table.schema
            ]
            assert self.apply(table.cast(pa.schema(fields))).table.to_pylist() == whole, str(other)

    def test_every_row_is_accounted_for(self) -> None:
        """A row comes out or is refused; refused ones are numbered, in order, each once, with a reason and as JSON."""
        table, rows = self._poisoned([0, 2, self.given().num_rows])
        outcome = self.apply(table)
        numbers = [item.record for item in outcome.rejected]
        assert numbers == sorted(set(numbers))
        assert set(numbers) == set(rows)
        for item in outcome.rejected:
            assert item.reason.strip()
            assert set(json.loads(item.raw)) == set(table.column_names)
        if self.one_to_one:
            assert outcome.table.num_rows + len(outcome.rejected) == table.num_rows

    def test_bad_row_costs_only_itself(self) -> None:
        """A row that is refused, wherever it stands, changes nothing for the others."""
        if self.poison is None:
            pytest.skip(f"{self.component} refuses no row")
        for place in (0, 1, self.given().num_rows):
            table, rows = self._poisoned([place])
            outcome = self.apply(table)
            assert [item.record for item in outcome.rejected] == rows, f"at {place}"
            assert outcome.table.to_pylist() == self.expected().to_pylist(), f"at {place}"

    def test_only_bad_rows(self) -> None:
        """A table of nothing but bad rows gives an empty one."""
        if self.poison is None:
            pytest.skip(f"{self.component} refuses no row")
        poison = pa.Table.from_pylist([self.poison] * 3, schema=self.given().schema)
        outcome = self.apply(poison)
        assert outcome.table.num_rows == 0
        assert [item.record for item in outcome.rejected] == [0, 1, 2]

    def test_hostile_column_names(self) -> None:
        """Columns with odd names beside those in the settings do no harm, and go through where others do."""
        table = self.given()
        numbers = pa.array(range(table.num_rows))
        for name in HOSTILE_NAMES:
            table = table.append_column(name, numbers)
        outcome = self.apply(table)
        assert outcome.rejected == []
        names = self.expected().column_names
        assert outcome.table.select(names).to_pylist() == self.expected().to_pylist()
        if self.keeps_other_columns:
            first = outcome.table.column(HOSTILE_NAMES[0])
            assert all(outcome.table.column(name).equals(first) for name in HOSTILE_NAMES)

    def test_dict_in_dict_out(self) -> None:
        """`process` takes one record and returns one, None where it is filtered out, or a list where it is split."""
        whole = self.apply(self.given()).table.to_pylist()
        records = self.given().to_pylist()
        results = [asyncio.run(self.make().process(record)) for record in records]
        assert [result.error for result in results] == [None] * len(records)
        made = [result.processed_data for result in results]
        assert all(item is None or isinstance(item, (dict, list)) for item in made)
        flat = [row for item in made for row in (item if isinstance(item, list) else [item] if item else [])]
        assert flat == whole

    def test_list_in_list_out(self) -> None:
        """`process` takes a list of records and returns a list."""
        result = asyncio.run(self.make().process(self.given().to_pylist()))
        assert result.success, result.error
        assert result.processed_data == self.apply(self.given()).table.to_pylist()

    def test_table_in_table_out(self) -> None:
        """`process` takes a table and returns a table."""
        result = asyncio.run(self.make().process(self.given()))
        assert result.success, result.error
        _same(result.processed_data, self.expected())

    def test_other_input_is_refused(self) -> None:
        """Input of any other kind raises ValueError; a bad record is told in the result, never raised."""
        for data in (None, 5, "text", [1, 2]):
            assert not self.make().validate_input(data)
            with pytest.raises(ValueError, match="expected a dict"):
                asyncio.run(self.make().process(data))
        if self.poison is not None:
            result = asyncio.run(self.make().process(self.poison))
            assert not result.success
            assert result.error

    def _poisoned(self, places: list[int]) -> tuple[pa.Table, list[int]]:
        """Return the table with a bad row in front of each of these rows, and their numbers in it."""
        table = self.given()
        if self.poison is None:
            return table, []
        poison = pa.Table.from_pylist([self.poison], schema=table.schema)
        ends = [0, *places, table.num_rows]
        parts = []
        for start, end in itertools.pairwise(ends):
            parts += [table.slice(start, end - start), poison]
        return pa.concat_tables(parts[:-1]), [place + number for number, place in enumerate(places)]


def _same(table: pa.Table, other: pa.Table) -> None:
    """Compare types and names, then values, with messages that show the difference."""
    assert [(field.name, field.type) for field in table.schema] == [
        (field.name, field.type) for field in other.schema
    ]
    assert table.to_pylist() == other.to_pylist()


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())
