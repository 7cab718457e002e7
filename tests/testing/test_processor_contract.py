"""The contract of processors finds processors that break it."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from collectors.errors import ConfigurationError, DataError
from collectors.processing.base import Processor, ProcessorConfig
from collectors.testing.processor_contract import ProcessorContract
from collectors.testing.waivers import waive_rules

GIVEN = pa.table({"n": [1, 2, 3, 4], "s": ["a", "b", "c", "d"]})


class Sound(Processor[ProcessorConfig]):
    """Adds 1, and refuses what is below zero."""

    def transform(self, table):
        bad = {row: "below zero" for row, n in enumerate(table["n"].to_pylist()) if n < 0}
        if bad:
            raise DataError("below zero", rows=bad)
        return self.finish(table, [n + 1 for n in table["n"].to_pylist()])

    def finish(self, table, numbers):
        return table.set_column(0, "n", pa.array(numbers, pa.int64()))


class Contract(ProcessorContract):
    component = "sound"
    poison = {"n": -1, "s": "x"}
    kind = Sound

    def make(self, **more):
        return self.kind(**{"id": "sound", **more})

    def given(self):
        return GIVEN

    def expected(self):
        return GIVEN.set_column(0, "n", pa.array([2, 3, 4, 5]))


RULES = sorted(name for name in dir(Contract) if name.startswith("test_") and name != "test_found_by_type")


def broken_rules(kind):
    contract = type("Broken", (Contract,), {"kind": kind})()
    broken = set()
    for rule in RULES:
        try:
            getattr(contract, rule)()
        except (AssertionError, ValueError, KeyError, pa.ArrowException, pytest.fail.Exception):
            broken.add(rule.removeprefix("test_"))
    return broken


def test_a_sound_processor_keeps_all_rules():
    assert broken_rules(Sound) == set()


class LosesTheLast(Sound):
    def finish(self, table, numbers):
        return super().finish(table, numbers).slice(0, max(table.num_rows - 1, 0))


class ChangesTypes(Sound):
    def finish(self, table, numbers):
        return table.set_column(0, "n", pa.array(numbers, pa.float64()))


class FailsWhenEmpty(Sound):
    def finish(self, table, numbers):
        if not numbers:
            raise ConfigurationError("no rows")
        return super().finish(table, numbers)


class Random(Sound):
    def finish(self, table, numbers):
        return super().finish(table, [random.random() // 1e-9 for _ in numbers])


class CountsCalls(Sound):
    calls = 0

    def finish(self, table, numbers):
        self.calls += 1
        return super().finish(table, [n + self.calls - 1 for n in numbers])


class LooksAtNeighbours(Sound):
    def finish(self, table, numbers):
        return super().finish(table, [n + len(numbers) - 4 for n in numbers])


class RefusesAllForOne(Sound):
    def transform(self, table):
        if any(n < 0 for n in table["n"].to_pylist()):
            raise DataError("below zero", rows=dict.fromkeys(range(table.num_rows), "below zero"))
        return super().transform(table)


class SwallowsBadRows(Sound):
    def transform(self, table):
        return super().transform(table.filter(pa.array([n >= 0 for n in table["n"].to_pylist()])))


class RefusesWithoutReason(Sound):
    def transform(self, table):
        try:
            return super().transform(table)
        except DataError as error:
            raise DataError("", rows=dict.fromkeys(error.rows, " ")) from error


class StumblesOverNames(Sound):
    def finish(self, table, numbers):
        if "a.b" in table.column_names:
            raise ConfigurationError("a dot")
        return super().finish(table, numbers)


class DropsOtherColumns(Sound):
    def finish(self, table, numbers):
        return super().finish(table, numbers).select(["n", "s"])


class StumblesOverEncoding(Sound):
    def finish(self, table, numbers):
        if table.schema.field("s").type != pa.string():
            raise ConfigurationError("not a string")
        return super().finish(table, numbers)


class TakesAnything(Sound):
    def validate_input(self, data):
        return True


class AcceptsAnySetting(Sound):
    def __init__(self, **settings):
        settings.pop("no_such_setting", None)
        super().__init__(**settings)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (LosesTheLast, "every_row_is_accounted_for"),
        (LosesTheLast, "result"),
        (LosesTheLast, "pieces_give_the_same"),
        (ChangesTypes, "result"),
        (ChangesTypes, "table_in_table_out"),
        (FailsWhenEmpty, "empty_table"),
        (FailsWhenEmpty, "only_bad_rows"),
        (Random, "deterministic"),
        (CountsCalls, "deterministic"),
        (CountsCalls, "pieces_give_the_same"),
        (LooksAtNeighbours, "pieces_give_the_same"),
        (LooksAtNeighbours, "dict_in_dict_out"),
        (RefusesAllForOne, "bad_row_costs_only_itself"),
        (SwallowsBadRows, "every_row_is_accounted_for"),
        (SwallowsBadRows, "other_input_is_refused"),
        (RefusesWithoutReason, "every_row_is_accounted_for"),
        (StumblesOverNames, "hostile_column_names"),
        (DropsOtherColumns, "hostile_column_names"),
        (StumblesOverEncoding, "encoded_text"),
        (TakesAnything, "other_input_is_refused"),
        (AcceptsAnySetting, "unknown_setting_refused"),
    ],
)
def test_what_is_broken_is_found(kind, rule):
    assert rule in broken_rules(kind)


def test_a_waiver_is_a_strict_expected_failure():
    class Waiving(Contract):
        waive = {"result": "for the test"}

    (mark,) = Waiving.test_result.pytestmark
    assert mark.name == "xfail"
    assert mark.kwargs == {"reason": "for the test", "strict": True}
    assert not hasattr(Contract.test_result, "pytestmark")
    with pytest.raises(AssertionError):
        Waiving.test_result(type("Broken", (Waiving,), {"kind": LosesTheLast, "waive": {}})())


def test_a_waiver_for_no_rule_is_refused():
    with pytest.raises(TypeError, match="there is no rule 'no_such_rule'"):
        waive_rules(Contract, {"no_such_rule": "because"})
