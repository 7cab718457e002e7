"""Values that a narrower type takes exactly: `narrowed`, the other way round of widening a column."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["narrowed"]


def narrowed(column: pa.ChunkedArray, kind: pa.DataType | None) -> tuple[pa.ChunkedArray, list[int]]:
    """Return a column as another type, null where a value has no exact place in that, and the numbers of those rows.

    Numbers become numbers, times of one kind such times, objects, lists and maps what is inside of them; a text never becomes
    anything else. With no `kind` no value has a place. Fields of objects that `kind` does not have count where they are
    not null.
    """
    if kind is None:
        return pa.chunked_array([pa.nulls(len(column))]), pc.indices_nonzero(column.is_valid()).to_pylist()
    parts, bad, start = [], list[int](), 0
    for chunk in column.chunks:
        part, misfits = _narrowed(chunk, kind)
        parts.append(part)
        bad += [start + row for row in pc.indices_nonzero(misfits).to_pylist()]
        start += len(chunk)
    return pa.chunked_array(parts, kind), bad


def _narrowed(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, pa.Array]:
    """Return the values as the type, null where they do not fit, and where that is."""
    if array.type.equals(kind):
        return array, _nowhere(array)
    if pa.types.is_dictionary(array.type):
        return _narrowed(array.dictionary_decode(), kind)
    if pa.types.is_struct(array.type) and pa.types.is_struct(kind):
        return _narrowed_objects(array, kind)
    if _is_list(array.type) and _is_list(kind):
        return _narrowed_lists(array.cast(pa.large_list(array.type.value_field)), kind)
    if pa.types.is_map(array.type) and pa.types.is_map(kind):
        return _narrowed_maps(array, kind)
    if not _related(array.type, kind):
        return pa.nulls(len(array), kind), array.is_valid()
    return _narrowed_values(_comparable(array, kind), kind)


def _narrowed_values(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, pa.Array]:
    """Cast all at once where Arrow says that no digit is lost; else see which values come back as they were."""
    types = pa.types
    if types.is_integer(array.type) or not (types.is_floating(kind) or types.is_floating(array.type)):
        with suppress(pa.ArrowException):
            return array.cast(kind), _nowhere(array)
    within = pc.if_else(_within(array, kind), array, pa.scalar(None, array.type))
    kept = within.cast(kind, safe=False)
    back = _comparable(kept, array.type).cast(array.type, safe=False)
    same = pc.equal(array, back)
    if types.is_floating(array.type):
        same = pc.or_(same, pc.and_(pc.is_nan(array), pc.is_nan(back)))
    bad = pc.and_(array.is_valid(), pc.invert(pc.fill_null(same, False)))
    return pc.if_else(bad, pa.scalar(None, kind), kept), bad


def _comparable(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return the values in a type that Arrow casts to the other one, whatever the values are."""
    if pa.types.is_float16(array.type):
        return array.cast(pa.float32())
    if pa.types.is_integer(array.type) and pa.types.is_decimal(kind):
        return array.cast(pa.decimal256(76, kind.scale))
    return array


def _within(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return which numbers are not beyond the ends of the type, where a cast that does not check would not show it."""
    types, whole = pa.types, pa.types.is_integer(array.type)
    if types.is_decimal(kind):
        digits = kind.precision - kind.scale
        if types.is_floating(array.type):
            return pc.less(pc.abs(array), 10.0**digits)
        if types.is_decimal(array.type) and digits < array.type.precision - array.type.scale:
            return pc.less(pc.abs(array), pa.scalar(Decimal(10**digits)).cast(array.type))
    elif types.is_integer(kind) and types.is_floating(array.type):
        low, high = _ends(kind)
        return pc.and_(pc.greater_equal(array, float(low)), pc.less(array, float(high + 1)))
    elif whole and (types.is_integer(kind) or types.is_floating(kind)):
        (low, high), (lowest, highest) = _ends(kind), _ends(array.type)
        ends = pa.scalar(max(low, lowest), array.type), pa.scalar(min(high, highest), array.type)
        return pc.and_(pc.greater_equal(array, ends[0]), pc.less_equal(array, ends[1]))
    return array.is_valid()


def _ends(kind: pa.DataType) -> tuple[int, int]:
    """Return the whole numbers between which all are in the type, none rounded."""
    if pa.types.is_floating(kind):
        exact = 2 ** {16: 11, 32: 24, 64: 53}[kind.bit_width]
        return -exact, exact
    if pa.types.is_signed_integer(kind):
        return -(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1
    return 0, 2**kind.bit_width - 1


def _narrowed_objects(array: pa.StructArray, kind: pa.StructType) -> tuple[pa.Array, pa.Array]:
    fields = dict(zip([field.name for field in array.type], array.flatten(), strict=True))
    bad, children = _nowhere(array), []
    for field in kind:
        values = fields.pop(field.name, None)
        if values is None:
            children.append(pa.nulls(len(array), field.type))
            continue
        child, misfits = _narrowed(values, field.type)
        children.append(child)
        bad = pc.or_(bad, misfits)
    for values in fields.values():
        bad = pc.or_(bad, values.is_valid())
    missing = pc.or_(array.is_null(), bad)
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=missing), bad


def _narrowed_lists(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, pa.Array]:
    values, misfits = _narrowed(array.flatten(), kind.value_type)
    rows = pc.indices_nonzero(array.is_valid())  # a list that is null may have values all the same
    parents = rows.take(pc.list_parent_indices(array.drop_null()).filter(misfits))
    bad = pc.is_in(pa.arange(0, len(array)).cast(rows.type), parents)
    lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64())
    ends = pc.cumulative_sum(lengths)
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
    made = pa.large_list(kind.value_field)
    lists = pa.LargeListArray.from_arrays(offsets, values, type=made, mask=pc.or_(array.is_null(), bad))
    return lists.cast(kind), bad


def _narrowed_maps(array: pa.MapArray, kind: pa.MapType) -> tuple[pa.Array, pa.Array]:
    """Narrow the pairs, which are objects in a list."""
    pairs, wanted = (
        pa.large_list(pa.struct([("key", each.key_type), ("value", each.item_type)]))
        for each in (array.type, kind)
    )
    lists, bad = _narrowed(array.cast(pairs), wanted)
    keys, items = lists.flatten().flatten()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])
    return pa.MapArray.from_arrays(offsets, keys, items, type=kind, mask=lists.is_null()), bad


def _related(one: pa.DataType, other: pa.DataType) -> bool:
    """Return whether values of the two are the same in kind."""
    types = pa.types
    binary = types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary
    kinds: list[Callable[[pa.DataType], bool]] = [
        lambda kind: types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind),
        lambda kind: types.is_timestamp(kind) and kind.tz is not None,
        lambda kind: types.is_timestamp(kind) and kind.tz is None,
        types.is_time,
        types.is_date,
        types.is_duration,
        lambda kind: types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind),
        lambda kind: any(test(kind) for test in binary),
    ]
    return bool(types.is_null(one)) or any(is_kind(one) and is_kind(other) for is_kind in kinds)


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (
        types.is_list,
        types.is_large_list,
        types.is_fixed_size_list,
        types.is_list_view,
        types.is_large_list_view,
    )
    return any(test(kind) for test in tests)


def _nowhere(array: pa.Array) -> pa.Array:
    return pa.repeat(pa.scalar(False), len(array))
