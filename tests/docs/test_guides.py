"""The code in README and guides works: Python blocks run, in order for each file; pipelines load."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from collectors.config.load import load

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("guide/*.md")),
]
PAGES = [page for page in PAGES if page.exists()]
_BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(text, language):
    """Return the code of a language, each block at the lines it has in the page."""
    return [
        "\n" * text.count("\n", 0, match.start(2)) + match[2]
        for match in _BLOCK.finditer(text)
        if match[1] == language
    ]


def script(text):
    """Return all Python blocks of a page as one program with the page's own line numbers."""
    lines = [""] * (text.count("\n") + 1)
    for block in blocks(text, "python"):
        for number, line in enumerate(block.split("\n")):
            lines[number] = line or lines[number]
    return "\n".join(lines)


def run(page, folder):
    program = folder / f"{page.name}.py"
    program.write_text(script(page.read_text(encoding="utf-8")), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-X", "dev", program.name],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def pipelines(page):
    found = blocks(page.read_text(encoding="utf-8"), "yaml")
    return [block for block in found if "sources" in (yaml.safe_load(block) or {})]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, tmp_path):
    done = run(page, tmp_path)
    assert done.returncode == 0, done.stderr


def write_modules(page, folder):
    """Write the Python blocks whose first line is the name of a file."""
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        found = re.match(r"# (\w+\.py)\n", block.lstrip("\n"))
        if found:
            (folder / found[1]).write_text(block, encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pipelines_load(page, tmp_path):
    write_modules(page, tmp_path)
    for number, block in enumerate(pipelines(page)):
        path = tmp_path / f"block-{number}.yaml"
        path.write_text(block, encoding="utf-8")
        load(path)


def test_a_reader_can_run_the_readme_in_order(tmp_path):
    """Its YAML as the file of its first line, then the commands below it, then the Python, all in one folder."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in blocks(text, "yaml"):
        name = block.lstrip().split("\n", 1)[0].removeprefix("# ")
        (tmp_path / name).write_text(block, encoding="utf-8")
    here = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in (["sh", "-ec", "\n".join(blocks(text, "sh"))], [sys.executable, "-c", script(text)]):
        done = subprocess.run(
            command, cwd=tmp_path, env=here, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
    asked = subprocess.run(
        [sys.executable, "-m", "collectors", "query", "readings.yaml", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert len(asked.stdout.splitlines()) == 8, asked.stderr


def test_the_pipelines_of_polled_sources_run(tmp_path):
    page = ROOT / "docs/guide/polling.md"
    write_modules(page, tmp_path)
    for block in pipelines(page):
        (tmp_path / "p.yaml").write_text(block, encoding="utf-8")
        run = [sys.executable, "-m", "collectors", "run", "p.yaml", "--for", "1s", "--quiet"]
        ask = [sys.executable, "-m", "collectors", "query", "p.yaml", "--json"]
        for command in (run, ask):
            done = subprocess.run(
                command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) >= 3


def test_a_block_that_fails_is_found_with_its_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# x\n\n```python\na = 1\n```\n\ntext\n\n```python\nassert a == 2\n```\n")
    done = run(page, tmp_path)
    assert done.returncode != 0
    assert "line 10" in done.stderr


def test_a_pipeline_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```yaml\nsources: []\n```\n\n```yaml\nother: 1\n```\n\n```console\nsources: x\n```\n")
    assert len(pipelines(page)) == 1
