"""The YAML that is read: the core schema of YAML 1.2, and nothing that a file should not do."""

from __future__ import annotations

import itertools
import math
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.config._places import character_place
from collectors.config._yaml import MAX_ALIASES, MAX_DEPTH, Mapping, Scalar, YamlError, parse, plain


def value_of(text):
    node, errors = parse(f"v: {text}")
    assert errors == []
    return plain(node)["v"]


@pytest.mark.parametrize(
    "text", ["on", "off", "yes", "no", "y", "n", "1:30", "2026-01-01", "1_000", "0b1", "- x"[2:], "1e", "."]
)
def test_text_stays_text(text):
    assert value_of(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0o17", 15),
        ("0xfF", 255),
        ("-7", -7),
        ("+7", 7),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-.inf", -math.inf),
        ("'010'", "010"),
        ('"true"', "true"),
        ("!!str 010", "010"),
        ("!!float 1", 1.0),
    ],
)
def test_core_schema(text, value):
    found = value_of(text)
    assert (type(found), found) == (type(value), value)


def test_nan():
    assert math.isnan(value_of(".nan"))


@given(
    st.integers()
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.none()
    | st.text("abc.:-_ +eo~nul", max_size=8)
)
@settings(max_examples=300)
def test_what_a_writer_quotes_is_read_back(value):
    """PyYAML quotes whatever YAML 1.1 would misread; our smaller schema must give the very same value back."""
    text = yaml.safe_dump({"v": value})
    found = value_of(text.removeprefix("v: ") if text.startswith("v: ") else text[2:])
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: b: c", 1, 5, "':' is not expected"),
        ("a:\n\t- b", 2, 1, "tab"),
        ('a: "x', 1, 6, "quote begun in line 1 is never closed"),
        ("- a\nb: c", 2, 1, "does not fit"),
        ("a: @x", 1, 4, "cannot begin with '@'"),
        ("a: [1\nb: 2", 2, 2, "comma"),
        ("a: \x01", 1, 4, "U+0001"),
        ("a: *x", 1, 4, "no anchor '&x'"),
        ("a: &x [*x]", 1, 8, "inside the very value"),
        ("a: 1\n---\nb: 2", 2, 1, "second document"),
        ("é: {path: ${X}}", 1, 12, None),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text, line, column, words):
    with pytest.raises(YamlError) as caught:
        parse(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    if words is None:
        assert "in quotes" in caught.value.hint
    else:
        assert words in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", "first is in line 1"),
        ("? [1]\n: 2", "key must be text"),
        ("<<: {a: 1}", "merge keys"),
        ("a: !!python/object:os.system x", "'!!python/object:os.system' is not allowed"),
        ("a: !mine x", "'!mine' is not allowed"),
        ("a: !!int x", "does not fit its tag"),
        ("a: " + "9" * 5000, "too long"),
    ],
)
def test_what_leaves_the_rest_readable_is_collected(text, words):
    node, errors = parse(f"{text}\nlast: 1")
    assert isinstance(node, Mapping)
    assert "last" in node.entries
    (error,) = errors
    assert words in error.message


def test_quoted_merge_key_is_text():
    assert plain(parse('"<<": 1')[0]) == {"<<": 1}


def test_alias_is_the_same_value():
    assert plain(parse("a: &x {b: [1]}\nc: *x")[0]) == {"a": {"b": [1]}, "c": {"b": [1]}}


def bomb(levels):
    names = "abcdefghijklmnop"[:levels]
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [
        f"{name}: &{name} [{', '.join(['*' + before] * 9)}]" for before, name in itertools.pairwise(names)
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(9), "aliases written out"),
        ("a: &a 1\nb: [" + ", ".join(["*a"] * (MAX_ALIASES + 1)) + "]", "more than 100 aliases"),
        ("[" * 200_000, "deep"),
        ("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, "deep"),
        ("\n".join(" " * n + "a:" for n in range(MAX_DEPTH + 1)), "deep"),
    ],
)
def test_bombs_are_refused_at_once(text, words):
    began = time.process_time()
    with pytest.raises(YamlError, match=words):
        parse(text)
    assert time.process_time() - began < 2


def test_within_the_bounds():
    assert parse("a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))[1] == []
    assert parse("a: &a 1\nb: [" + ", ".join(["*a"] * MAX_ALIASES) + "]")[1] == []


@given(
    st.text("ab '\"\\\n\té:#-{}", max_size=40),
    st.sampled_from(["'", '"', "|", ">", None]),
    st.sampled_from([20, 1000]),
)
@settings(max_examples=500)
def test_every_character_is_found_again(text, style, width):
    """Whatever quoting or folding a writer uses, each character's place holds that character, or the scalar's own."""
    source = yaml.dump({"k": {"v": text}}, default_style=style, width=width, allow_unicode=True)
    node, errors = parse(source)
    assert errors == []
    scalar = next(value for _, value in next(value for _, value in node.entries.values()).entries.values())
    assert isinstance(scalar, Scalar)
    lines = source.split("\n")
    for offset, character in enumerate(scalar.text):
        line, column = character_place(source, scalar, offset)
        if (line, column) == (scalar.line, scalar.column):
            continue
        found = lines[line - 1][column - 1 :][:1]
        assert character in "\n " or found in {character, "\\", ""}, (source, offset)


@pytest.mark.parametrize(
    ("source", "word", "place"),
    [
        ("w: one two", "two", (1, 8)),
        ("w: one\n  two", "two", (2, 3)),
        ("w: 'it''s two'", "two", (1, 11)),
        (r'w: "a\"b\x41\tc two"', "two", (1, 17)),
        ('w: "one\\\n   two"', "two", (2, 4)),
        ("w: |\n  one\n  two", "two", (3, 3)),
        ("w: |-\n\n    one\n      two", "two", (4, 7)),
        ("w: >\n  one\n\n  two", "two", (4, 3)),
        ("w: >-\n  one\n  two three\n", "three", (3, 7)),
        ("w: >\n  one\n    more\n  two\n", "two", (4, 3)),
        ("é: {ü: 'one two'}", "two", (1, 13)),
    ],
)
def test_places_inside_text(source, word, place):
    (scalar,) = [value for _, value in parse(source)[0].entries.values()]
    while isinstance(scalar, Mapping):
        (scalar,) = [value for _, value in scalar.entries.values()]
    assert character_place(source, scalar, scalar.text.index(word)) == place
