"""What a `QueryCriteria` means, once for all backends.

`parse` checks the criteria, `select_rows` applies them to dicts: the reference that every backend's own query
language is tested against. The rules:

- A missing column is None. None matches `is null` and an `in` that lists None, nothing else.
- Numbers (bool among them: true is 1) compare by exact value; a float beside a Decimal is read as it is printed.
- Text compares by code point, bytes by byte. `like` is for text alone: `%` any text, `_` one character, a backslash
  takes the next character as it is; upper and lower case differ.
- Times compare by instant; text beside a time is read as ISO 8601. A time without a zone is taken as it stands beside
  another one without; else a criterion is read as local time, a stored one as UTC. A date is its midnight.
- Nested values are equal when their JSON is; they have no order. Values of different kinds are never equal and have
  no order; NaN equals nothing.
- `sort_by` is stable; None comes last in both directions; numbers, then times, text, bytes, all others; NaN behind
  all numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, TypeVar, cast, get_args

import msgspec
from msgspec import Struct

from collectors.enums import ErrorType
from collectors.errors import ConfigurationError
from collectors.models import QueryCriteria

__all__ = [
    "Condition",
    "Operator",
    "Ordering",
    "check_columns",
    "matcher",
    "ordering",
    "parse",
    "select_rows",
    "sort_key",
]

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "not in", "like", "is null", "is not null"]
_IN_CRITERIA = [name for name in get_args(Operator) if not name.startswith("is ")]
_LARGEST = 2**63 - 1
Row = TypeVar("Row", bound=Mapping[str, Any])


class Condition(Struct, frozen=True):
    """One test of one column; `value` is a list for `in` and `not in`, None for `is null` and `is not null`."""

    column: str
    operator: Operator
    value: Any


class Ordering(Struct, frozen=True):
    """The column to sort by."""

    column: str
    descending: bool


def parse(criteria: QueryCriteria) -> list[Condition]:
    """Return the conditions, all of which a row has to meet.

    Raises ConfigurationError, a ValueError, naming what is wrong in the filters, `sort_by`, `limit` or `offset`.
    """
    _check_count("limit", criteria.limit)
    _check_count("offset", criteria.offset)
    ordering(criteria)
    filters = criteria.filters if criteria.filters is not None else {}
    if not isinstance(filters, dict):
        raise _invalid(
            f"filters: expected a mapping of column to value or to {{operator: value}}, got {filters!r}"
        )
    conditions = []
    for column, wanted in filters.items():
        if not isinstance(column, str):
            raise _invalid(f"filters: expected the name of a column, got {column!r}")
        if isinstance(wanted, dict):
            if not wanted:
                raise _invalid(f"filters, column '{column}': expected {{operator: value}}, got {{}}")
            conditions += [_condition(column, operator, value) for operator, value in wanted.items()]
        else:
            conditions.append(_condition(column, "=", wanted))
    return conditions


def ordering(criteria: QueryCriteria) -> Ordering | None:
    """Return what to sort by; None: leave the order. Raises ConfigurationError."""
    text = criteria.sort_by
    if text is None:
        return None
    if not isinstance(text, str) or text in {"", "-"}:
        raise _invalid(f"sort_by: expected a column, or a column behind '-', got {text!r}")
    return Ordering(text.removeprefix("-"), text.startswith("-"))


def check_columns(criteria: QueryCriteria, columns: Collection[str]) -> None:
    """Raise ConfigurationError when the criteria name a column that is not among these."""
    named = [condition.column for condition in parse(criteria)]
    order = ordering(criteria)
    for name in [*named, order.column] if order else named:
        if name not in columns:
            raise _invalid(f"no column '{name}'; there are: {', '.join(columns)}")


def select_rows(
    rows: Iterable[Row], criteria: QueryCriteria, columns: Collection[str] | None = None
) -> list[Row]:
    """Return the rows that the criteria ask for, as the objects they are.

    With `columns`, a name that is not among them raises ConfigurationError; without, it is None in every row.
    """
    if columns is not None:
        check_columns(criteria, columns)
    tests = [(condition.column, matcher(condition)) for condition in parse(criteria)]
    found = [row for row in rows if all(test(row.get(column)) for column, test in tests)]
    order = ordering(criteria)
    if order is not None:
        name = order.column
        some = [row for row in found if row.get(name) is not None]
        some.sort(key=lambda row: sort_key(row[name]), reverse=order.descending)
        found = some + [row for row in found if row.get(name) is None]
    start = criteria.offset or 0
    return found[start : None if criteria.limit is None else start + criteria.limit]


def matcher(condition: Condition) -> Callable[[Any], bool]:
    """Return the test of one stored value."""
    operator, value = condition.operator, condition.value
    if operator == "is null":
        return lambda stored: stored is None
    if operator == "is not null":
        return lambda stored: stored is not None
    if operator == "like":
        pattern = _like(value)
        return lambda stored: isinstance(stored, str) and pattern.fullmatch(stored) is not None
    if operator == "in":
        return lambda stored: any(
            item is None if stored is None else _compare(stored, item) == 0 for item in value
        )
    if operator == "not in":
        return lambda stored: stored is not None and all(_compare(stored, item) != 0 for item in value)
    if operator == "!=":
        return lambda stored: stored is not None and _compare(stored, value) != 0
    accepted = {"=": {0}, "<": {-1}, "<=": {-1, 0}, ">": {1}, ">=": {0, 1}}[operator]
    return lambda stored: _compare(stored, value) in accepted


def sort_key(value: Any) -> tuple[Any, ...]:
    """Return what orders stored values other than None; keys of any two values can be compared."""
    kind = _kind(value)
    if kind == "number":
        return (0, 1) if _is_nan(value) else (0, 0, value)
    if kind == "moment":
        return (1, _with_zone(value, UTC))
    if kind == "text":
        return (2, value)
    if kind == "bytes":
        return (3, bytes(value))
    if kind == "nested" or not _has_order(value):
        return (4, kind, _json(value))
    return (4, kind, value)


def _has_order(value: Any) -> bool:
    try:
        return not value < value  # noqa: PLR0124  # asks the type, whatever the value is
    except TypeError:
        return False


def _condition(column: str, operator: Any, value: Any) -> Condition:
    where = f"filters, column '{column}'"
    if operator not in _IN_CRITERIA:
        raise _invalid(f"{where}: unknown operator {operator!r}; there are: {', '.join(_IN_CRITERIA)}")
    if operator in {"in", "not in"}:
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise _invalid(f"{where}: '{operator}' needs a list, got {value!r}")
        value = list(value)
    if operator == "like" and not isinstance(value, str):
        raise _invalid(f"{where}: 'like' needs a text with % and _, got {value!r}")
    for text in value if isinstance(value, list) else [value]:
        _check_unicode(where, text)
    if value is None:
        if operator not in {"=", "!="}:
            raise _invalid(f"{where}: '{operator}' needs a value, got None; use '=' or '!=' for it")
        return Condition(column, "is null" if operator == "=" else "is not null", None)
    return Condition(column, cast("Operator", operator), value)


def _check_unicode(where: str, value: Any) -> None:
    try:
        _ = value.encode() if isinstance(value, str) else b""
    except UnicodeEncodeError:
        raise _invalid(f"{where}: {value!r} is not valid Unicode text") from None


def _check_count(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise _invalid(f"{name}: expected a whole number from 0 on, got {value!r}")


def _invalid(message: str) -> ConfigurationError:
    return ConfigurationError(message, error_type=ErrorType.VALIDATION)


def _compare(stored: Any, wanted: Any) -> int | None:
    """Return -1, 0 or 1; None where the two are of different kinds, unequal without an order, or None or NaN."""
    kind = _kind(stored)
    if kind == "moment" and isinstance(wanted, str):
        wanted = _read_time(wanted)
    if stored is None or kind != _kind(wanted):
        return None
    if kind == "number":
        stored, wanted = _same_base(stored, wanted), _same_base(wanted, stored)
        if _is_nan(stored) or _is_nan(wanted):
            return None
    elif kind == "moment":
        stored, wanted = _comparable_times(stored, wanted)
    elif kind == "bytes":
        stored, wanted = bytes(stored), bytes(wanted)
    elif kind == "nested":
        return 0 if msgspec.json.decode(_json(stored)) == msgspec.json.decode(_json(wanted)) else None
    try:
        return int(stored > wanted) - int(stored < wanted)
    except TypeError:
        return 0 if stored == wanted else None


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, (int, float, Decimal)):
        return "number"
    if isinstance(value, date):
        return "moment"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "bytes"
    if isinstance(value, (dict, list, tuple)):
        return "nested"
    return type(value).__name__


def _is_nan(value: float | Decimal) -> bool:
    return value.is_nan() if isinstance(value, Decimal) else isinstance(value, float) and math.isnan(value)


def _same_base(value: Any, other: Any) -> Any:
    """Return a float beside a Decimal as the Decimal that it is printed as: 1.1 is 1.1."""
    return Decimal(repr(value)) if isinstance(value, float) and isinstance(other, Decimal) else value


@lru_cache(maxsize=64)
def _read_time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _comparable_times(stored: Any, wanted: Any) -> tuple[datetime, datetime]:
    stored, wanted = _midnight(stored), _midnight(wanted)
    if stored.tzinfo is None and wanted.tzinfo is None:
        return stored, wanted
    return _with_zone(stored, UTC), wanted if wanted.tzinfo is not None else _local(wanted)


def _local(moment: datetime) -> datetime:
    try:
        return moment.astimezone()
    except (OverflowError, ValueError):  # the first and last day of the calendar
        return moment.replace(tzinfo=UTC)


def _midnight(value: date) -> datetime:
    return value if isinstance(value, datetime) else datetime.combine(value, time())


def _with_zone(value: date, zone: Any) -> datetime:
    moment = _midnight(value)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def _json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value, order="sorted", enc_hook=str)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return msgspec.json.encode(repr(value).encode("utf-8", "backslashreplace").decode())


@lru_cache(maxsize=64)
def _like(pattern: str) -> re.Pattern[str]:
    """Return the pattern as a regular expression that takes each part at its first place and never comes back to it."""
    parts = [""]
    for piece in re.findall(r"\\.|.", pattern, re.DOTALL):
        if piece == "%":
            parts.append("")
        else:
            parts[-1] += "." if piece == "_" else re.escape(piece[-1])
    first, *others = parts
    middle = "".join(f"(?>.*?{part})" for part in others[:-1])
    return re.compile(first + middle + (f".*{others[-1]}" if others else ""), re.DOTALL)
