"""The compiled reader of JSON under AddressSanitizer and UndefinedBehaviorSanitizer, on damaged texts."""

from __future__ import annotations

from pathlib import Path

import collectors

SOURCE = Path(collectors.__file__).parent / "codecs/_native/json_lines.c"


def test_damaged_texts_touch_no_memory_of_others(sanitized):
    assert int(sanitized(SOURCE, Path(__file__).parent / "_sanitized.py", "5", "1")) > 100
