"""The JSON Schema agrees with the loader."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from collectors import registry
from collectors.cli.new import TEMPLATES
from collectors.config.load import load
from collectors.config.schema import json_schema
from collectors.errors import ConfigurationError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


GOOD = [
    "sources: [{type: file, path: x.ndjson}]\nstorage: [{type: sqlite, path: x}]\n",
    "name: x\nmemory: 1 GB\nsources: [{type: file, path: [a, b], format: ndjson, follow: true}]\nstorage: [{type: sqlite, path: x}]\n",
    'memory: 1024\nsources: [{type: file, path: x.ndjson, follow: "${T:-true}"}]\nstorage: [{type: sqlite, path: x, lock_timeout: "${T:-1}"}]\n',
    "sources: [{type: file, path: x, format: {type: ndjson, columns: {a: int}}}]\nstorage: [{type: sqlite, path: x}]\n",
    "sources: [{type: file, path: x.ndjson}]\nstorage: [{type: sqlite, path: x}]\npipelines: {a: {from: file, to: [sqlite]}}\n",
    "sources: [{type: file, path: x.ndjson, every: 5s}]\nprocessors: []\nstorage: [{type: sqlite, id: y, path: x}]\npipelines: {a: {processors: []}}\n",
]
BAD = [
    "storage: [{type: sqlite, path: x}]\n",
    "sources: []\nstorage: [{type: sqlite, path: x}]\n",
    "sources: [{type: nope}]\nstorage: [{type: sqlite, path: x}]\n",
    "sources: [{path: x}]\nstorage: [{type: sqlite, path: x}]\n",
    "sources: [{type: file, path: x.ndjson, folow: true}]\nstorage: [{type: sqlite, path: x}]\n",
    "sources: [{type: file, path: x.ndjson, follow: 3}]\nstorage: [{type: sqlite, path: x}]\n",
    "sources: [{type: file, path: x.ndjson, start: middle}]\nstorage: [{type: sqlite, path: x}]\n",
    "sources: [{type: file, path: x.ndjson, format: {type: ndjson, colums: {}}}]\nstorage: [{type: sqlite, path: x}]\n",
    "sources: [{type: file, path: x.ndjson, format: ndjsn}]\nstorage: [{type: sqlite, path: x}]\n",
    "sources: [{type: file, path: x.ndjson}]\nstorage: [{type: sqlite, path: x}]\npipelines: {a: {form: x}}\n",
    "sources: [{type: file, path: x.ndjson}]\nstorage: [{type: sqlite, path: x}]\nbogus: 1\n",
]


@pytest.mark.parametrize("text", GOOD)
def test_both_accept(validator, write, text):
    load(write(text))
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


FILES = [*sorted((ROOT / "examples").glob("*.yaml")), *sorted(TEMPLATES.glob("*/pipeline.yaml"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_examples_and_templates_are_accepted(validator, file):
    text = file.read_text(encoding="utf-8")
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize("text", BAD)
def test_both_refuse(validator, write, text):
    with pytest.raises(ConfigurationError):
        load(write(text))
    assert not validator.is_valid(yaml.safe_load(text))


def test_every_component_is_in_it_with_documented_settings():
    definitions = json_schema()["$defs"]
    for kind in ("source", "processor", "backend", "codec"):
        for name in registry.names(kind):
            schema = definitions[f"{kind}.{name}"]
            assert schema["additionalProperties"] is False
            assert schema["description"]
            for setting, described in schema["properties"].items():
                assert described.get("description") or setting == "type", f"{kind} {name}.{setting}"


def test_component_whose_driver_is_missing(monkeypatch):
    """Its settings are not known here; a file that uses it must still be editable."""
    find = registry.find

    def find_all_but_sqlite(kind, name):
        if name == "sqlite":
            raise ConfigurationError("backend 'sqlite' needs 'driver': pip install 'driver'")
        return find(kind, name)

    monkeypatch.setattr(registry, "find", find_all_but_sqlite)
    schema = json_schema()
    assert "pip install" in schema["$defs"]["backend.sqlite"]["description"]
    file = {"sources": [{"type": "file", "path": "x"}], "storage": [{"type": "sqlite", "anything": 1}]}
    assert jsonschema.Draft202012Validator(schema).is_valid(file)
