"""Values that a narrower type takes exactly: `narrowed`, the other way round of widening a column."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["narrowed"]


def narrowed(column: pa.ChunkedArray, kind: pa.DataType | None) -> tuple[pa.ChunkedArray, list[int]]:
    """Return a column as another type, null where a value has no exact place in that, and the numbers of those rows.

    Numbers become numbers, times of one kind such times, objects and lists what is inside of them; a text never becomes
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
    if pa.types.is_struct(array.type) and pa.types.is_struct(kind):
        return _narrowed_objects(array, kind)
    if _is_list(array.type) and _is_list(kind):
        return _narrowed_lists(array, kind)
    if not _related(array.type, kind):
        return pa.nulls(len(array), kind), array.is_valid()
    if pa.types.is_floating(array.type) and pa.types.is_integer(kind):
        whole = pc.fill_null(pc.and_(pc.is_finite(array), pc.equal(pc.floor(array), array)), True)
        return _in_range(pc.if_else(whole, array, pa.scalar(None, array.type)), kind, pc.invert(whole))
    return _in_range(array, kind, _nowhere(array))


def _in_range(array: pa.Array, kind: pa.DataType, bad: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Cast; halve what cannot be cast until the values to blame stand alone."""
    try:
        return array.cast(kind), bad
    except pa.ArrowException:
        if len(array) == 1:
            return pa.nulls(1, kind), pa.array([True])
    half = len(array) // 2
    parts = [
        _in_range(array.slice(0, half), kind, bad.slice(0, half)),
        _in_range(array.slice(half), kind, bad.slice(half)),
    ]
    return pa.concat_arrays([part for part, _ in parts]), pa.concat_arrays([misfits for _, misfits in parts])


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
    parents = pc.list_parent_indices(array).filter(misfits)
    bad = pc.is_in(pa.array(range(len(array)), parents.type), parents)
    lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64())
    ends = pc.cumulative_sum(lengths)
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
    made = pa.large_list(kind.value_field)
    lists = pa.LargeListArray.from_arrays(offsets, values, type=made, mask=pc.or_(array.is_null(), bad))
    return lists.cast(kind), bad


def _related(one: pa.DataType, other: pa.DataType) -> bool:
    """Return whether values of the two are the same in kind."""
    types = pa.types
    kinds: list[Callable[[pa.DataType], bool]] = [
        lambda kind: types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind),
        lambda kind: types.is_timestamp(kind) and kind.tz is not None,
        lambda kind: types.is_timestamp(kind) and kind.tz is None,
        types.is_time,
        types.is_date,
        types.is_duration,
        lambda kind: types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind),
        lambda kind: types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind),
    ]
    return bool(types.is_null(one)) or any(is_kind(one) and is_kind(other) for is_kind in kinds)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _nowhere(array: pa.Array) -> pa.Array:
    return pa.repeat(pa.scalar(False), len(array))
