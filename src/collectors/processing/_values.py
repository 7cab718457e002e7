"""Python's values as Arrow takes them: which it cannot, and what it would get wrong by itself."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import chain
from typing import Any

import pyarrow as pa

__all__ = ["DEEPEST", "beyond_decimals", "is_text", "of_any_type", "shown", "too_deep"]

DEEPEST = 100
"""So deep a value may be nested."""
_NESTED = (dict, list, tuple)
_INT_DIGITS, _DECIMAL128_DIGITS, _MOST_DIGITS = 20, 38, 76
_SHOWN_CHARACTERS = 60


def is_text(name: Any) -> bool:
    """Return whether a column can have this name; half a surrogate pair is none."""
    try:
        return isinstance(name, str) and name.encode() is not None
    except UnicodeEncodeError:
        return False


def shown(value: Any) -> str:
    """Return a value as it stands in a reason."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # a class of users may raise anything
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def too_deep(values: Sequence[Any]) -> bool:
    """Return whether one nests so deep, or contains itself, that Arrow could follow it until the process dies."""
    for _ in range(DEEPEST + 1):
        if not any(issubclass(type_, _NESTED) for type_ in set(map(type, values))):
            return False
        level = {id(value): value for value in values if isinstance(value, _NESTED)}.values()
        values = list(
            chain.from_iterable(value.values() if isinstance(value, dict) else value for value in level)
        )
    return True


def beyond_decimals(values: list[Decimal | None]) -> dict[int, str]:
    """Return the values that no decimal column can hold, by number, and why."""
    odd = {}
    for row, value in enumerate(values):
        if value is None:
            continue
        _, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int):
            odd[row] = f"{value} is no number that a decimal can be"
        elif max(len(digits) + max(exponent, 0), -exponent) > _MOST_DIGITS:
            odd[row] = f"{shown(value)} has more than {_MOST_DIGITS} digits"
    return odd


def of_any_type(values: list[Any]) -> pa.Array:
    """Return the values in the type that Arrow finds for them, which may raise what Arrow raises."""
    try:
        return pa.array(values)
    except pa.ArrowInvalid:
        found = pa.infer_type(values)
        wide = _with_digits_of_ints(found)
        if wide == found:
            raise
        return pa.array(values, wide)


def _with_digits_of_ints(type_: pa.DataType) -> pa.DataType:
    """Return a type whose decimals hold ints of 64 bits too, whose digits Arrow does not count beside decimals."""
    if pa.types.is_decimal(type_):
        digits = max(type_.precision, type_.scale + _INT_DIGITS)
        return (
            pa.decimal128(digits, type_.scale)
            if digits <= _DECIMAL128_DIGITS
            else pa.decimal256(min(digits, _MOST_DIGITS), type_.scale)
        )
    if pa.types.is_list(type_):
        return pa.list_(_with_digits_of_ints(type_.value_type))
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(_with_digits_of_ints(field.type)) for field in type_])
    return type_
