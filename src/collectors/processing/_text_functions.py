"""The functions of the expression language over text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from collectors.processing._syntax import name_groups, whole_number
from collectors.processing._terms import Compile, Datum, Rows, Term, cast_term, coerce, shown, wrong

__all__ = ["TEXT_FUNCTIONS", "text_of"]

_NOTHING = pa.scalar("")


def text_of(term: Term, node: Any) -> Term:
    """Return a part that must be a string."""
    if term.kind == "null":
        return coerce(term, pa.string())
    if term.kind != "string":
        wrong(
            node, f"{shown(term)}, and a string is needed: cast({term.node.sql(dialect='duckdb')} as string)"
        )
    return term


def _text_function(kernel: Callable[[Datum], Datum], result: pa.DataType | None = None) -> Any:
    def rule(node: Any, compile_: Compile) -> Term:
        text = text_of(compile_(node.this), node)
        target = result or pa.string()
        return Term(target, lambda rows: pc.cast(kernel(text.run(rows)), target), node)

    return rule


def _text_test(kernel: Callable[..., Datum]) -> Any:
    def rule(node: Any, compile_: Compile) -> Term:
        whole, part = (node.expressions) if isinstance(node, exp.Anonymous) else (node.this, node.expression)
        text = text_of(compile_(whole), node)
        return Term(pa.bool_(), lambda rows: kernel(text.run(rows), part.name), node)

    return rule


def _trim(node: Any, compile_: Compile) -> Term:
    text = text_of(compile_(node.this), node)
    characters = node.expression.name if node.args.get("expression") else " "
    kernels = {"LEADING": pc.utf8_ltrim, "TRAILING": pc.utf8_rtrim}
    kernel = kernels.get(str(node.args.get("position") or "").upper(), pc.utf8_trim)
    return Term(pa.string(), lambda rows: kernel(text.run(rows), characters), node)


def _substring(node: Any, compile_: Compile) -> Term:
    text = text_of(compile_(node.this), node)
    first = whole_number(node.args["start"]) or 0
    start = first - 1 if first > 0 else first
    length = whole_number(node.args["length"]) if node.args.get("length") else None
    stop = None if length is None or (start < 0 <= start + length) else start + length
    return Term(pa.string(), lambda rows: pc.utf8_slice_codeunits(text.run(rows), start, stop), node)


def _replace(node: Any, compile_: Compile) -> Term:
    text = text_of(compile_(node.this), node)
    old, new = node.expression.name, node.args["replacement"].name if node.args.get("replacement") else ""
    if not old:
        return text
    return Term(pa.string(), lambda rows: pc.replace_substring(text.run(rows), old, new), node)


def _split_part(node: Any, compile_: Compile) -> Term:
    text = text_of(compile_(node.this), node)
    delimiter, index = node.args["delimiter"].name, (whole_number(node.args["part_index"]) or 1) - 1

    def run(rows: Rows) -> Datum:
        values = rows.spread(text.run(rows))
        pieces = pc.list_slice(
            pc.split_pattern(values, delimiter), index, index + 1, return_fixed_size_list=True
        )
        part = pc.list_element(pieces, 0)
        return pc.if_else(pc.is_valid(values), pc.coalesce(part, _NOTHING), pa.scalar(None, pa.string()))

    return Term(pa.string(), run, node)


def _like(node: Any, compile_: Compile, escape: str | None = None) -> Term:
    """Compile LIKE and ILIKE: `%` is any text, `_` any character, `escape` takes the meaning from what follows."""
    text = text_of(compile_(node.this), node)
    pieces, taken = [], False
    for character in node.expression.name:
        wild = {"%": ".*", "_": "."}.get(character)
        if not taken and character == escape:
            taken = True
            continue
        pieces.append(wild if wild and not taken else re.escape(character))
        taken = False
    if taken:
        wrong(node, f"nothing stands behind the escape character in '{node.expression.name}'")
    pattern = rf"(?s{'i' if isinstance(node, exp.ILike) else ''})\A(?:{''.join(pieces)})\z"
    negate = bool(node.args.get("negate"))

    def run(rows: Rows) -> Datum:
        found = pc.match_substring_regex(text.run(rows), pattern)
        return pc.invert(found) if negate else found

    return Term(pa.bool_(), run, node)


def _regexp_matches(node: Any, compile_: Compile) -> Term:
    text = text_of(compile_(node.this), node)
    pattern, ignore_case = node.expression.name, node.args.get("flag") is not None
    return Term(
        pa.bool_(),
        lambda rows: pc.match_substring_regex(text.run(rows), pattern, ignore_case=ignore_case),
        node,
    )


def _regexp_extract(node: Any, compile_: Compile) -> Term:
    text = text_of(compile_(node.this), node)
    pattern, _ = name_groups(node.expression.name)
    group = f"g{whole_number(node.args['group']) if node.args.get('group') else 0}"
    return Term(
        pa.string(), lambda rows: pc.struct_field(pc.extract_regex(text.run(rows), pattern), group), node
    )


def _as_text(term: Term, node: Any) -> Term:
    return term if term.kind == "string" else cast_term(term, pa.string(), node, strict=True)


def _joined(null_handling: str) -> Any:
    """Return the rule of CONCAT or `||`; other types than strings are joined as CAST would write them."""

    def rule(node: Any, compile_: Compile) -> Term:
        parts = node.expressions or [node.this, node.expression]
        terms = [_as_text(compile_(part), node) for part in parts]

        def run(rows: Rows) -> Datum:
            texts = [term.run(rows) for term in terms]
            # not "skip": pyarrow 26 then leaves out rows in which all texts are null
            return pc.binary_join_element_wise(
                *texts, _NOTHING, null_handling=null_handling, null_replacement=""
            )

        return Term(pa.string(), run, node)

    return rule


TEXT_FUNCTIONS: dict[type[Any], Callable[[Any, Compile], Term]] = {
    exp.Anonymous: _text_test(pc.ends_with),
    exp.Concat: _joined("replace"),
    exp.Contains: _text_test(pc.match_substring),
    exp.DPipe: _joined("emit_null"),
    exp.EndsWith: _text_test(pc.ends_with),
    exp.Escape: lambda node, compile_: _like(node.this, compile_, node.expression.name),
    exp.ILike: _like,
    exp.Length: _text_function(pc.utf8_length, pa.int64()),
    exp.Like: _like,
    exp.Lower: _text_function(pc.utf8_lower),
    exp.RegexpExtract: _regexp_extract,
    exp.RegexpLike: _regexp_matches,
    exp.Replace: _replace,
    exp.SplitPart: _split_part,
    exp.StartsWith: _text_test(pc.starts_with),
    exp.Substring: _substring,
    exp.Trim: _trim,
    exp.Upper: _text_function(pc.utf8_upper),
}
