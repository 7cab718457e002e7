"""From the text of an expression to a checked sqlglot tree: what is not listed is refused, with line and column.

The parser is sqlglot's (dialect duckdb), asked for one condition. Its tree is never trusted: every node must be in
`NODES`, with no argument beyond those listed, since a node may mean something else with one (`negate` in NOT LIKE).
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from math import isinf
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import sqlglot
from pydantic_core import PydanticCustomError
from sqlglot import Token, TokenType, exp
from sqlglot.errors import ParseError, SqlglotError

from collectors.processing import _grammar
from collectors.settings import column_type

__all__ = ["arrow_type", "check", "name_groups", "parse", "place", "start_of", "whole_number"]

_MAX_CHARACTERS = 20_000
_MAX_TOKENS = 5_000
_MAX_DEPTH = 50
_MAX_DIGITS = 38


def refuse(text: str, offset: int, message: str) -> NoReturn:
    """Raise the error that the loader of pipeline files turns into a place in the file."""
    line, column = place(text, offset)
    raise PydanticCustomError("sql", "{message}", {"message": message, "line": line, "column": column})


def place(text: str, offset: int) -> tuple[int, int]:
    """Return line and column, both from 1, of the character at an offset."""
    before = text[:offset]
    return before.count("\n") + 1, offset - before.rfind("\n")


def start_of(node: Any) -> int:
    """Return the offset at which the text of a node begins, as far as its parts tell; 0 if none does."""
    return min((part.meta["start"] for part in node.walk() if "start" in part.meta), default=0)


def whole_number(node: Any) -> int | None:
    """Return the value of a node that is a whole number written out, None for any other."""
    if isinstance(node, exp.Neg):
        number = whole_number(node.this)
        return None if number is None else -number
    return (
        int(node.this)
        if isinstance(node, exp.Literal) and not node.is_string and node.this.isdigit()
        else None
    )


def arrow_type(node: Any) -> pa.DataType:
    """Return the type that a CAST names. Raises ValueError."""
    name = _grammar.TYPE_NAMES.get(getattr(node.this, "name", ""))
    digits = ",".join(part.name for part in node.expressions)
    if name is None or node.args.get("nested") or (name == "decimal" and not digits):
        raise ValueError(
            "expected a type: bool, int, float, string, binary, date, timestamp or decimal(precision, scale)"
        )
    return column_type(f"decimal({digits})" if name == "decimal" else name)


@lru_cache(maxsize=1024)
def parse(text: str) -> Any:
    """Return the checked tree of an expression; it must not be changed. Raises PydanticCustomError."""
    tokens = _tokens(text)
    _check_words(text, tokens)
    try:
        tree = sqlglot.parse_one(text, dialect="duckdb", into=exp.Condition)
    except ParseError as error:
        _explain(text, tokens, error)
    except RecursionError:
        refuse(text, 0, f"nested too deeply: at most {_MAX_DEPTH} levels")
    except (SqlglotError, ValueError, TypeError, AttributeError, LookupError):
        refuse(text, 0, "this is not an SQL expression")
    check(tree, text)
    return tree


def check(tree: Any, text: str) -> None:
    """Raise PydanticCustomError for the first node that has no meaning here."""
    if type(tree) not in _grammar.NODES:
        _refuse_node(tree, text)
    stack = [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        if type(node) not in _grammar.STRUCTURE:
            used = {name for name, value in node.args.items() if value not in (None, False, [])}
            if type(node) not in _grammar.NODES or not used <= _grammar.NODES[type(node)]:
                _refuse_node(node, text)
            if any(needed and node.args.get(name) is None for name, needed in node.arg_types.items()):
                refuse(text, start_of(node), "expected a value")
            _check_arguments(node, text)
        if depth > _MAX_DEPTH:
            refuse(text, start_of(node), f"nested too deeply: at most {_MAX_DEPTH} levels")
        chain = type(node) if isinstance(node, (exp.And, exp.Or)) else None
        stack += [(part, depth + (type(part) is not chain)) for part in node.iter_expressions()]


def _refuse_node(node: Any, text: str) -> NoReturn:
    parts = [part.meta for part in node.walk() if "start" in part.meta]
    if not parts:
        refuse(text, 0, "this is not part of the expression language")
    start, end = min(part["start"] for part in parts), max(part["end"] for part in parts)
    refuse(text, start, f"what stands at {text[start : end + 1]!r} is not part of the expression language")


def _tokens(text: str) -> list[Token]:
    if len(text) > _MAX_CHARACTERS:
        refuse(text, 0, f"the expression is too long: {len(text)} characters, at most {_MAX_CHARACTERS}")
    try:
        tokens = list(sqlglot.tokenize(text, read="duckdb"))
    except (SqlglotError, ValueError, LookupError):
        for match in re.finditer(
            r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|(?P<open>['\"]|/\*)|.", text, re.DOTALL
        ):
            if match["open"]:
                refuse(text, match.start(), f"what opens here with {match['open']} is never closed")
        refuse(text, 0, "this is not an SQL expression")
    if not tokens:
        refuse(text, 0, "expected an expression, for example: status <> 'fail'")
    if len(tokens) > _MAX_TOKENS:
        refuse(text, 0, f"the expression is too long: {len(tokens)} words and signs, at most {_MAX_TOKENS}")
    return tokens


def _check_words(text: str, tokens: list[Token]) -> None:
    """Refuse what is wrong in itself, whatever the parser would make of it."""
    open_ = 0
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        word = token.text.lower()
        open_ += (token.token_type == TokenType.L_PAREN) - (token.token_type == TokenType.R_PAREN)
        if open_ > _MAX_DEPTH:
            refuse(text, token.start, f"nested too deeply: at most {_MAX_DEPTH} levels")
        if token.token_type == TokenType.SEMICOLON:
            refuse(text, token.start, "expected one expression; nothing may stand at or behind ';'")
        if token.token_type == TokenType.SELECT:
            refuse(text, token.start, "a SELECT cannot stand here: expected one expression over a single row")
        if token.text == "~" and token.token_type not in _QUOTED:
            refuse(
                text,
                token.start,
                "'~' is not part of the expression language: write regexp_matches(text, 'pattern')",
            )
        called = following is not None and following.token_type == TokenType.L_PAREN
        if token.token_type in _QUOTED or not re.fullmatch(r"[A-Za-z_]\w*", word):
            continue
        if word in _grammar.UNREPEATABLE and (called or token.token_type.name.startswith("CURRENT_")):
            refuse(
                text,
                token.start,
                f"{word} is not repeatable, and a replay must give the same rows as the first run",
            )
        if called and word not in _CALLABLE:
            refuse(text, token.start, _unknown_function(word))


_CALLABLE = _grammar.FUNCTION_NAMES | _grammar.NOT_CALLED
_QUOTED = {TokenType.STRING, TokenType.IDENTIFIER}


def _unknown_function(word: str) -> str:
    near = difflib.get_close_matches(word, _grammar.FUNCTION_NAMES, n=1, cutoff=0.5)
    hint = (
        f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(sorted(_grammar.FUNCTION_NAMES))}"
    )
    return f"unknown function '{word}': {hint}"


def _explain(text: str, tokens: list[Token], error: ParseError) -> NoReturn:
    """Say in plain words what the parser did not like; it names the token at which it stopped."""
    details = error.errors[0] if error.errors else {}
    at = (details.get("line"), details.get("col"))
    index = next((n for n, token in enumerate(tokens) if (token.line, token.col) == at), len(tokens) - 1)
    token, what = tokens[index], details.get("description", "")
    last = index == len(tokens) - 1
    shown = text[token.start : token.end + 1]
    if what.startswith("Required keyword") and shown != ")":
        before = token if last or not index else tokens[index - 1]
        refuse(text, token.start, f"expected a value behind '{text[before.start : before.end + 1]}'")
    if what.startswith("Required keyword"):
        refuse(text, token.start, "expected a value in front of ')'")
    if what.startswith("The number of provided arguments"):
        refuse(text, token.start, "too many values in front of ')'")
    if what.startswith("Expecting )"):
        refuse(text, token.start, f"expected ')' {'behind' if last else 'at'} '{shown}'")
    if what.startswith("Expected "):
        refuse(text, token.start, f"expected {what[9:].split(' after')[0].lower()} behind '{shown}'")
    if last and token.token_type not in _QUOTED | {TokenType.VAR, TokenType.NUMBER, TokenType.R_PAREN}:
        refuse(text, token.start, f"expected a value behind '{shown}'")
    word = re.fullmatch(r"[A-Za-z_]\w*", shown) and token.token_type != TokenType.VAR
    hint = f'; a column of that name is written "{shown}"' if word else ""
    refuse(text, token.start, f"did not expect '{shown}' here{hint}")


def _check_arguments(node: Any, text: str) -> None:
    for name, sort in _grammar.WRITTEN_OUT.get(type(node), {}).items():
        value = node.args.get(name)
        if value is not None and not _is_written(value, sort):
            what = "a text in single quotes" if sort == "text" else "a whole number"
            refuse(text, start_of(value), f"expected {what} here, not a column or something computed")
    rule = _RULES.get(type(node))
    problem = rule(node) if rule else None
    if problem:
        refuse(text, start_of(node), problem)


def _is_written(node: Any, sort: str) -> bool:
    if sort == "text":
        return isinstance(node, exp.Literal) and bool(node.is_string)
    return whole_number(node) is not None


def _literal(node: Any) -> str | None:
    if node.is_string:
        return None
    digits = node.this.replace(".", "").lstrip("0")
    if digits.isdigit() and len(digits) > _MAX_DIGITS:
        return f"a number has at most {_MAX_DIGITS} digits"
    try:
        return "the number is too large" if isinf(float(node.this)) else None
    except ValueError:
        return f"'{node.this}' is no number"


def _cast(node: Any) -> str | None:
    try:
        arrow_type(node.args["to"])
    except (ValueError, KeyError) as error:
        return str(error)
    return None


def _pattern(node: Any) -> str | None:
    flag, group = node.args.get("flag"), node.args.get("group")
    if flag is not None and flag.name != "i":
        return "the only flag of regexp_matches is 'i' (ignore case)"
    pattern, groups = name_groups(node.args["expression"].name)
    try:
        pc.extract_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        return f"the pattern is not a regular expression: {error}"
    if group is None or whole_number(group) in range(groups + 1):
        return None
    return f"the pattern has no group {group.name}: it has {groups}"


def name_groups(pattern: str) -> tuple[str, int]:
    """Return the pattern with every group named `g0` (the whole), `g1` …, as Arrow wants it, and how many it has."""
    count = 0

    def name(match: re.Match[str]) -> str:
        nonlocal count
        if match["group"] is None:
            return match[0]
        count += 1
        return f"(?P<g{count}>"

    named = re.sub(
        r"\\Q.*?(?:\\E|$)|\\.|\[\^?\]?(?:\\.|\[:\w+:\]|[^\]\\])*\]|(?P<group>\((?:\?P?<\w+>|(?!\?)))",
        name,
        pattern,
        flags=re.DOTALL,
    )
    return f"(?P<g0>{named})", count


def _is(node: Any) -> str | None:
    if isinstance(node.args.get("expression"), (exp.Null, exp.Boolean)):
        return None
    return "expected null, not null, true, false or distinct from behind 'is'"


def _in(node: Any) -> str | None:
    return None if node.expressions else "expected a list of values behind 'in', for example: in ('a', 'b')"


def _bracket(node: Any) -> str | None:
    if len(node.expressions) == 1 and _is_written(node.expressions[0], "text"):
        return None
    return "expected the name of a field in the brackets, for example: place['city']"


def _anonymous(node: Any) -> str | None:
    if str(node.this).lower() != "suffix":
        return _unknown_function(str(node.this).lower())
    if len(node.expressions) == 2 and _is_written(node.expressions[1], "text"):
        return None
    return "expected a value and a text: suffix(name, '.csv')"


def _escape(node: Any) -> str | None:
    if isinstance(node.this, (exp.Like, exp.ILike)) and len(node.expression.name) == 1:
        return None
    return "expected one character behind 'escape', and a 'like' in front of it"


def _date_part(node: Any) -> str | None:
    truncates = not isinstance(node, exp.Extract)
    known = _grammar.TRUNCATIONS if truncates else _grammar.DATE_PARTS
    part = node.args["unit"] if truncates else node.this
    if isinstance(part, (exp.Var, exp.Literal)) and part.name.lower() in known:
        return None
    return f"expected one of {', '.join(sorted(known))}"


def _log(node: Any) -> str | None:
    base = node.this if node.args.get("expression") else None
    if base is None or (
        isinstance(base, exp.Literal) and not base.is_string and float(base.this) not in {0, 1}
    ):
        return None
    return "expected a number written out as the base of log"


def _split(node: Any) -> str | None:
    if not node.args["delimiter"].name:
        return "expected a delimiter of at least one character"
    return None if (whole_number(node.args["part_index"]) or 0) > 0 else "parts are counted from 1"


def _substring(node: Any) -> str | None:
    length = node.args.get("length")
    if not node.args.get("start") or whole_number(node.args["start"]) == 0:
        return "characters are counted from 1, or from -1 at the end"
    return "the length cannot be negative" if length is not None and (whole_number(length) or 0) < 0 else None


def _field(node: Any) -> str | None:
    named = isinstance(node.args.get("expression"), exp.Identifier)
    return None if named else "expected the name of a field behind '.'"


def _name(node: Any) -> str | None:
    return None if isinstance(node.this, exp.Identifier) else "expected the name of a column"


_RULES = {
    exp.Anonymous: _anonymous,
    exp.Bracket: _bracket,
    exp.Cast: _cast,
    exp.Column: _name,
    exp.DateTrunc: _date_part,
    exp.Dot: _field,
    exp.Escape: _escape,
    exp.Extract: _date_part,
    exp.In: _in,
    exp.Is: _is,
    exp.Literal: _literal,
    exp.Log: _log,
    exp.RegexpExtract: _pattern,
    exp.RegexpLike: _pattern,
    exp.SplitPart: _split,
    exp.Substring: _substring,
    exp.TimestampTrunc: _date_part,
    exp.TryCast: _cast,
}
