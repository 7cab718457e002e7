"""The shim, compiled once a session, and the fork server that runs pipelines under it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from _stack import Lives, scratch


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler to build tests/faults/_shim.c (Debian: apt install gcc libc6-dev)")
    built = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("_shim.c")
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", str(built), str(source), "-ldl", "-lpthread"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(
            f"{source.name} needs Linux and its C headers (Debian: apt install libc6-dev): {done.stderr}"
        )
    return built


@pytest.fixture(scope="module")
def lives(shim):
    server = Lives(shim)
    yield server
    server.close()


@pytest.fixture
def memory():
    """A scratch folder in memory."""
    folder = scratch()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
