"""chaos finds what is wrong with a broken build, says which rows, and how to see it again."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)

PIPELINE = """
name: readings
sources:
  - {source}
processors:
  - {{type: filter, where: "id % 10 <> 0"}}
storage:
  - {{type: sqlite, path: out.db, table: readings}}
"""
FILE = "{type: file, id: readings, path: in.ndjson}"
STDIN = "{type: stdin, id: readings}"


@pytest.fixture
def pipeline(tmp_path):
    lines = ["{broken" if n == 77 else json.dumps({"id": n, "note": "x" * (n % 40)}) for n in range(200)]
    (tmp_path / "in.ndjson").write_text("\n".join(lines) + "\n")

    def write(source):
        (tmp_path / "p.yaml").write_text(PIPELINE.format(source=source))
        return tmp_path / "p.yaml"

    return write


def chaos(mistake, pipeline, *options):
    return subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("_broken.py")),
            mistake,
            "p.yaml",
            "--seed",
            "7",
            *options,
        ],
        cwd=pipeline.parent,
        input=(pipeline.parent / "in.ndjson").read_text(),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def total(told, what):
    return sum(store[what] for store in told["storage"].values())


@pytest.mark.parametrize(
    ("mistake", "source", "found"),
    [
        ("checkpoint_before_rows", FILE, "lost"),
        ("blind_retry", FILE, "duplicated"),
        ("rows_again_on_resume", FILE, "duplicated"),
        ("acknowledged_before_durable", STDIN, "lost"),
    ],
)
def test_a_mistake_is_found(pipeline, mistake, source, found):
    done = chaos(mistake, pipeline(source), "--kills", "50", "--json")
    assert done.returncode == 1, done.stderr + done.stdout
    told = json.loads(done.stdout)
    assert not told["held"]
    assert total(told, found) > 0
    assert any(
        re.search(r": [\d,]+ (lost|doubled)$", line) for each in told["broken"] for line in each["what"]
    )


def test_a_mistake_is_found_without_any_kill(pipeline):
    done = chaos("letters_forgotten", pipeline(FILE), "--kills", "20", "--json")
    assert done.returncode == 1, done.stderr + done.stdout
    assert (
        "1 records were set aside, 0 dead letters are kept" in json.loads(done.stdout)["broken"][0]["what"][0]
    )


@pytest.mark.parametrize("source", [FILE, STDIN])
def test_without_a_mistake_nothing_is_found(pipeline, source):
    done = chaos("nothing", pipeline(source), "--kills", "15", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    told = json.loads(done.stdout)
    assert told["kills"] >= 15
    assert total(told, "lost") == total(told, "duplicated") == total(told, "unexplained") == 0


def test_a_failure_can_be_seen_again(pipeline):
    file = pipeline(FILE)
    (file.parent / "in.ndjson").write_text("".join(f'{{"id": {n}}}\n' for n in range(200)))
    done = chaos("position_in_a_second_file", file, "--kills", "60")
    assert done.returncode == 1
    assert "a promise was broken" in done.stdout
    assert '{"id":' in done.stdout, "the rows are shown"
    again = re.findall(r"again: collectors chaos (.* --at .*)", done.stdout)
    for line in again[:3]:
        if chaos("position_in_a_second_file", file, *shlex.split(line)[1:]).returncode == 1:
            return
    pytest.fail(f"none of these fails again: {again}")
