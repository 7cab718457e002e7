"""`collectors.run`: nobody who calls it overlooks that something failed."""

from __future__ import annotations

import pickle

import pytest

import collectors
from collectors.errors import ConfigurationError, FatalError
from collectors.runtime.ledger import RunReport

MEMORY = [{"type": "memory"}]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def meter():
    yield from ({"n": n} for n in range(50))
    raise ValueError("the meter is gone")


def test_a_source_that_fails_raises_with_the_report():
    def fine():
        yield {"n": 1}

    with pytest.raises(collectors.RunFailedError) as caught:
        collectors.run(
            name="two",
            sources=[
                {"type": "python", "id": "meter", "function": meter},
                {"type": "python", "id": "fine", "function": fine},
            ],
            storage=MEMORY,
        )
    text = str(caught.value)
    assert "the pipeline 'two' failed: meter: function 'meter' failed: ValueError: the meter is gone" in text
    assert "test_run_from_python.py:" in text
    assert "stored by this run: 51 in memory" in text
    report = caught.value.report
    assert isinstance(report, RunReport)
    assert report.balanced
    assert [flow.source for flow in report.failed] == ["meter"]
    assert isinstance(caught.value.__cause__, FatalError)


def test_a_record_that_is_unaccounted_for_raises(monkeypatch):
    monkeypatch.setattr(RunReport, "imbalances", lambda _: ["meter → memory: 1 of 50 records is nowhere"])
    with pytest.raises(collectors.RunFailedError, match="is not balanced: meter → memory: 1 of 50"):
        collectors.run(name="one", sources=[lambda: [{"n": 1}]], storage=MEMORY)


def test_the_error_crosses_processes():
    with pytest.raises(collectors.RunFailedError) as caught:
        collectors.run(name="one", sources=[meter], storage=MEMORY)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.report.totals() == caught.value.report.totals()


def test_a_run_without_failure_returns_its_report():
    report = collectors.run(name="one", sources=[lambda: [{"n": 1}]], storage=MEMORY)
    assert (report.status, report.totals()["memory"].stored) == ("done", 1)


@pytest.mark.parametrize("key", ["sources", "processors", "storage"])
@pytest.mark.parametrize("value", [meter, {"type": "memory"}, "memory"])
def test_one_thing_in_place_of_a_list(key, value):
    parts = {"sources": [meter], "processors": [], "storage": MEMORY, key: value}
    with pytest.raises(ConfigurationError, match=rf"{key}.*: expected a list; .* put it in \[ \]"):
        collectors.run(name="one", **parts)
