"""What a changed pipeline file makes of its flows."""

from __future__ import annotations

import pytest

from collectors.config.load import from_mapping
from collectors.runtime.reload import compare


@pytest.mark.parametrize(("key", "value"), [("latency", "low"), ("spool", "1 GiB")])
def test_what_a_flow_is_made_with_starts_it_anew(tmp_path, key, value):
    parts = {"sources": [{"type": "stdin"}], "storage": [{"type": "sqlite", "path": "out.db"}]}
    old, new = (from_mapping(parts | more, folder=tmp_path, name="test") for more in ({}, {key: value}))
    changes = compare(old, new)
    assert changes.start == changes.stop == {"stdin"}
    assert not changes.needs_restart
    assert not compare(old, old).start
