"""Each mistake of a user: one clear message, an exit code that is not zero, and nothing that was stored is touched."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = """\
name: readings
sources:
  - {type: file, id: readings, path: in.ndjson}
processors: []
storage:
  - {type: sqlite, path: out.db}
"""


def collectors(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collectors", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in.ndjson").write_text('{"id": 1, "status": "ok"}\n{"id": 2, "status": "fail"}\n')
    (tmp_path / "p.yaml").write_text(GOOD)
    assert collectors(tmp_path, "run", "p.yaml").returncode == 0
    return tmp_path


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "out.db").read_bytes()).hexdigest()


def refused(folder: Path, pipeline: str, *words: str, code: int = 2) -> str:
    before = digest(folder)
    (folder / "bad.yaml").write_text(pipeline.replace("name: readings", "name: bad"))
    done = collectors(folder, "run", "bad.yaml")
    said = done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said
    for word in words:
        assert word in said, said
    if code == 2:
        assert digest(folder) == before
    return said


def test_three_mistakes_are_all_shown(folder):
    pipeline = GOOD.replace("path: in.ndjson}", "pth: in.ndjson}").replace("processors: []", "procesors: []")
    pipeline = pipeline.replace("type: sqlite,", "type: sqlight,")
    said = refused(folder, pipeline, "bad.yaml:3:", "bad.yaml:4:1", "bad.yaml:6:", "'sqlite'", "processors")
    assert "path" in said


def test_unknown_type(folder):
    refused(folder, GOOD.replace("type: file", "type: fiel"), "bad.yaml:3:", "'fiel'", "did you mean 'file'?")


def test_missing_extra(folder):
    (folder / "needy.py").write_text("import a_driver_that_is_not_there\n")
    refused(
        folder, GOOD.replace("type: file", "type: 'needy:Needy'"), "a_driver_that_is_not_there", "pip install"
    )


def test_missing_file(folder):
    refused(folder, GOOD.replace("in.ndjson", "inn.ndjson"), "inn.ndjson", "in.ndjson", "bad.yaml:3")


def test_unreadable_file(folder):
    (folder / "in.ndjson").unlink()
    (folder / "in.ndjson").mkdir()
    refused(folder, GOOD, "in.ndjson")


def test_wrong_signature(folder):
    (folder / "mine.py").write_text("def clean(record, extra):\n    return record\n")
    pipeline = GOOD.replace("processors: []", "processors: [{type: python, function: 'mine:clean'}]")
    refused(folder, pipeline, "bad.yaml:4:", "clean", "def ")


def test_sql_syntax_error_at_its_column(folder):
    pipeline = GOOD.replace("processors: []", 'processors: [{type: filter, where: "status <> and id > 1"}]')
    column = pipeline.splitlines()[3].index("and id") + 1
    said = refused(folder, pipeline, "bad.yaml:4:")
    reported = int(said.split("bad.yaml:4:")[1].split(" ")[0].rstrip(":"))
    assert column - 4 <= reported <= column + 3


def test_sql_on_a_column_that_is_not_there(folder):
    pipeline = GOOD.replace("processors: []", "processors: [{type: filter, where: \"stauts = 'ok'\"}]")
    before = digest(folder)
    (folder / "bad.yaml").write_text(
        pipeline.replace("name: readings", "name: bad").replace("out.db", "new.db")
    )
    done = collectors(folder, "run", "bad.yaml")
    assert done.returncode == 2
    assert "stauts" in done.stderr
    assert "did you mean 'status'" in done.stderr
    assert "Traceback" not in done.stderr
    assert digest(folder) == before


def test_not_a_database(folder):
    (folder / "notes.txt").write_text("these are my notes, please do not lose them\n" * 50)
    refused(folder, GOOD.replace("out.db", "notes.txt"), "not a SQLite database", "notes.txt")
    assert (folder / "notes.txt").read_text().startswith("these are my notes")


def test_binary_as_ndjson_is_in_the_dead_letters(folder):
    (folder / "in.ndjson").write_bytes(bytes(range(256)) * 40 + b'\n{"id": 3, "status": "ok"}\n')
    (folder / "bad.yaml").write_text(GOOD.replace("name: readings", "name: bad"))
    done = collectors(folder, "run", "bad.yaml")
    assert done.returncode == 0
    assert "set aside" in done.stderr
    assert "dead-letters list" in done.stderr
    listed = collectors(folder, "dead-letters", "list", "bad.yaml", "--reasons")
    assert "UTF-8" in listed.stdout or "JSON" in listed.stdout


def test_a_key_that_the_storage_cannot_have_costs_its_record(folder):
    """Any sender could stop the source otherwise."""
    lines = ['{"id": 1}', '{"id": 2, "ID": 2}', '{"id": 3, "_collectors_row": 7}', '{"id": 4}']
    (folder / "in.ndjson").write_text("\n".join(lines) + "\n")
    (folder / "bad.yaml").write_text(GOOD.replace("name: readings", "name: bad").replace("out.db", "new.db"))
    done = collectors(folder, "run", "bad.yaml")
    assert done.returncode == 0, done.stderr
    assert "read 4 = stored 2 + filtered 0 + set aside 2" in done.stderr
    shown = collectors(folder, "dead-letters", "show", "bad.yaml", "readings:1:store sqlite:1")
    assert shown.returncode == 0, shown.stderr
    assert "'id' differs only in upper and lower case" in shown.stdout
    listed = collectors(folder, "dead-letters", "list", "bad.yaml", "--step", "sqlite", "--json")
    assert len(listed.stdout.splitlines()) == 2


def test_a_file_without_a_record(folder):
    (folder / "in.ndjson").write_text("")
    done = collectors(folder, "check", "p.yaml")
    assert "there is no record; the source is reachable" in done.stdout


def test_what_a_record_holds_does_nothing_to_the_terminal(folder):
    (folder / "in.ndjson").write_text('{"id": "\\u001b[2J\\u202e"}\n{"id": \x1b]0;title\x07\n')
    (folder / "bad.yaml").write_text(GOOD.replace("name: readings", "name: bad").replace("out.db", "new.db"))
    for command in (
        ["run"],
        ["query"],
        ["check"],
        ["dead-letters", "list"],
        ["dead-letters", "list", "--reasons"],
    ):
        done = collectors(folder, *command[:2], "bad.yaml", *command[2:])
        assert done.returncode == 0, done.stderr
        assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout + done.stderr), command
    assert "\ufffd" in collectors(folder, "query", "bad.yaml").stdout


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, full but for a little."""
    disk = tmp_path / "disk"
    disk.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform != "linux" or libc.mount(b"tmpfs", str(disk).encode(), b"tmpfs", 0, b"size=1m") != 0:
        pytest.skip("a small file system can only be mounted by root on Linux")
    yield disk
    libc.umount2(str(disk).encode(), 2)


def test_full_disk(folder, small_disk):
    pipeline = GOOD.replace("out.db", str(small_disk / "out.db")).replace("in.ndjson", "big.ndjson")
    (folder / "big.ndjson").write_text('{"id": 1, "text": "%s"}\n' % ("x" * 1000) * 3000)
    (folder / "bad.yaml").write_text(pipeline.replace("name: readings", "name: bad"))
    done = collectors(folder, "run", "bad.yaml", "--give-up-after", "1s")
    assert done.returncode == 1
    assert "full" in done.stderr
    assert str(small_disk) in done.stderr
    assert "Traceback" not in done.stderr
