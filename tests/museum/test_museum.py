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


@pytest.fixture(scope="module")
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


def reports_of(warm, mutant, test):
    warm.stdin.write(json.dumps([mutant and mutant.name, test]) + "\n")
    warm.stdin.flush()
    reports = json.loads(warm.stdout.readline())
    assert reports, "the process that ran the test died"
    return reports


def see_it_caught(warm, mutant):
    reports = reports_of(warm, mutant, mutant.caught_by)
    if {report["outcome"] for report in reports} == {"skipped"}:
        pytest.skip(reports[0]["text"])
    failed = [report for report in reports if report["outcome"] == "failed"]
    assert failed, f"{mutant.caught_by} does not notice: {mutant.bug}\n{reports[0]['text']}"
    assert {report["when"] for report in failed} == {"call"}, failed[0]["text"]
    assert any(mutant.because in report["text"] for report in failed), failed[0]["text"]


SOME = [
    name if number % 4 == 0 else pytest.param(name, marks=pytest.mark.slow)
    for number, name in enumerate(catalogue.MUTANTS)
]


@pytest.mark.parametrize("name", SOME)
def test_the_mutant_is_caught(name, warm):
    see_it_caught(warm, catalogue.MUTANTS[name])


@pytest.mark.timeout(1800)
def test_the_same_tests_pass_without_a_mutant(warm, full, figure):
    """In the quick size for one of them, since the suite runs the others."""
    tests = sorted({mutant.caught_by for mutant in catalogue.MUTANTS.values()})
    for test in tests if full else ["tests/runtime/test_side_by_side.py"]:
        reports = reports_of(warm, None, test)
        assert {report["outcome"] for report in reports} == {"passed"}, reports
    if full:
        for mutant in catalogue.MUTANTS.values():
            see_it_caught(warm, mutant)
    figure("mutants", mutants=len(catalogue.MUTANTS), caught=len(catalogue.MUTANTS), by_tests=len(tests))


def test_there_are_enough_of_them_and_each_has_its_peer():
    assert len(catalogue.MUTANTS) >= 24
    assert all(mutant.link.startswith("https://") for mutant in catalogue.MUTANTS.values())


def test_a_mutant_that_no_longer_fits_the_source_is_an_error():
    patch = catalogue.patching.Patch("runtime.budget:Budget.fits", "no such text\n", "")
    mutant = catalogue.patching.mutant("x", "", "", "", "", "", patch)
    with pytest.raises(AssertionError, match="does not have this text exactly once"):
        catalogue.patching.apply(mutant)
