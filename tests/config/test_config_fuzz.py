"""Whatever is in a pipeline file: it loads, or the mistakes are told; nothing else ever comes out."""

from __future__ import annotations

import os
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.config.load import from_mapping, load
from collectors.errors import ConfigurationError

GOOD = """\
name: readings
memory: 64 MiB
sources:
  - {type: file, id: readings, path: "data/*.ndjson", format: {type: ndjson, columns: {a: int}}}
  - type: file
    path: ${HOME}/x.csv
    every: 5s
processors:
  - {type: filter, where: "a > 1 and b <> 'x'"}
  - type: set
    columns:
      c: >
        a * 2
         + 1
storage: &s
  - {type: sqlite, path: x.db}
pipelines:
  one: {from: [readings, file], to: sqlite}
"""
PIECES = [
    "\t",
    "\n",
    " ",
    ":",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "'",
    '"',
    "|",
    ">",
    "&a",
    "*s",
    "!!",
    "#",
    "${",
    "}",
    "\0",
    "é",
    "9" * 30,
    "~",
    "---\n",
]


def check_problems(error):
    assert error.problems
    assert str(error) == "\n".join(str(problem) for problem in error.problems)
    for problem in error.problems:
        assert problem.message
        assert "Traceback" not in str(problem)
        assert "pydantic" not in str(problem).lower()


@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, len(GOOD)), st.integers(0, 5), st.sampled_from(PIECES) | st.text(max_size=3)
        ),
        max_size=4,
    )
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_edited_file(write, edits):
    text = GOOD
    for place, length, piece in edits:
        text = text[:place] + piece + text[place + length :]
    name = write(os.fsencode(text.encode("utf-8", "replace").decode()))
    lines = len(re.findall(r"\r\n|\r|\n", text))
    try:
        config = load(name)
    except ConfigurationError as error:
        check_problems(error)
        for problem in error.problems:
            assert problem.line is None or 1 <= problem.line <= lines + 2
    else:
        assert config.sources
        assert config.backends
        assert repr(config)


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["file", "sqlite", "${X}", "a:b"])
    | st.just(len)
    | st.just(int),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "id", "path", "from", "to", "where", "x"]) | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(
    mapping=st.dictionaries(
        st.sampled_from(["name", "memory", "state", "sources", "processors", "storage", "pipelines", "x"]),
        JUNK,
        max_size=6,
    )
)
@settings(max_examples=400, deadline=None)
def test_any_mapping(mapping):
    try:
        from_mapping(mapping)
    except ConfigurationError as error:
        check_problems(error)
    else:
        assert mapping["sources"]
        assert mapping["storage"]
