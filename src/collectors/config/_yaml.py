"""A YAML text as nodes that know their line and column; strict where YAML is full of traps.

YAML 1.2's core schema: `on`, `no` and `1:30` are text, `010` is ten. No tags beyond that schema, no merge keys, no
second document, no key twice. Depth, aliases and what aliases expand to are bounded, so that no text can cost much.
Source of the schema: the YAML 1.2.2 specification, chapter 10.3.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import yaml
from msgspec import Struct, field

__all__ = ["Mapping", "Node", "Scalar", "Sequence", "YamlError", "parse", "plain"]

MAX_DEPTH = 50
MAX_ALIASES = 100
MAX_NODES = 200_000

_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"|~|null|Null|NULL")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_CORE_TAGS = {f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")} | {"!"}


class YamlError(Exception):
    """One thing that is wrong with the text, at a line and column that count from 1."""

    def __init__(self, message: str, line: int, column: int, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.hint = hint


class Scalar(Struct):
    """A single value; `text` is its content, `style` how it was quoted, `start` and `end` where it is in the text."""

    line: int
    column: int
    value: Any
    text: str
    style: str
    start: int
    end: int
    size: int = 1


class Sequence(Struct):
    """A list."""

    line: int
    column: int
    items: list[Node] = field(default_factory=list)
    size: int = 1


class Mapping(Struct):
    """Keys, which are always text, with the nodes of key and value."""

    line: int
    column: int
    entries: dict[str, tuple[Scalar, Node]] = field(default_factory=dict)
    size: int = 1


Node = Scalar | Sequence | Mapping


def parse(text: str) -> tuple[Node | None, list[YamlError]]:
    """Return the document (None: there is none) and what is wrong with it but leaves the rest readable.

    Raises YamlError for what does not.
    """
    try:
        return _Composer(text).compose()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise YamlError(
            f"the control character U+{ord(text[error.position]):04X} is not allowed in YAML", line, column
        ) from None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text) from None


def plain(node: Node) -> Any:
    """Return a node as dicts, lists and scalars."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, (_, value) in node.entries.items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.value


class _Lines:
    """The lines of a text as editors have them: YAML 1.1 would begin another one behind U+0085, U+2028 and U+2029 as well."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._begins = [0, *(found.end() for found in re.finditer(r"\r\n|\r|\n", text))]

    def place(self, mark: yaml.Mark) -> tuple[int, int]:
        """Return line and column, both from 1."""
        line = bisect_right(self._begins, mark.index)
        return line, mark.index - self._begins[line - 1] + 1

    def text(self, line: int) -> str:
        """Return a line without its end."""
        end = self._begins[line] if line < len(self._begins) else None
        return self._text[self._begins[line - 1] : end].rstrip("\r\n")


class _Composer:
    """Makes nodes of PyYAML's events: its composer has no bounds and its resolver is YAML 1.1."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._lines = _Lines(text)
        self._anchors: dict[str, Node | None] = {}
        self._aliases = 0
        self._errors: list[YamlError] = []

    def compose(self) -> tuple[Node | None, list[YamlError]]:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise self._error("a second document begins here; a pipeline file is one document", event)
                root = self._node(next(self._events), 0)
        return root, self._errors

    def _node(self, event: Any, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if depth >= MAX_DEPTH:
            raise self._error(f"nested more than {MAX_DEPTH} deep", event)
        self._check_tag(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(event, depth)
        else:
            node = self._mapping(event, depth)
        if node.size > MAX_NODES:
            raise self._error(
                f"this holds more than {MAX_NODES:,} values, with its aliases written out", event
            )
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _sequence(self, start: Any, depth: int) -> Sequence:
        node = Sequence(*self._lines.place(start.start_mark))
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            item = self._node(event, depth + 1)
            node.items.append(item)
            node.size += item.size
        return node

    def _mapping(self, start: Any, depth: int) -> Mapping:
        node = Mapping(*self._lines.place(start.start_mark))
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            node.size += value.size + 1
            if not isinstance(key, Scalar):
                self._errors.append(self._error("a key must be text, not a list or a mapping", event))
            elif key.text == "<<" and key.style == "":
                hint = "write the settings out, or put an alias in place of a whole value"
                self._errors.append(self._error("merge keys are not part of YAML 1.2", event, hint))
            elif key.text in node.entries:
                first = node.entries[key.text][0].line
                message = f"the key '{key.text}' stands here a second time; the first is in line {first}"
                self._errors.append(self._error(message, event))
            else:
                node.entries[key.text] = (key, value)
        return node

    def _alias(self, event: Any) -> Node:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise self._error(f"more than {MAX_ALIASES} aliases", event)
        if event.anchor not in self._anchors:
            raise self._error(
                f"there is no anchor '&{event.anchor}' before this alias",
                event,
                "text that begins with '*' must be in quotes",
            )
        node = self._anchors[event.anchor]
        if node is None:
            raise self._error(
                f"the alias '*{event.anchor}' stands inside the very value that it names", event
            )
        return node

    def _check_tag(self, event: Any) -> None:
        if event.tag is not None and event.tag not in _CORE_TAGS:
            shown = event.tag.replace(_TAG, "!!")
            hint = "leave it out; a pipeline file holds plain text, numbers, true, false, null, lists and mappings"
            self._errors.append(self._error(f"the tag '{shown}' is not allowed", event, hint))

    def _scalar(self, event: Any) -> Scalar:
        style = "" if event.style is None else event.style
        tag = (event.tag or "").removeprefix(_TAG)
        try:
            value = _tagged(event.value, tag) if tag else _resolve(event.value, is_plain=style == "")
        except ValueError as error:
            self._errors.append(self._error(str(error), event))
            value = None
        line, column = self._lines.place(event.start_mark)
        return Scalar(line, column, value, event.value, style, event.start_mark.index, event.end_mark.index)

    def _error(self, message: str, event: Any, hint: str | None = None) -> YamlError:
        return YamlError(message, *self._lines.place(event.start_mark), hint)


def _resolve(text: str, *, is_plain: bool) -> Any:
    if not is_plain:
        return text
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))
    return text


def _tagged(text: str, tag: str) -> Any:
    """Return the value of a scalar that says its type; a foreign tag is text here, it was reported before."""
    value = _resolve(text, is_plain=True)
    kinds: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
    if tag not in kinds:
        return text
    if not isinstance(value, kinds[tag]) or (tag != "bool" and isinstance(value, bool)):
        raise ValueError(f"'{text}' does not fit its tag '!!{tag}'")
    return float(value) if tag == "float" else value


def _integer(text: str) -> int:
    """Return the number; Python's own bound on digits keeps this cheap."""
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    try:
        return int(text, base)
    except ValueError:
        raise ValueError(f"a whole number of {len(text):,} digits is too long") from None


def _syntax_error(error: yaml.MarkedYAMLError, text: str) -> YamlError:
    """Say what PyYAML's scanner found in a sentence that helps."""
    mark = error.problem_mark or error.context_mark
    lines = _Lines(text)
    line, column = lines.place(mark) if mark else (1, 1)
    written = lines.text(line)
    problem = error.problem or "this is not YAML"
    begun = f"begun in line {lines.place(error.context_mark)[0]}" if error.context_mark else "begun above"
    message, hint = _explain(problem, begun, written[column - 1 : column])
    if "${" in written and re.search(r"[\[{].*\$\{", written):
        hint = 'inside { } and [ ], put a variable in quotes: "${NAME}"'
    return YamlError(message, line, column, hint)


def _explain(problem: str, begun: str, character: str) -> tuple[str, str | None]:
    if character == "\t":
        return "there is a tab here", "YAML wants spaces for indentation"
    if "<document start>" in problem:
        return (
            "this is not a pipeline file: the text goes on behind the end of its first value",
            "a pipeline file is one mapping with the keys sources and storage; a file of records goes in as a source",
        )
    if "mapping values are not allowed" in problem:
        return "a ':' is not expected here", "put text that contains ': ' in quotes, or check the indentation"
    if "cannot start any token" in problem:
        return f"text cannot begin with '{character}'", "put it in quotes"
    if "unexpected end of stream" in problem:
        return f"the quote {begun} is never closed", None
    if "expected <block end>" in problem:
        return f"this does not fit the list or mapping {begun}", "check the indentation"
    if "',' or" in problem:
        return (
            f"expected a comma or the end of the list or mapping {begun}",
            "text with [ ] { } or , needs quotes",
        )
    if "could not find expected ':'" in problem:
        return "a key without ':' behind it", "write `key: value`"
    return problem, None
