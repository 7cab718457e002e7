"""`list`, `describe` and `schema`: what there is and how it is set."""

from __future__ import annotations

import json

import jsonschema
import pytest

from collectors import registry


def test_list(call):
    code, out, _ = call("list")
    assert code == 0
    for kind in ("source", "processor", "backend", "codec"):
        for name in registry.names(kind):
            assert any(line.split()[:2] == [kind, name] for line in out.splitlines()), name


def test_list_of_a_kind_as_json(call):
    _, out, _ = call("list", "--kind", "backend", "--json")
    found = json.loads(out)
    assert {entry["kind"] for entry in found} == {"backend"}
    assert [entry["name"] for entry in found] == registry.names("backend")
    assert all(entry["summary"] for entry in found)


def test_list_shows_what_to_install(call, monkeypatch):
    entry = registry.Entry("source", "farm", "A farm.", "farm", "collectors")
    monkeypatch.setattr(registry, "entries", lambda kind: [entry] if kind == "source" else [])
    monkeypatch.setenv("COLUMNS", "120")
    assert "pip install 'collectors-io[farm]'" in call("list")[1]


def test_describe(call):
    code, out, _ = call("describe", "sqlite")
    assert code == 0
    assert "# sqlite (backend)" in out
    assert "| `path` | path | required |" in out
    assert "**Delivery:**" in out


def test_describe_as_json(call):
    (found,) = json.loads(call("describe", "sqlite", "--json")[1])
    settings = {setting["name"]: setting for setting in found["settings"]}
    assert settings["path"]["default"] is None
    assert settings["lock_timeout"]["type"] == "duration"
    assert all(setting["description"] for setting in settings.values())


def test_describe_a_type_of_several_kinds(call):
    _, out, _ = call("describe", "python")
    assert "# python (source)" in out
    assert "# python (processor)" in out
    _, out, _ = call("describe", "python", "--kind", "processor")
    assert "# python (source)" not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sqlit"], "there is no component of the type 'sqlit': did you mean 'sqlite'?"),
        (["sqlite", "--kind", "source"], "there is no source of the type 'sqlite'"),
        (["mine:Own"], "say its --kind"),
        (["mine_is_nowhere:Own", "--kind", "source"], "no module 'mine_is_nowhere'"),
    ],
)
def test_describe_what_is_not_there(call, arguments, words):
    code, out, err = call("describe", *arguments)
    assert (code, out) == (2, "")
    assert words in err


@pytest.mark.parametrize("kind", ["source", "processor", "backend", "codec"])
def test_every_component_can_be_described(call, kind):
    for name in registry.names(kind):
        code, out, err = call("describe", name, "--kind", kind)
        assert (code, err) == (0, "")
        assert "~" not in out.partition("## Settings")[2].replace("~/", ""), f"an unresolved type in {name}"


def test_schema(call, tmp_path):
    code, out, _ = call("schema")
    assert code == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(out))
    assert call("schema", "--output", str(tmp_path / "s.json"))[:2] == (0, "")
    assert (tmp_path / "s.json").read_text() == out


def test_schema_that_cannot_be_written(call, tmp_path):
    code, _, err = call("schema", "-o", str(tmp_path / "no" / "s.json"))
    assert code == 2
    assert "cannot be written: No such file" in err
