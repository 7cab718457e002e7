"""Decides what a column of CSV text is, so that neither a digit nor a spelling is lost.

int: `0`, `-12`; no leading zero or plus, at most 64 bits. float: also a fraction or an exponent, at most 17 digits, and
integers only as far as a float holds them. bool: `true`, `false`. Anything else, dates too, stays text.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from collectors.codecs._text_values import unreadable

__all__ = ["guess", "misfits"]

_INT = r"^(?:0|-?[1-9][0-9]{0,18})$"
_SMALL_INT = r"^(?:0|-?[1-9][0-9]{0,14})$"
_FLOAT = r"^-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$"
_NOT_DIGITS = r"[eE].*$|^-?0\.0*|[-.]"
_BOOL = r"^(?:true|false)$"


def guess(text: pa.Array) -> pa.DataType:
    """Return the type of a column of which nothing is known yet; null when it holds nothing."""
    if text.null_count == len(text):
        return pa.null()
    for data_type in (pa.int64(), pa.float64(), pa.bool_()):
        if not _other(text, data_type):
            return data_type
    return pa.string()


def misfits(text: pa.Array, known: pa.DataType) -> tuple[pa.DataType, list[int]]:
    """Return the type of a column that had a type so far, and the rows that do not fit.

    Int widens to float when this chunk has only integers beside the fractions that a float holds exactly.
    """
    if pa.types.is_null(known):
        return guess(text), []
    if not (pa.types.is_integer(known) or pa.types.is_floating(known) or pa.types.is_boolean(known)):
        return known, unreadable(text, known)
    rows = _other(text, known)
    if not rows or not pa.types.is_integer(known):
        return known, rows
    beside = text.take(pa.array(rows, pa.int64()))
    none_is_float = len(_other(beside, pa.float64())) == len(rows)
    if none_is_float or _large_ints(text):
        return known, rows
    return pa.float64(), _other(text, pa.float64())


def _other(text: pa.Array, data_type: pa.DataType) -> list[int]:
    """Return the rows whose text is not exactly of the type."""
    pattern = _BOOL
    if pa.types.is_integer(data_type):
        pattern = _INT
    elif pa.types.is_floating(data_type):
        pattern = _FLOAT
    matches = pc.match_substring_regex(text, pattern)
    if pa.types.is_floating(data_type) and (pc.max(pc.binary_length(text)).as_py() or 0) > 17:
        digits = pc.utf8_length(pc.replace_substring_regex(text, _NOT_DIGITS, ""))
        matches = pc.and_(matches, pc.less_equal(digits, 17))
    rows = _where(pc.invert(matches))
    if pa.types.is_boolean(data_type):
        return rows
    exact = pc.if_else(matches, text, pa.scalar(None, pa.string()))
    if pa.types.is_floating(data_type):
        return sorted({*rows, *_where(pc.is_inf(exact.cast(pa.float64())))})
    return sorted({*rows, *unreadable(exact, data_type)})


def _large_ints(text: pa.Array) -> bool:
    is_int = pc.match_substring_regex(text, _INT)
    return bool(pc.any(pc.and_not(is_int, pc.match_substring_regex(text, _SMALL_INT))).as_py())


def _where(mask: pa.Array) -> list[int]:
    """Return the rows where the mask is true."""
    return pc.indices_nonzero(mask).to_pylist() if pc.any(mask).as_py() else []
