"""Reads the expressions that most pipelines have without sqlglot, whose import costs as much as a run of a few records.

    status <> 'fail' and temperature between -50 and 60

Columns, values written out, `+ - * / %`, comparisons, `between`, `in`, `is null`, `and`, `or`, `not`, brackets. The tree is the one
that sqlglot's parser gives, node by node; what is not certain to be (a word of SQL, a comment, `a < b < c`) is left to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

__all__ = ["Node", "parse"]

_MAX_TOKENS = 60
"""So no tree is nested as deeply as is refused."""

_NAME = r'(?:[A-Za-z_][A-Za-z0-9_]*|"[^"\\]+")'
_TOKEN = re.compile(
    rf"""[ \t\r\n]*(?:
      (?P<number> \d{{1,19}} (?:\.\d{{1,19}})? (?![\w.]) )
    | (?P<text> '[^'\\]*' (?!') )
    | (?P<name> {_NAME} (?:\.{_NAME}){{0,3}} (?![\w."']) )
    | (?P<sign> [(),] | (?: <> | != | <= | >= | [-+*/%=<>] ) (?![-+*/%=<>!|&^~:@\#?$.]) )
    | (?P<end> \Z )
    )""",
    re.VERBOSE | re.ASCII,
)
_NOT_A_COLUMN = {
    "and", "or", "not", "between", "in", "is", "null", "true", "false",
    "alter", "any", "array", "as", "case", "connect_by_root", "create", "cross", "current_catalog", "current_date",
    "current_time", "current_timestamp", "current_user", "describe", "distinct", "drop", "else", "except", "fetch", "for",
    "force", "from", "glob", "grant", "having", "if", "ilike", "inner", "insert", "install", "intersect", "interval",
    "into", "join", "lateral", "like", "list", "localtime", "localtimestamp", "map", "notnull", "nullable", "object", "on",
    "only", "outer", "partitioned_by", "positional", "qualify", "range", "regexp", "returning", "revoke", "rlike",
    "rollback", "row", "select", "session_user", "struct", "summarize", "tablesample", "then", "uncache", "union", "using",
    "values", "when", "where", "with", "xor",
}  # fmt: skip
"""Words without quotes that are, in some places, something else than a column."""

_COMPARISONS = {"=": "eq", "<>": "neq", "!=": "neq", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_SUMS = {"+": "add", "-": "sub"}
_PRODUCTS = {"*": "mul", "/": "div", "%": "mod"}


class Node:
    """A node with the attributes of sqlglot's that rules look at; `key` says which one it is."""

    def __init__(self, key: str, this: Any = None, expression: Any = None, **others: Any) -> None:
        self.key = key
        self.this = this
        self.expression = expression
        self.args = {"this": this, "expression": expression, **others}

    @property
    def name(self) -> str:
        """The text of a name or value."""
        return str(self.this)

    @property
    def is_string(self) -> bool:
        """Whether a value stands in quotes."""
        return bool(self.args["is_string"])

    @property
    def expressions(self) -> list[Node]:
        """The items of a list."""
        return list(self.args["expressions"])

    def flatten(self, *, unnest: bool) -> Iterator[Node]:
        """Yield the parts of a chain of `and` or `or`."""
        for part in (self.this, self.expression):
            yield from part.flatten(unnest=unnest) if part.key == self.key else [part]

    def walk(self) -> Iterator[Node]:
        """Yield nothing: no place is kept. What is refused is read by sqlglot once more, and it tells the place."""
        return iter(())

    def sql(self, *, dialect: str) -> str:
        """Return its kind, for messages that nobody sees for the same reason."""
        return f"{dialect} {self.key}"


@lru_cache(maxsize=1024)
def parse(text: str) -> Node | None:
    """Return the tree of an expression; it must not be changed. None when it is not as simple as that, or is none."""
    tokens: list[tuple[str, str]] = []
    position = 0
    while len(tokens) <= _MAX_TOKENS and (found := _TOKEN.match(text, position)):
        position = found.end()
        tokens.append((str(found.lastgroup), found[str(found.lastgroup)]))
        if found.lastgroup == "end":
            try:
                return _Parser(tokens).whole()
            except _NotSimpleError:
                return None
    return None


class _NotSimpleError(Exception):
    """Something that sqlglot has to look at."""


class _Parser:
    """Reads tokens from the left; a method for each level of binding."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._next = 0

    def whole(self) -> Node:
        node = self._either()
        if self._tokens[self._next][0] != "end":
            raise _NotSimpleError
        return node

    def _take(self, *wanted: str) -> str:
        """Return the next word or sign and go behind it when it is one of these; else an empty text."""
        kind, text = self._tokens[self._next]
        if kind not in {"name", "sign"} or text.lower() not in wanted:
            return ""
        self._next += 1
        return text.lower()

    def _need(self, wanted: str) -> None:
        if not self._take(wanted):
            raise _NotSimpleError

    def _chain(self, part: Callable[[], Node], keys: dict[str, str]) -> Node:
        node = part()
        while sign := self._take(*keys):
            node = Node(keys[sign], node, part())
        return node

    def _either(self) -> Node:
        return self._chain(self._all, {"or": "or"})

    def _all(self) -> Node:
        return self._chain(self._negated, {"and": "and"})

    def _negated(self) -> Node:
        return Node("not", self._negated()) if self._take("not") else self._condition()

    def _condition(self) -> Node:
        node = self._sum()
        if sign := self._take(*_COMPARISONS):
            return Node(_COMPARISONS[sign], node, self._sum())
        negated = self._take("not")
        if not negated and self._take("is"):
            negated = self._take("not")
            self._need("null")
            node = Node("is", node, Node("null"))
        elif self._take("between"):
            low = self._sum()
            self._need("and")
            node = Node("between", node, low=low, high=self._sum())
        elif self._take("in"):
            self._need("(")
            items = [self._item()]
            while self._take(","):
                items.append(self._item())
            self._need(")")
            node = Node("in", node, expressions=items)
        elif negated:
            raise _NotSimpleError
        return Node("not", node) if negated else node

    def _item(self) -> Node:
        node = self._signed()
        if node.key == "literal" or (node.key == "neg" and node.this.key == "literal"):
            return node
        raise _NotSimpleError

    def _sum(self) -> Node:
        return self._chain(self._product, _SUMS)

    def _product(self) -> Node:
        return self._chain(self._signed, _PRODUCTS)

    def _signed(self) -> Node:
        return Node("neg", self._value()) if self._take("-") else self._value()

    def _value(self) -> Node:
        if self._take("("):
            node = Node("paren", self._either())
            self._need(")")
            return node
        if word := self._take("null", "true", "false"):
            return Node("null") if word == "null" else Node("boolean", word == "true")
        kind, text = self._tokens[self._next]
        self._next += 1
        if kind == "name":
            return _column(text)
        if kind not in {"number", "text"}:
            raise _NotSimpleError
        return Node("literal", text.strip("'"), is_string=kind == "text")


def _column(text: str) -> Node:
    """Return a column, or a field in a column: sqlglot takes the words in front for table, schema and database."""
    names = re.findall(_NAME, text)
    if any(name.lower() in _NOT_A_COLUMN for name in names):
        raise _NotSimpleError
    parts = [Node("identifier", name.strip('"'), quoted=name[0] == '"') for name in names]
    return Node("column", **dict(zip(("this", "table", "db", "catalog"), reversed(parts), strict=False)))
