"""Run as a script by test_museum.py: for each line on stdin, [mutant or null, test], runs the test in a fork.

Answers with one line of JSON each: the outcomes of the calls of that test, and their reports.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import _catalogue
import hypothesis
import pyarrow.dataset
import pyarrow.parquet  # noqa: F401
import pytest

from collectors import registry
from collectors.runtime import engine  # noqa: F401
from collectors.testing import backend_contract, source_contract  # noqa: F401

ROOT = Path(__file__).parents[2]
SITE = Path(__file__).with_name("site")


class Watcher:
    """Keeps what became of the tests."""

    def __init__(self) -> None:
        self.reports: list[dict[str, str]] = []

    def pytest_runtest_logreport(self, report) -> None:
        if report.when == "call" or not report.passed:
            self.reports.append(
                {
                    "test": report.nodeid,
                    "when": report.when,
                    "outcome": report.outcome,
                    "text": str(report.longrepr or ""),
                }
            )


def run(name: str | None, test: str, scratch: str) -> list[dict[str, str]]:
    if name is not None:
        os.environ["COLLECTORS_MUTANT"] = name
        os.environ["PYTHONPATH"] = f"{SITE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        _catalogue.patching.apply(_catalogue.MUTANTS[name])
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = scratch
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # which complains of what is imported already
    os.environ.pop("PYTEST_XDIST_WORKER", None)
    watcher = Watcher()
    plugins = ["no:cacheprovider", "pytest_timeout", "_hypothesis_pytestplugin"]
    options = ["-q", f"--basetemp={scratch}/{name}", *(f"-p{plugin}" for plugin in plugins)]
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        pytest.main([*options, str(ROOT / test)], plugins=[watcher])
    return watcher.reports or [{"test": "", "when": "collect", "outcome": "none", "text": told.getvalue()}]


def main(scratch: str) -> None:
    os.chdir(ROOT)
    found = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # that it fails is enough: no shrinking
    hypothesis.settings.register_profile("museum", phases=found)
    hypothesis.settings.load_profile("museum")
    for kind in ("source", "backend", "codec"):
        for entry in registry.entries(kind):
            with contextlib.suppress(Exception):  # an extra that is not installed
                registry.find(kind, entry.name)
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                reports = run(*json.loads(line), scratch)
            except BaseException:
                reports = [{"when": "mutation", "outcome": "failed", "text": traceback.format_exc()}]
            with os.fdopen(writing, "w") as answer:
                json.dump(reports, answer)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answer:
            sys.stdout.write((answer.read() or "[]") + "\n")
        sys.stdout.flush()
        os.waitpid(child, 0)


main(sys.argv[1])
