"""A pipeline from Python values: the same checks, and objects and functions where a file has settings."""

from __future__ import annotations

import pytest

from collectors.collection.base import Source, SourceConfig
from collectors.collection.sources.file import COMPONENT as FileSource
from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError
from collectors.processing.base import Processor, ProcessorConfig
from collectors.storage.backends.sqlite import COMPONENT as Sqlite


class OwnConfig(SourceConfig):
    limit: int = 3


class Own(Source[OwnConfig]):
    def read(self, since):
        yield from ()


class Step(Processor[ProcessorConfig]):
    def transform(self, table):
        return table


def good(**changes):
    base = {
        "sources": [{"type": "file", "path": "x.ndjson"}],
        "storage": [{"type": "sqlite", "path": "x.db"}],
    }
    return base | changes


def test_same_as_a_file(tmp_path):
    config = from_mapping(good(memory="1 MiB"), folder=tmp_path, name="readings")
    assert (config.name, config.memory, config.folder, config.file) == ("readings", 2**20, tmp_path, None)
    assert config.state == tmp_path / ".collectors" / "readings"
    assert config.sources["file"].where == "sources[0]"
    assert config.backends["sqlite"].settings.path == str(tmp_path / "x.db")


def test_working_directory_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = from_mapping(good())
    assert (config.folder, config.name) == (tmp_path, "pipeline")


def test_problems_have_paths_and_no_lines():
    with pytest.raises(ConfigurationError) as caught:
        from_mapping(good(sources=[{"type": "file", "pth": "x"}], memry=1))
    assert [str(problem) for problem in caught.value.problems] == [
        "memry: there is no such setting; did you mean 'memory'?",
        "sources[0].path: is required",
        "sources[0].pth: there is no such setting; did you mean 'path'?",
    ]
    assert caught.value.problems[0].line is None


def test_objects_are_used_as_they_are():
    source, step, backend = Own(limit=5), Step(), Sqlite(path="x.db", id="mine")
    config = from_mapping({"sources": [source], "processors": [step], "storage": [backend]})
    assert config.sources["test_config_mapping"].make() is source
    assert config.backends["mine"].make() is backend
    assert config.routes[0].processors[0].make() is step


def test_classes_are_refused_with_advice():
    with pytest.raises(
        ConfigurationError, match=r"sources\[0\]: .*FileSource.* is not .*Source, made with its settings"
    ):
        from_mapping(good(sources=[FileSource]))


def test_module_and_class(tmp_path):
    (tmp_path / "own_source_in_a_module.py").write_text(
        "from collectors.collection.base import Source, SourceConfig\n"
        "class Own(Source[SourceConfig]):\n    def read(self, since):\n        yield from ()\n"
    )
    config = from_mapping(good(sources=["own_source_in_a_module:Own"]), folder=tmp_path)
    assert [component.cls.__name__ for component in config.sources.values()] == ["Own"]


def test_functions_are_the_python_components():
    def readings():
        yield {"a": 1}

    def clean(record):
        return record

    config = from_mapping(good(sources=[readings], processors=[clean, lambda record: record]))
    assert list(config.sources) == ["python"]
    assert [component.id for component in config.routes[0].processors] == ["python", "python-2"]


def test_variables(monkeypatch):
    monkeypatch.setenv("WHERE", "/there.db")
    config = from_mapping(good(storage=[{"type": "sqlite", "path": "${WHERE}"}]))
    assert config.backends["sqlite"].settings.path == "/there.db"


def test_version_does_not_depend_on_the_process():
    def readings():
        yield {"a": 1}

    first = from_mapping(good(processors=[Step()])).version
    assert first == from_mapping(good(processors=[Step()])).version
    assert first != from_mapping(good()).version
