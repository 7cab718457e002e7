"""The bug museum: bugs that other collectors really had, each put into our code, each caught by a named test.

What is tested here is the tests: they pass on the code as it is (the rest of the suite shows it), and have to fail, for
the right reason, on each mutant. docs/reliability.md has the table.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("museum_catalogue", HERE / "_catalogue.py")
catalogue = importlib.util.module_from_spec(spec)
spec.loader.exec_module(catalogue)


@pytest.fixture(scope="session")
def warm(tmp_path_factory):
    """A process that has imported everything and forks for each mutant."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(HERE / "_warm.py"), str(tmp_path_factory.mktemp("museum"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.stdin.close()
    process.stdout.close()
    process.wait(10)


@pytest.mark.parametrize("name", catalogue.MUTANTS)
def test_the_mutant_is_caught(name, warm):
    mutant = catalogue.MUTANTS[name]
    warm.stdin.write(f"{name}\n")
    warm.stdin.flush()
    reports = json.loads(warm.stdout.readline())
    assert reports, "the process that ran the test died"
    failed = [report for report in reports if report["outcome"] == "failed"]
    assert failed, f"{mutant.caught_by} does not notice: {mutant.bug}\n{reports[0]['text']}"
    assert {report["when"] for report in failed} == {"call"}, failed[0]["text"]
    assert any(mutant.because in report["text"] for report in failed), failed[0]["text"]


def test_there_are_enough_of_them_and_each_has_its_peer():
    assert len(catalogue.MUTANTS) >= 24
    assert all(mutant.link.startswith("https://") for mutant in catalogue.MUTANTS.values())


def test_a_mutant_that_no_longer_fits_the_source_is_an_error():
    patch = catalogue.patching.Patch("runtime.budget:Budget.fits", "no such text\n", "")
    mutant = catalogue.patching.mutant("x", "", "", "", "", "", patch)
    with pytest.raises(AssertionError, match="does not have this text exactly once"):
        catalogue.patching.apply(mutant)


def test_a_harmless_mutant_is_not_caught(warm, monkeypatch):
    """The museum itself can fail: where nothing is broken, no test fails."""
    warm.stdin.write("nothing\n")
    warm.stdin.flush()
    (report,) = json.loads(warm.stdout.readline())
    assert report["outcome"] == "passed"
