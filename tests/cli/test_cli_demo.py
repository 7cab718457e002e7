"""`demo`: its advice can be copied, and a folder that cannot be written is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from collectors.cli import _program
from collectors.cli import main as cli


def test_the_advice_is_one_command_a_line_and_can_be_run(tmp_path):
    folder = (
        tmp_path / "a folder with a name that is much longer than a line of eighty columns could ever hold"
    )
    done = subprocess.run(
        [sys.executable, "-m", "collectors", "demo", "--for", "0.5s", "--folder", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr
    advice = done.stdout.partition("Next:")[2].strip().splitlines()
    program = f"{sys.executable} -m collectors"
    file = folder / "demo.yaml"
    assert [line.strip() for line in advice] == [
        f"{program} query '{file}'",
        f"{program} run '{file}'",
        f"{program} new",
    ]


@pytest.mark.parametrize(
    ("started", "on_path", "said"),
    [
        ("collectors", True, "collectors"),
        (".venv/bin/collectors", False, ".venv/bin/collectors"),
        ("my venv/collectors", False, "'my venv/collectors'"),
        ("anything/pytest", False, "collectors"),
    ],
)
def test_the_program_as_it_was_started(tmp_path, monkeypatch, started, on_path, said):
    path = tmp_path / started
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [started])
    monkeypatch.setenv("PATH", str(tmp_path) if on_path else "")
    assert _program.program() == said


def test_a_folder_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo", "--folder", str(tmp_path / "demo")])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert "demo/demo.yaml: cannot be written: Permission denied; choose a folder" in err
    assert "--folder" in err
