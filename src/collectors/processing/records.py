"""From records as dicts to a table, without the losses of Arrow's own way.

`pa.Table.from_pylist` takes the columns of the first record for all of them; `pa.array` with a type cuts 1.5 to 1,
reads 1 as a time, drops fields that a struct does not have, and one odd value costs all others. Here the first value of
a column says what it holds, and a record that does not fit is named.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from collectors.processing._values import DEEPEST, beyond_decimals, is_text, of_any_type, shown, too_deep
from collectors.processing.casting import UTC_TIMESTAMP, kind, plain_type
from collectors.rows import take_apart

__all__ = ["Columns", "to_table"]

_FAMILIES: list[tuple[type, str]] = [
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (str, "string"),
    (bytes, "binary"),
    (Decimal, "decimal"),
    (datetime, "timestamp"),
    (date, "date"),
    (time, "time"),
    (timedelta, "duration"),
    (dict, "struct"),
    (list, "list"),
    (tuple, "list"),
]
_ARROW = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "timestamp": UTC_TIMESTAMP,
    "date": pa.date32(),
    "time": pa.time64("us"),
    "duration": pa.duration("us"),
}
_REFUSALS = (pa.ArrowException, ValueError, TypeError, OverflowError)
_MISSING: Any = type("Missing", (), {})()
"""In the place of a value whose key the record does not have."""

Misfits = dict[int, str]


def to_table(records: list[dict[str, Any]], like: pa.Schema | None = None) -> tuple[pa.Table, Misfits]:
    """Return a table of the records, and for each that is not in it, by its number, the column and why.

    The columns of `like` come first, where a record has them, and keep their type where the values fit it; ints stay
    ints, a column without values keeps its type. Datetimes become UTC; one without a zone is local time.
    """
    columns = Columns()
    columns.add(records)
    return columns.table(like)


class Columns:
    """Records taken apart into columns as they come, so that no more dicts are there than come at a time."""

    def __init__(self) -> None:
        self.count = 0
        self._parts: dict[str, list[pa.Array | list[Any]]] = {}
        self._gaps = False

    def add(self, records: list[dict[str, Any]]) -> None:
        """Take records."""
        if self.add_alike(records):
            return
        self._gaps = True
        records = [record if type(record) is dict else dict(record) for record in records]
        for name in dict.fromkeys(name for record in records for name in record):
            self._parts.setdefault(name, [[_MISSING] * self.count])
        for name, parts in self._parts.items():
            parts.append([record.get(name, _MISSING) for record in records])
        self.count += len(records)

    def add_alike(self, records: list[dict[str, Any]]) -> bool:
        """Take records if all have the same keys as those before, and these are text; return whether they have."""
        names = list(self._parts) if self.count else list(records[0] if records else ())
        if not all(map(is_text, names)):
            return False
        found = take_apart(names, records)
        if found is None:
            return False
        self.add_columns(names, found, len(records))
        return True

    def add_columns(self, names: Sequence[str], columns: Sequence[pa.Array | list[Any]], count: int) -> None:
        """Take so many records that are taken apart already; their keys are those of the records before."""
        for name, values in zip(names, columns, strict=True):
            self._parts.setdefault(name, []).append(values)
        self.count += count

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of the records in order, as long as all have the same; else nothing."""
        return () if self._gaps else tuple(self._parts)

    def table(
        self, like: pa.Schema | None = None, without: Collection[int] = frozenset()
    ) -> tuple[pa.Table, Misfits]:
        """Return what `to_table` returns of the records, but for those whose numbers are not wanted."""
        misfits: Misfits = {}
        types = {} if like is None else {field.name: field.type for field in like}
        while True:
            left_out = misfits.keys() | without
            rows: Sequence[int] = range(self.count)
            if left_out:
                rows = [row for row in rows if row not in left_out]
            columns, found = {}, Misfits()
            for name in dict.fromkeys([*(name for name in types if name in self._parts), *self._parts]):
                column, odd = self._column(name, rows, types.get(name))
                if column is not None:
                    columns[name] = column
                where = f"column '{name}': " if is_text(name) else ""
                for row, reason in odd.items():
                    found.setdefault(rows[row], where + reason)
            if not found:
                return _assemble(
                    list(columns.values()) if rows else [], list(columns) if rows else [], len(rows)
                ), misfits
            misfits |= found

    def _column(
        self, name: str, rows: Sequence[int], known: pa.DataType | None
    ) -> tuple[pa.Array | None, Misfits]:
        """Return what `_column` makes of the values in these rows; nothing where no row has the key."""
        parts = self._parts[name]
        if not is_text(name):
            return None, self._with_key(name, rows)
        whole = len(rows) == self.count
        joined = _joined(parts, known) if whole else None
        if joined is not None:
            return joined, {}
        values: list[Any] = []
        for part in parts:
            values += part if isinstance(part, list) else part.to_pylist()
        if not whole:
            values = [values[row] for row in rows]
        if self._gaps:
            if all(value is _MISSING for value in values):
                return None, {}
            values = [None if value is _MISSING else value for value in values]
        return _column(values, known)

    def _with_key(self, name: Any, rows: Sequence[int]) -> Misfits:
        values = [value for part in self._parts[name] for value in part]
        return {
            number: f"the key {shown(name)} is no text"
            for number, row in enumerate(rows)
            if values[row] is not _MISSING
        }


def _assemble(columns: list[pa.Array], names: list[str], count: int) -> pa.Table:
    if names:
        return pa.table(columns, names=names)
    return pa.table({"": pa.nulls(count)}).select([])


def _joined(parts: list[pa.Array | list[Any]], known: pa.DataType | None) -> pa.Array | None:
    """Return what `_column` makes of the values when all parts are arrays of one type, or of nulls; else None."""
    arrays: list[pa.Array] = [part for part in parts if isinstance(part, pa.Array)]
    if len(arrays) < len(parts):
        return None
    types = {array.type for array in arrays} - {pa.null()}
    if not types:
        return pa.nulls(sum(map(len, arrays)), known or pa.null())
    if len(types) > 1 or (known is not None and pa.types.is_uint64(known)):
        return None
    (wanted,) = types
    try:
        whole = pa.concat_arrays([array if array.type == wanted else array.cast(wanted) for array in arrays])
    except pa.ArrowException:
        return None
    return _as_known(whole, known)


def _column(values: list[Any], known: pa.DataType | None) -> tuple[pa.Array | None, Misfits]:
    """Return the values as an array, or those which keep the others from being one."""
    families = {type_: _family(type_) for type_ in set(map(type, values))}
    present = set(families.values()) - {"null"}
    if not present:
        return pa.nulls(len(values), known or pa.null()), {}
    if len(present) > 1 or None in present:
        odd = _of_other_families(values, families)
        if odd:
            return None, odd
        present = {"float"} if "decimal" not in present else {"decimal"}
    (family,) = present
    if family == "float" and int in families:
        odd = {
            row: f"{value} is no float without loss" for row, value in enumerate(values) if _inexact(value)
        }
        if odd:
            return None, odd
        values = [value if value is None else float(value) for value in values]
    if family == "decimal":
        values = [Decimal(value) if isinstance(value, int) else value for value in values]
    if family == "timestamp":
        values, odd = _in_utc(
            values, naive=known is not None and kind(known) == "timestamp" and not plain_type(known).tz
        )
        if odd:
            return None, odd
    if family in {"struct", "list"} and too_deep(values):
        told = f"is nested more than {DEEPEST} deep"
        return None, {row: f"{shown(value)} {told}" for row, value in enumerate(values) if too_deep([value])}
    try:
        return _array(values, str(family), known), {}
    except _REFUSALS:
        beyond = beyond_decimals(values) if family == "decimal" else {}
        return None, beyond or _culprits(values) or _first_too_many(values)


def _family(type_: type) -> str | None:
    if type_ is type(None):
        return "null"
    return next((name for base, name in _FAMILIES if issubclass(type_, base)), None)


def _of_other_families(values: list[Any], families: dict[type, str | None]) -> Misfits:
    """Return the values that are not of the first one's family; ints meet floats and decimals."""
    first = next(
        (families[type(value)] for value in values if families[type(value)] not in {"null", None}), None
    )
    fitting = {"null", first}
    for numbers in ({"int", "float"}, {"int", "decimal"}):
        if first in numbers and (
            first != "int" or "float" in families.values() or numbers == {"int", "decimal"}
        ):
            fitting |= numbers
            break
    odd = {}
    for row, value in enumerate(values):
        family = families[type(value)]
        if family is None:
            odd[row] = f"no column can hold {shown(value)}, of the type {type(value).__name__}"
        elif family not in fitting:
            odd[row] = f"{shown(value)} is of the type {family}, and the records before it have {first}"
    return odd


def _inexact(value: Any) -> bool:
    try:
        return isinstance(value, int) and int(float(value)) != value
    except OverflowError:
        return True


def _in_utc(values: list[Any], *, naive: bool) -> tuple[list[Any], Misfits]:
    """Return times in UTC; one without a zone is local time, or stays as it is in a column that had none (`naive`)."""
    odd, result = Misfits(), []
    for row, value in enumerate(values):
        try:
            stays = naive and value is not None and value.tzinfo is None
            result.append(value.replace(tzinfo=UTC) if stays else value and value.astimezone(UTC))
        except (OverflowError, ValueError, OSError):
            odd[row] = f"{shown(value)} is outside of the years 1 to 9999 in UTC"
    return result, odd


def _array(values: list[Any], family: str, known: pa.DataType | None) -> pa.Array:
    if family in {"struct", "list", "decimal"}:
        return _inferred(values, known if known is not None and kind(known) == family else None)
    if family == "int" and known is not None and pa.types.is_uint64(known):
        return pa.array(values, known)
    return _as_known(pa.array(values, _ARROW[family]), known)


def _as_known(result: pa.Array, known: pa.DataType | None) -> pa.Array:
    """Return the array in the type that the column had, where that is of its family and holds the values."""
    if known is None or pa.types.is_floating(result.type) or kind(known) != kind(result.type):
        return result
    try:
        return result.cast(known)
    except pa.ArrowException:
        return result


def _inferred(values: list[Any], known: pa.DataType | None) -> pa.Array:
    """Take the fields that the values have and those that the column had: a given type would drop what it lacks."""
    result = of_any_type(values)
    if known is None or result.type == known:
        return result
    try:
        if pa.types.is_decimal(known):
            return result.cast(known)
        both = [pa.schema([("column", known)]), pa.schema([("column", result.type)])]
        return pa.array(values, pa.unify_schemas(both, promote_options="permissive").field("column").type)
    except _REFUSALS:
        return result


def _culprits(values: list[Any]) -> Misfits:
    """Return the values whose fields are unlike those of the first; where there are none, those that are no column."""
    shapes = [_shape(value) for value in values]
    examples: list[Any] = []
    verdicts: dict[Any, str | None] = {}
    for shape, value in zip(shapes, values, strict=True):
        if shape not in verdicts and _problem([value]) is None:
            verdicts[shape] = _problem([*examples, value])
            if verdicts[shape] is None:
                examples.append(value)
    odd = {row: reason for row, shape in enumerate(shapes) if (reason := verdicts.get(shape)) is not None}
    return odd or _unusable(values, 0)


def _unusable(values: list[Any], start: int) -> Misfits:
    """Halve until each value that no column can hold stands alone."""
    reason = _problem(values)
    if reason is None or len(values) == 1:
        return {} if reason is None else {start: reason}
    middle = len(values) // 2
    return _unusable(values[:middle], start) | _unusable(values[middle:], start + middle)


def _first_too_many(values: list[Any]) -> Misfits:
    """Return the first value that is no column with all those before it, though each part of them may be one."""
    good, bad = 0, len(values)
    reason = _problem(values) or "it does not fit in a column with those before it"
    while bad - good > 1:
        middle = (good + bad) // 2
        found = _problem(values[:middle])
        good, bad, reason = (middle, bad, reason) if found is None else (good, middle, found)
    return {bad - 1: f"{shown(values[bad - 1])}: {reason}"}


def _shape(value: Any) -> Any:
    """Return what can be compared of a nested value: its fields and their families."""
    if isinstance(value, dict):
        return frozenset((name, _shape(field)) for name, field in value.items())
    if isinstance(value, (list, tuple)):
        return ("list", frozenset(map(_shape, value)))
    return _family(type(value))


def _problem(values: list[Any]) -> str | None:
    try:
        of_any_type(values)
    except OverflowError:
        return f"{shown(values[-1])} does not fit in 64 bits"
    except _REFUSALS as error:
        return str(error)
    return None
