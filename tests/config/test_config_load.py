"""Loading a pipeline file: every mistake at once, each at its line and column, in a sentence."""

from __future__ import annotations

import importlib
import os
import pickle
import sys

import pytest

from collectors.config.load import load
from collectors.errors import ConfigurationError


def places(problems):
    return [(problem.line, problem.column, problem.path) for problem in problems]


def test_good(write, good, tmp_path):
    config = load(write(good))
    assert config.name == "pipeline"
    assert config.folder == tmp_path
    assert config.file == tmp_path / "pipeline.yaml"
    assert config.state == tmp_path / ".collectors" / "pipeline"
    assert config.memory == 256 * 2**20
    assert list(config.sources) == ["readings"]
    assert list(config.backends) == ["sqlite"]
    assert config.sources["readings"].where == "pipeline.yaml:2"
    source = config.sources["readings"].make()
    assert source.get_source_id() == "readings"
    assert source is not config.sources["readings"].make()
    (route,) = config.routes
    assert (route.sources, route.backends, route.processors) == (("readings",), ("sqlite",), ())
    assert config.backends["sqlite"].settings.path == str(tmp_path / "readings.db")


def test_id_is_given_to_the_object(write, good):
    backend = load(write(good)).backends["sqlite"].make()
    assert backend.get_backend_id() == "sqlite" == backend.config.id


def test_three_mistakes_are_all_shown_in_their_places(problems):
    found = problems(
        """\
name: three
memory: lots
sources:
  - type: file
    path: x.ndjson
    chunk_sise: 1 MiB
storage:
  - {type: sqlite, path: [a]}
"""
    )
    assert [str(problem) for problem in found] == [
        'pipeline.yaml:2:9  memory = "lots": expected a size such as 64 KiB, 256 MiB or 1 GB',
        "pipeline.yaml:6:5  sources[0].chunk_sise: there is no such setting; did you mean 'chunk_size'?",
        "pipeline.yaml:8:26  storage[0].path: expected text",
    ]


def test_unknown_type(problems):
    (found,) = problems("sources:\n  - type: fil\n    path: x\nstorage: [{type: sqlite, path: x}]\n")
    assert places([found]) == [(2, 11, "sources[0].type")]
    assert "unknown source type 'fil': did you mean 'file'?" in found.message


def test_missing_type_and_wrong_shapes(problems):
    found = problems(
        "sources:\n  - {path: x}\n  - 7\n  - {type: 5}\nstorage: {type: sqlite}\nprocessors: no\n"
    )
    assert places(found) == [
        (2, 5, "sources[0].type"),
        (3, 5, "sources[1]"),
        (4, 12, "sources[2].type"),
        (5, 10, "storage"),
        (6, 13, "processors"),
    ]
    assert "file" in found[0].hint
    assert found[1].value == "7"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_empty(problems, text):
    (found,) = problems(text)
    assert "the file is empty" in str(found)


@pytest.mark.parametrize(("text", "what"), [("- a", "a list"), ("hello", "plain text")])
def test_not_a_mapping(problems, text, what):
    (found,) = problems(text)
    assert str(found).startswith("pipeline.yaml:1:1  ")
    assert what in str(found)


def test_nothing_to_do(problems):
    found = problems("name: x\nsources: []\n")
    assert [(problem.path, problem.message) for problem in found] == [
        ("storage", "is required"),
        ("sources", "expected at least 1 of them"),
    ]


def test_not_utf8(problems):
    (found,) = problems("name: x\nsources: # käse\n".encode("latin-1"))
    assert str(found) == "pipeline.yaml:2:13  the byte 0xE4 here is not UTF-8 text; save the file as UTF-8"


def test_utf8_with_mark_at_the_beginning(write, good):
    assert load(write(b"\xef\xbb\xbf" + good.encode())).name == "pipeline"


def test_missing_file(write, good):
    write(good, "readings.yaml")
    with pytest.raises(ConfigurationError) as caught:
        load("redings.yaml")
    assert str(caught.value) == "redings.yaml  there is no such file; did you mean 'readings.yaml'?"


def test_missing_folder(write):
    with pytest.raises(ConfigurationError, match="there is no folder 'nowhere' either"):
        load("nowhere/readings.yaml")


def test_folder(write, good, tmp_path):
    write(good)
    with pytest.raises(
        ConfigurationError, match=r"a folder, not a pipeline file; .* there are: pipeline\.yaml"
    ):
        load(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_not_readable(write, good, tmp_path):
    (tmp_path / write(good)).chmod(0)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        load("pipeline.yaml")


def test_too_long(problems):
    (found,) = problems("# " + "x" * 2**20)
    assert "longer than 1 MiB" in str(found)


def test_name_of_the_file_that_is_no_name(write, good):
    write(good, "my file.yaml")
    with pytest.raises(ConfigurationError) as caught:
        load("my file.yaml")
    assert "the file's name 'my file' cannot be the pipeline's name" in str(caught.value)


def test_syntax_error_of_a_format(problems, good):
    (found,) = problems(good.replace("ndjson}", "ndjsn}"))
    assert places([found]) == [(2, 61, "sources[0].format")]
    assert found.value == '"ndjsn"'
    assert "did you mean 'ndjson'?" in found.hint


def test_wrong_setting_of_a_format(problems, good):
    (found,) = problems(good.replace("format: ndjson", "format: {type: ndjson, colums: {}}"))
    assert places([found]) == [(2, 76, "sources[0].format.colums")]
    assert "did you mean 'columns'?" in found.hint


def test_text_and_numbers(problems):
    found = problems(
        "name: 5\nsources: [{type: file, path: x.ndjson, follow: maybe, jitter: .inf}]\n"
        "storage: [{type: sqlite, path: x, lock_timeout: [1]}]\n"
    )
    assert [problem.path for problem in found] == [
        "name",
        "sources[0].follow",
        "sources[0].jitter",
        "storage[0].lock_timeout",
    ]
    assert found[1].message == "expected true or false"


def test_home_of_nobody(problems):
    (found,) = problems(
        "sources: [{type: file, path: ~nobody_at_all/x.csv}]\nstorage: [{type: sqlite, path: x}]\n"
    )
    assert places([found]) == [(1, 30, "sources[0].path")]
    assert "there is no home directory '~nobody_at_all'" in found.message


OWN = """\
from typing import Annotated
from pydantic import AfterValidator
from collectors.collection.base import Source, SourceConfig
from collectors.errors import ConfigurationError

def check(value):
    if value == 12:
        raise KeyError("a validator that fails by itself")
    return value

class OwnConfig(SourceConfig):
    count: Annotated[int, AfterValidator(check)] = 1

class Own(Source[OwnConfig]):
    def __init__(self, config=None, **settings):
        super().__init__(config, **settings)
        if self.config.count == 13:
            raise ConfigurationError("count 13 brings bad luck")
        if self.config.count == 14:
            raise RuntimeError("boom")

    def read(self, since):
        yield from ()

class Other:
    pass
"""


@pytest.fixture
def own(tmp_path):
    """A module beside the pipeline file, under a name that no other test has imported."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)
    (tmp_path / f"{name}_broken.py").write_text("def x(:\n")
    return name


def with_source(text):
    return f"sources:\n  - {text}\nstorage: [{{type: sqlite, path: x}}]\n"


def test_own_class_beside_the_file(write, own):
    path = list(sys.path)
    config = load(write(with_source(f'{{type: "{own}:Own", count: 3}}')))
    (component,) = config.sources.values()
    assert component.make().config.count == 3
    assert component.id == own == component.make().get_source_id()
    assert sys.path == path


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ('{type: "OWN:Own", count: 13}', "sources[0]", "bad luck"),
        ('{type: "OWN:Own", count: 14}', "sources[0]", "RuntimeError: boom"),
        ('{type: "OWN:Own", count: 12}', "sources[0]", "a validator that fails by itself"),
        ('{type: "OWN:Own", count: x}', "sources[0].count", "expected a whole number"),
        ('{type: "OWN:Own", cuont: 1}', "sources[0].cuont", "did you mean 'count'?"),
        ('{type: "OWN:Other"}', "sources[0].type", "not a subclass of collectors.collection.base.Source"),
        ('{type: "OWN:None"}', "sources[0].type", "has no 'None'"),
        ('{type: "OWN_broken:X"}', "sources[0].type", "OWN_broken.py, line 1: "),
        ('{type: "nowhere_at_all:X"}', "sources[0].type", "no module 'nowhere_at_all'"),
        ('{type: "collectors.storage.backends.sqlite:COMPONENT"}', "sources[0].type", "it is a backend"),
    ],
)
def test_own_class_that_does_not_work(problems, own, text, path, words):
    (found,) = problems(with_source(text.replace("OWN", own)))
    assert found.path == path
    assert found.line == 2
    assert words.replace("OWN", own) in str(found)


def test_two_modules_of_one_name(problems, tmp_path, monkeypatch):
    """Python has one module of a name in a process: the other pipeline's would be used without a word."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "same_name_twice.py").write_text(OWN)
    (tmp_path / "same_name_twice.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    importlib.import_module("same_name_twice")
    (found,) = problems(with_source('{type: "same_name_twice:Own"}'))
    assert places([found]) == [(2, 12, "sources[0].type")]
    assert "elsewhere/same_name_twice.py, not same_name_twice.py beside this pipeline; rename one" in str(
        found
    )


def test_missing_extra(problems, tmp_path, monkeypatch):
    """A component of an installed package whose driver is not installed."""
    (tmp_path / "lib").mkdir()
    lib = tmp_path / "lib"
    (lib / "plugin_with_driver.py").write_text("import driver_that_is_not_there\n")
    info = lib / "plugin_with_driver-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-with-driver\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[collectors.sources]\nfarm = plugin_with_driver:COMPONENT\n")
    monkeypatch.syspath_prepend(lib)
    importlib.invalidate_caches()
    (found,) = problems(with_source("{type: farm}"))
    assert places([found]) == [(2, 12, "sources[0].type")]
    assert "'farm' needs 'driver_that_is_not_there': pip install 'driver_that_is_not_there'" in found.message


def test_error_is_picklable(write):
    with pytest.raises(ConfigurationError) as caught:
        load(write("name: [\n"))
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.problems == caught.value.problems


def test_version_is_of_the_content(write, good):
    version = load(write(good)).version
    assert (
        load(write("# a comment\n" + good.replace("path: readings.db", 'path:   "readings.db"'))).version
        == version
    )
    assert load(write(good.replace("readings.db", "other.db"))).version != version


CHECKED = """\
from typing import Annotated
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from collectors.processing.base import Processor, ProcessorConfig

def check(text):
    before, here, _ = text.partition("HERE")
    if here:
        line, column = before.count("\\n") + 1, len(before) - before.rfind("\\n")
        raise PydanticCustomError("sql", "{message}", {"message": "not here", "line": line, "column": column})
    return text

class CheckedConfig(ProcessorConfig):
    where: Annotated[str, AfterValidator(check)] = ""
    columns: dict[str, Annotated[str, AfterValidator(check)]] = {}

class Checked(Processor[CheckedConfig]):
    def transform(self, table):
        return table
"""


@pytest.mark.parametrize(
    "text",
    [
        "where: a > 1 and HERE < 2",
        r'where: "a <> \"\u00e9\" and HERE < 2"',
        "where: 'a <> ''é'' and HERE < 2'",
        "where: |\n      a > 1\n      and HERE < 2\n",
        "where: |\n      HERE < 2\n",
        "where: >-\n      a > 1\n      and HERE < 2\n",
        'where: "a > 1\n      and HERE < 2"',
        "columns: {a: x, b: HERE}",
        "columns:\n      b: >\n        a > 1\n\n        and HERE\n",
        'where: "${LONG_VALUE} and HERE"',
        "where: ${LONG_VALUE:-x}${LONG_VALUE} HERE",
    ],
)
def test_place_inside_of_a_text(problems, tmp_path, monkeypatch, text):
    """A processor says line and column in its text; the problem says line and column in the file."""
    monkeypatch.setenv("LONG_VALUE", "a <> 'secret'\nand")
    name = f"checked_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CHECKED)
    source = (
        "sources: [{type: file, path: x.ndjson}]\nstorage: [{type: sqlite, path: x}]\n"
        f'processors:\n  - type: "{name}:Checked"\n    {text}'
    )
    (found,) = problems(source)
    assert found.message == "not here"
    assert source.split("\n")[found.line - 1][found.column - 1 :].startswith("HERE")
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    "text",
    [
        "a > 1 and and b",
        "'a <> ''é'' and and b'",
        r'"a <> \"é\" and and b"',
        "|\n      a > 1\n      and and b\n",
    ],
)
def test_sql_error_of_a_filter(problems, text):
    source = (
        "sources: [{type: file, path: x.ndjson}]\nstorage: [{type: sqlite, path: x}]\n"
        f"processors:\n  - type: filter\n    where: {text}"
    )
    (found,) = problems(source)
    assert found.path == "processors[0].where"
    line = source.split("\n")[found.line - 1]
    assert line[found.column - 1 :].startswith("and b"), str(found)


def test_what_is_not_near_is_not_suggested(write, tmp_path):
    (tmp_path / "m9.yaml").write_text("")
    with pytest.raises(
        ConfigurationError, match=r"there is no such file; in that folder there are: m9\.yaml"
    ):
        load(tmp_path / "nosuch.yaml")
    with pytest.raises(
        ConfigurationError,
        match="unknown backend type 'mysql': there are: duckdb, http, kafka, memory, nats, object_store",
    ):
        load(write("sources: [{type: stdin}]\nstorage: [{type: mysql}]\n"))


def test_a_file_of_records_is_no_pipeline_file(tmp_path):
    (tmp_path / "x.ndjson").write_text('{"id": 1}\n{"id": 2}\n')
    with pytest.raises(
        ConfigurationError, match=r"x\.ndjson:2:1 .*this is not a pipeline file.* sources and storage"
    ):
        load(tmp_path / "x.ndjson")


@pytest.mark.parametrize("sign", ["\x85", "\u2028", "\u2029"])
def test_lines_are_those_of_an_editor(write, sign):
    """YAML 1.1 would begin a line behind each of these; a text that was copied from a page may hold them."""
    text = f'name: "a"\n# {sign} {sign}\nsources: [{{type: stdin}}]\nstorage:\n  - {{type: sqlite, path: x.db, tabel: y}}\n'
    with pytest.raises(ConfigurationError, match=r"pipeline\.yaml:5:\d+ .*tabel"):
        load(write(text))
    with pytest.raises(ConfigurationError, match=r"pipeline\.yaml:6:1 .* begun in line 5;"):
        load(write(text.replace("}\n", "\n")))
