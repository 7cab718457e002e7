"""What belongs to the expression language: nodes of sqlglot's tree, names of functions, parts of dates, types."""

from __future__ import annotations

from typing import Any

from sqlglot import exp

__all__ = [
    "DATE_PARTS",
    "FUNCTION_NAMES",
    "NODES",
    "NOT_CALLED",
    "STRUCTURE",
    "TRUNCATIONS",
    "TYPE_NAMES",
    "UNREPEATABLE",
    "WRITTEN_OUT",
]

_TWO = frozenset({"this", "expression"})
_ONE = frozenset({"this"})

NODES: dict[type[Any], frozenset[str]] = {
    **dict.fromkeys([exp.And, exp.Or, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Is], _TWO),
    **dict.fromkeys([exp.NullSafeEQ, exp.NullSafeNEQ, exp.Add, exp.Sub, exp.Mul, exp.Mod, exp.Pow], _TWO),
    **dict.fromkeys([exp.Div, exp.DPipe], _TWO | {"typed", "safe"}),
    **dict.fromkeys([exp.Like, exp.ILike], _TWO | {"negate"}),
    **dict.fromkeys([exp.Not, exp.Neg, exp.Paren, exp.Abs, exp.Sqrt, exp.Ln, exp.Exp, exp.Sign], _ONE),
    **dict.fromkeys([exp.Floor, exp.Ceil, exp.Lower, exp.Upper, exp.Length, exp.Boolean, exp.Literal], _ONE),
    **dict.fromkeys(
        [exp.Year, exp.Quarter, exp.Month, exp.Week, exp.Day, exp.DayOfYear, exp.DayOfWeek], _ONE
    ),
    **dict.fromkeys(
        [exp.DayOfWeekIso, exp.Hour, exp.Minute, exp.Second, exp.TimeToUnix, exp.UnixToTime], _ONE
    ),
    **dict.fromkeys([exp.Coalesce, exp.Concat], frozenset({"this", "expressions", "safe", "coalesce"})),
    **dict.fromkeys([exp.Greatest, exp.Least], frozenset({"this", "expressions", "ignore_nulls"})),
    **dict.fromkeys([exp.StartsWith, exp.EndsWith, exp.Contains, exp.Nullif, exp.Log, exp.Extract], _TWO),
    **dict.fromkeys([exp.Cast, exp.TryCast], frozenset({"this", "to", "safe"})),
    exp.Null: frozenset(),
    exp.Literal: frozenset({"this", "is_string"}),
    exp.Column: frozenset({"this", "table", "db", "catalog"}),
    exp.Dot: _TWO,
    exp.Bracket: frozenset({"this", "expressions"}),
    exp.Anonymous: frozenset({"this", "expressions"}),
    exp.Between: frozenset({"this", "low", "high"}),
    exp.In: frozenset({"this", "expressions"}),
    exp.Escape: _TWO,
    exp.Case: frozenset({"this", "ifs", "default"}),
    exp.If: frozenset({"this", "true", "false"}),
    exp.Round: frozenset({"this", "decimals"}),
    exp.Trim: frozenset({"this", "expression", "position"}),
    exp.Substring: frozenset({"this", "start", "length"}),
    exp.Replace: frozenset({"this", "expression", "replacement"}),
    exp.SplitPart: frozenset({"this", "delimiter", "part_index"}),
    exp.RegexpLike: frozenset({"this", "expression", "flag"}),
    exp.RegexpExtract: frozenset({"this", "expression", "group", "null_if_pos_overflow"}),
    **dict.fromkeys([exp.TimestampTrunc, exp.DateTrunc], frozenset({"this", "unit"})),
    exp.StrToTime: frozenset({"this", "format"}),
}
"""The nodes that have a meaning, and the arguments that each may have."""

STRUCTURE = {exp.Identifier, exp.DataType, exp.DataTypeParam, exp.Var}
"""Nodes that are parts of those, never a value themselves."""

FUNCTION_NAMES = {
    "abs", "ceil", "ceiling", "coalesce", "concat", "contains", "date_trunc", "datetrunc", "day", "dayofweek",
    "dayofyear", "ends_with", "epoch", "exp", "extract", "floor", "greatest", "hour", "if", "ifnull", "isodow",
    "least", "len", "length", "ln", "log", "log10", "log2", "lower", "ltrim", "minute", "mod", "month", "nullif",
    "pow", "power", "quarter", "regexp_extract", "regexp_matches", "replace", "round", "rtrim", "second", "sign",
    "split_part", "sqrt", "starts_with", "strptime", "substr", "substring", "suffix", "to_timestamp", "trim",
    "upper", "week", "year", "cast", "try_cast",
}  # fmt: skip
NOT_CALLED = {
    "and", "or", "not", "in", "between", "like", "ilike", "is", "case", "when", "then", "else", "from", "escape",
    "as", "decimal", "numeric", "varchar", "text", "both", "leading", "trailing", "distinct", "null",
}  # fmt: skip
UNREPEATABLE = {
    "now", "today", "random", "uuid", "gen_random_uuid", "current_timestamp", "current_date", "current_time",
    "get_current_timestamp", "get_current_time", "setseed", "nextval", "localtime", "localtimestamp", "rand",
    "transaction_timestamp", "uuidv4", "uuidv7",
}  # fmt: skip

DATE_PARTS = {
    "year", "quarter", "month", "week", "day", "doy", "dayofyear", "dow", "dayofweek", "isodow", "hour", "minute",
    "second", "epoch",
}  # fmt: skip
TRUNCATIONS = {"year", "quarter", "month", "week", "day", "hour", "minute", "second"}

WRITTEN_OUT: dict[type[Any], dict[str, str]] = {
    exp.Like: {"expression": "text"},
    exp.ILike: {"expression": "text"},
    exp.Escape: {"expression": "text"},
    exp.StartsWith: {"expression": "text"},
    exp.EndsWith: {"expression": "text"},
    exp.Contains: {"expression": "text"},
    exp.Trim: {"expression": "text"},
    exp.Replace: {"expression": "text", "replacement": "text"},
    exp.RegexpLike: {"expression": "text", "flag": "text"},
    exp.RegexpExtract: {"expression": "text", "group": "number"},
    exp.SplitPart: {"delimiter": "text", "part_index": "number"},
    exp.Substring: {"start": "number", "length": "number"},
    exp.Round: {"decimals": "number"},
    exp.StrToTime: {"format": "text"},
}
"""Arguments that must be written out, because Arrow's function has one value for them, not one a row."""

TYPE_NAMES = {
    "BOOLEAN": "bool", "INT": "int", "BIGINT": "int", "FLOAT": "float", "DOUBLE": "float", "TEXT": "string",
    "VARCHAR": "string", "VARBINARY": "binary", "DATE": "date", "TIMESTAMP": "timestamp",
    "TIMESTAMPNTZ": "timestamp", "TIMESTAMPTZ": "timestamp", "DECIMAL": "decimal",
}  # fmt: skip
