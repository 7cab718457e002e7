"""The compiled reader of JSON under AddressSanitizer and UndefinedBehaviorSanitizer, on damaged texts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import collectors

SOURCE = Path(collectors.__file__).parent / "codecs/_native/json_lines.c"


def test_damaged_texts_touch_no_memory_of_others(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc to build it with sanitizers")
    library = tmp_path / "json_lines.so"
    flags = ["-O1", "-g", "-std=c11", "-shared", "-fPIC", "-fsanitize=address,undefined"]
    built = subprocess.run(
        ["gcc", *flags, "-o", library, SOURCE], capture_output=True, text=True, check=False
    )
    if built.returncode != 0 and "asan" in built.stderr:
        pytest.skip("gcc has no AddressSanitizer here")
    assert built.returncode == 0, built.stderr
    sanitizers = [
        subprocess.check_output(["gcc", f"-print-file-name=lib{name}.so"], text=True).strip()
        for name in ("asan", "ubsan")
    ]
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "_sanitized.py", library, "5", "1"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LD_PRELOAD": " ".join(sanitizers), "ASAN_OPTIONS": "detect_leaks=0"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert int(done.stdout) > 100
