"""Every component that there is has its contract test, its page, its example and its docstring."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest
import yaml

from collectors import registry
from collectors.cli._component_page import docstring_of, example_of
from collectors.config.load import from_mapping

ROOT = Path(__file__).parents[2]
CONTRACTS = {
    "source": "SourceContract",
    "processor": "ProcessorContract",
    "backend": "BackendContract",
    "codec": "CodecContract",
}
FOLDERS = {"source": "sources", "processor": "processors", "backend": "backends", "codec": "codecs"}
KEYS = {"source": "sources", "processor": "processors", "backend": "storage"}
PARTNERS = {
    "sources": {"type": "file", "id": "the-partner", "path": "x.ndjson"},
    "storage": {"type": "memory", "id": "the-partner"},
}


def built_in():
    return [
        (kind, entry.name)
        for kind in CONTRACTS
        for entry in registry.entries(kind)
        if entry.package == "collectors"
    ]


def contract_tests(folder):
    """Return (contract, component) of every test class that inherits a contract and says its component."""
    found = set()
    for path in folder.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                for item in node.body:
                    if isinstance(item, (ast.Assign, ast.AnnAssign)) and isinstance(item.value, ast.Constant):
                        targets = item.targets if isinstance(item, ast.Assign) else [item.target]
                        if ast.unparse(targets[0]) == "component":
                            found |= {(base, item.value.value) for base in bases}
    return found


def used_in(folder):
    """Return (kind, type) of everything that stands in the pipelines of a folder."""
    used = set()
    for path in folder.glob("*.yaml"):
        pipeline = yaml.safe_load(path.read_text(encoding="utf-8"))
        for kind, key in KEYS.items():
            used |= {(kind, item["type"]) for item in pipeline.get(key) or []}
        for item in pipeline.get("sources") or []:
            spec = item.get("format")
            used.add(("codec", spec["type"] if isinstance(spec, dict) else spec))
    return used


def docstring_faults(kind, docstring):
    """Return what the docstring of a component lacks of the house form."""
    lines = docstring.splitlines()
    if not lines:
        return ["no docstring"]
    faults = []
    if not lines[0].endswith(".") or len(lines[0]) > 120 or (len(lines) > 1 and lines[1]):
        faults.append("the first line is not a summary of one sentence, with an empty line behind it")
    if kind in {"source", "backend"} and not any(line.startswith("Delivery: ") for line in lines):
        faults.append("no line 'Delivery: …'")
    if kind in KEYS:
        faults += example_faults(kind, example_of(docstring))
    return faults


def example_faults(kind, example):
    if not example:
        return ["no YAML example"]
    try:
        written = yaml.safe_load(example)
        (item,) = written.values()
        items = item if isinstance(item, list) else [item]
        assert all(isinstance(each, dict) and each["type"] for each in items)
    except (yaml.YAMLError, AttributeError, ValueError, AssertionError, KeyError):
        return ["the YAML example is not `kind: {type: …, …}`"]
    mapping = {key: [partner] for key, partner in PARTNERS.items()} | {KEYS[kind]: items}
    try:
        from_mapping(mapping, folder=ROOT / "examples")
    except ValueError as error:
        return [f"the YAML example does not load: {error}"]
    return []


def faults(kind, name, docstring, *, contracts, pages, used):
    """Return everything that a component lacks."""
    found = docstring_faults(kind, docstring)
    if (CONTRACTS[kind], name) not in contracts:
        found.append(f"no test class of {CONTRACTS[kind]} with component = '{name}'")
    if not (pages / FOLDERS[kind] / f"{name}.md").exists():
        found.append("no page in docs/reference; run: python docs/generate.py")
    if (kind, name) not in used:
        found.append("in no file of examples/")
    return found


@pytest.fixture(scope="module")
def fleet():
    return {
        "contracts": contract_tests(ROOT / "tests"),
        "pages": ROOT / "docs" / "reference",
        "used": used_in(ROOT / "examples"),
    }


def test_there_are_components():
    assert {kind for kind, _ in built_in()} == set(CONTRACTS)


@pytest.mark.parametrize(("kind", "name"), built_in())
def test_component_is_complete(fleet, monkeypatch, tmp_path, kind, name):
    # Functions that docstrings name: of this module beside the pipeline, or, written out there, of my_functions.
    (tmp_path / "my_functions.py").write_text("def __getattr__(name):\n    return lambda value: value\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "my_functions", raising=False)
    found = faults(kind, name, docstring_of(registry.find(kind, name)), **fleet)
    sys.modules.pop("my_functions", None)
    assert found == []


@pytest.mark.parametrize(("kind", "name"), built_in())
def test_one_name_in_all_places(kind, name):
    """The file has the type's name and ends with COMPONENT."""
    module = importlib.import_module(registry.find(kind, name).__module__)
    assert module.COMPONENT is registry.find(kind, name)
    assert Path(module.__file__).stem == name or Path(module.__file__).parent.name == name


def test_a_component_that_lacks_everything_is_found(tmp_path):
    (tmp_path / "sources").mkdir()
    found = faults("source", "farm", "a farm", contracts=set(), pages=tmp_path, used=set())
    assert len(found) == 6


GOOD = """A farm.

    source:
      type: file
      path: x.ndjson

Delivery: at least once.
"""


def test_a_complete_component_has_no_faults(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_farm.py").write_text(
        "class TestFarm(kit.SourceContract):\n    component = 'farm'\n"
    )
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "farm.md").write_text("")
    (tmp_path / "farm.yaml").write_text("sources: [{type: farm, format: csv}]\nstorage: [{type: sqlite}]\n")
    used = used_in(tmp_path)
    assert used == {("source", "farm"), ("codec", "csv"), ("backend", "sqlite")}
    assert contract_tests(tmp_path) == {("SourceContract", "farm")}
    assert faults("source", "farm", GOOD, contracts=contract_tests(tmp_path), pages=tmp_path, used=used) == []


@pytest.mark.parametrize(
    ("docstring", "fault"),
    [
        (GOOD.replace("A farm.", "A farm"), "summary"),
        (GOOD.replace("A farm.\n", "A farm.\nMore"), "summary"),
        (GOOD.replace("Delivery", "Promise"), "Delivery"),
        (GOOD.replace("path", "pth"), "does not load"),
        (GOOD.replace("type", "typ"), "is not `kind:"),
        (GOOD.replace("    source:\n      type: file\n      path: x.ndjson\n", ""), "no YAML example"),
        ("", "no docstring"),
    ],
)
def test_faults_of_a_docstring_are_found(docstring, fault):
    assert [found for found in docstring_faults("source", docstring) if fault in found]
    assert docstring_faults("source", GOOD) == []


def test_tests_without_a_contract_do_not_count(tmp_path):
    (tmp_path / "test_x.py").write_text(
        "class TestX:\n    component = 'x'\n\nclass TestY(SourceContract):\n    other = 'y'\n"
    )
    assert contract_tests(tmp_path) == set()
