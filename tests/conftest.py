"""What all tests share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from contextlib import ExitStack
from pathlib import Path

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


@pytest.fixture(scope="session")
def kafka_server():
    """A server of this session that speaks Kafka; skips where there is none to start."""
    from collectors.testing.kafka_server import KafkaServer, ServerUnavailableError

    with ExitStack() as stack:
        try:
            server = stack.enter_context(KafkaServer())
        except ServerUnavailableError as error:
            pytest.skip(f"needs a server that speaks Kafka: {error}")
        yield server


@pytest.fixture(scope="session")
def mariadb_server():
    """A MariaDB server of this session; skips where there is none to start."""
    from collectors.testing.mariadb_server import MariaDbServer, ServerUnavailableError

    with ExitStack() as stack:
        try:
            server = stack.enter_context(MariaDbServer())
        except (ServerUnavailableError, ImportError) as error:
            pytest.skip(f"needs a MariaDB server: {error}")
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


@pytest.fixture
def sanitized(tmp_path):
    """Return what builds C with sanitizers, runs a script with the library as its first argument, and returns its output."""

    def run(source: Path, script: Path, *arguments: str) -> str:
        if shutil.which("gcc") is None:
            pytest.skip("there is no gcc to build it with sanitizers")
        library = tmp_path / f"{source.stem}.so"
        flags = ["-O1", "-g", "-std=c11", "-shared", "-fPIC", "-fsanitize=address,undefined"]
        command = ["gcc", *flags, f"-I{sysconfig.get_path('include')}", "-o", library, source]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode != 0 and ("asan" in built.stderr or "Python.h" in built.stderr):
            pytest.skip("gcc has no AddressSanitizer here, or there is no Python.h")
        assert built.returncode == 0, built.stderr
        preload = " ".join(
            subprocess.check_output(["gcc", f"-print-file-name=lib{name}.so"], text=True).strip()
            for name in ("asan", "ubsan")
        )
        done = subprocess.run(
            [sys.executable, script, library, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ
            | {"LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    return run
