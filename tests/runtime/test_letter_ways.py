"""A dead letter goes again by the route on which it was set aside."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from collectors.config.load import from_mapping
from collectors.runtime.letter_ways import way_of
from collectors.testing.deliveries import delivery


@pytest.mark.parametrize("route", ["", "main"])
def test_one_of_the_main_route_goes_by_it_under_either_name(tmp_path, route):
    """Beside others, the route was once told by its name, as any other."""
    steps = [{"type": "select", "columns": ["n"]}]
    config = from_mapping(
        {
            "sources": [{"type": "file", "id": "in", "path": "in.ndjson"}],
            "storage": [{"type": "memory", "id": "one"}, {"type": "memory", "id": "two"}],
            "pipelines": {
                "other": {"to": "two", "processors": steps},
                "main": {"to": "one", "processors": steps},
            },
        },
        folder=tmp_path,
    )
    letter = replace(delivery(1, 1).dead_letters[0], source="in", route=route, step="select")
    assert way_of(config, letter, from_start=False) == "main"
