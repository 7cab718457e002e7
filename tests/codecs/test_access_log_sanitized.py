"""The compiled reader of access logs under AddressSanitizer and UndefinedBehaviorSanitizer, on damaged lines."""

from __future__ import annotations

from pathlib import Path

import collectors

SOURCE = Path(collectors.__file__).parent / "codecs/_native/access_log.c"


def test_damaged_lines_touch_no_memory_of_others(sanitized):
    assert int(sanitized(SOURCE, Path(__file__).parent / "_sanitized_log.py", "5", "1")) > 100
