"""What all tests share."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest
import record


def pytest_addoption(parser):
    parser.addoption(
        "--full",
        action="store_true",
        help="fault tests in their full size; appends figures to benchmarks/results",
    )


FIRST = (
    "test_long_runs",
    "test_kills",
    "test_simulation",
    "test_two_processes",
    "test_duckdb_log",
    "test_museum",
)
"""Files whose tests take longest: begun last, they would be waited for."""


def pytest_collection_modifyitems(items):
    """Begin with what takes longest."""
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


@pytest.fixture
def full(request):
    """Whether fault tests run in their full size (`--full`) or in the quick one of `make test`."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
def figure(full):
    """Return what prints a measured figure and, with `--full`, appends it to `benchmarks/results/reliability.jsonl`."""

    def record_figure(name: str, **values):
        line = {"figure": name, **record.circumstances(), **values}
        print(json.dumps(line))
        if full:
            record.append("reliability.jsonl", line)

    return record_figure


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL server of this session; skips where there is none to start."""
    from collectors.testing.postgres_server import PostgresServer, ServerUnavailableError

    with ExitStack() as stack:
        try:
            server = stack.enter_context(PostgresServer())
        except (ServerUnavailableError, ImportError) as error:
            pytest.skip(f"needs a PostgreSQL server: {error}")
        yield server


def _sendable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Write lone surrogates as escapes: what tests of hostile text log or show must reach xdist's controller."""
    report = yield
    report.sections = [(title, _sendable(text)) for title, text in report.sections]
    if report.longrepr is not None and not isinstance(report.longrepr, tuple):
        text = str(report.longrepr)
        if text != _sendable(text):
            report.longrepr = _sendable(text)
    return report
