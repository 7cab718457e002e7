"""What is compiled for rows, under AddressSanitizer and UndefinedBehaviorSanitizer, on rows of any kind."""

from __future__ import annotations

from pathlib import Path

import pytest

import collectors

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", ["rows", "json_rows"])
def test_rows_touch_no_memory_of_others(sanitized, name):
    source = Path(collectors.__file__).parent / f"_native/{name}.c"
    assert int(sanitized(source, HERE / "_sanitized_rows.py", "5", "1")) > 100
