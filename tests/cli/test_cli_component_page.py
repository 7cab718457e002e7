"""What a component's page says about its settings and its docstring."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, SecretStr

from collectors.cli._component_page import _blocks, paragraphs, settings_of
from collectors.settings import ByteSize, Duration, LocalPath, Name, Settings


class Nested(Settings):
    depth: int = 1
    """How deep."""


class Base(Settings):
    id: Name | None = None
    """The name."""


class Sample(Base):
    path: LocalPath
    """Where,
    on two lines."""
    wait: Duration = 5.0
    size: ByteSize = 3 * 2**20
    odd: ByteSize = 1000
    mode: Literal["a", "b"] = "a"
    password: SecretStr | None = None
    maybe: int | None = None
    count: Annotated[int, Field(gt=0, le=9)] = 3
    names: list[str] = ["x"]
    columns: dict[str, int] = {}
    free: dict[str, Any] = {}
    either: str | list[str] = ""
    on: bool = False
    nested: Nested = Nested()
    from_: Annotated[str, Field(alias="from")] = "x"


@pytest.fixture(scope="module")
def rows():
    return {setting.name: setting for setting in settings_of(Sample)}


@pytest.mark.parametrize(
    ("name", "type_", "default"),
    [
        ("path", "path", None),
        ("wait", "duration", "5s"),
        ("size", "size", "3 MiB"),
        ("odd", "size", "1000"),
        ("mode", "`a` or `b`", "a"),
        ("password", "secret", ""),
        ("maybe", "whole number", ""),
        ("count", "whole number, more than 0 and at most 9", "3"),
        ("names", "list of text", '["x"]'),
        ("columns", "mapping of name to whole number", "{}"),
        ("free", "mapping", "{}"),
        ("either", "text or list of text", '""'),
        ("on", "true or false", "false"),
        ("nested", "mapping", '{"depth": 1}'),
        ("nested.depth", "whole number", "1"),
        ("from", "text", "x"),
        ("id", "name", ""),
    ],
)
def test_setting(rows, name, type_, default):
    assert (rows[name].type, rows[name].default) == (type_, default)


class Request(Settings):
    method: str = "GET"


class Part(Request):
    name: str


class Whole(Base, Request):
    parts: list[Part] = []


def test_settings_that_a_part_has_in_common_with_the_whole_are_told_once():
    assert [setting.name for setting in settings_of(Whole)] == ["parts", "parts.name", "method", "id"]


def test_description_and_order(rows):
    assert rows["path"].description == "Where, on two lines."
    assert rows["nested.depth"].description == "How deep."
    assert next(iter(rows)) == "path"
    assert list(rows)[-1] == "id"


DOCSTRING = """What it is.

    source:
      type: x

      more: 1

Text of
two lines.
Delivery: once.
Position: none,
here.

    def f(): ...

    just text
"""


def test_blocks():
    assert list(_blocks(DOCSTRING)) == [
        (False, "What it is."),
        (True, "source:\n  type: x\n\n  more: 1"),
        (False, "Text of\ntwo lines."),
        (False, "Delivery: once."),
        (False, "Position: none,\nhere."),
        (True, "def f(): ...\n\njust text"),
    ]


def test_markdown():
    text = "\n".join(paragraphs(DOCSTRING))
    assert "```yaml\nsource:\n  type: x\n\n  more: 1\n```" in text
    assert "```python\ndef f(): ..." in text
    assert "**Delivery:** once.\n\n**Position:** none,\nhere." in text
