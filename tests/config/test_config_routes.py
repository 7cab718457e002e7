"""Ids and routes: every name leads somewhere, and everything is used."""

from __future__ import annotations

from collectors.config.load import load

PARTS = """\
sources:
  - {type: file, id: a, path: a.ndjson}
  - {type: file, id: b, path: b.ndjson}
storage:
  - {type: sqlite, id: x, path: x.db}
  - {type: sqlite, id: y, path: y.db}
"""
STEP = '{type: "collectors.config_test_step:Step"}'


def routes(config):
    return [(route.name, route.sources, route.backends) for route in config.routes]


def test_everything_to_everywhere(write):
    assert routes(load(write(PARTS))) == [("main", ("a", "b"), ("x", "y"))]


def test_routes(write):
    text = f"{PARTS}pipelines:\n  first: {{from: a, to: [x]}}\n  second: {{to: y}}\n"
    assert routes(load(write(text))) == [("first", ("a",), ("x",)), ("second", ("a", "b"), ("y",))]


def test_unknown_ids(problems):
    found = problems(f"{PARTS}pipelines:\n  one: {{from: [a, bb, a], to: z}}\n  two: {{}}\n")
    assert [(problem.line, problem.column, problem.path, problem.message) for problem in found] == [
        (8, 19, "pipelines.one.from[1]", "there is no such id"),
        (8, 23, "pipelines.one.from[2]", "stands here twice"),
        (8, 31, "pipelines.one.to[0]", "there is no such id"),
    ]
    assert found[0].hint == "did you mean 'b'?"
    assert found[2].hint == "there are: x, y"


def test_what_no_route_uses(problems):
    found = problems(f"{PARTS}pipelines: {{one: {{from: a, to: x}}}}\n")
    assert [(problem.path, problem.message) for problem in found] == [
        ("sources[1]", "no pipeline reads the source 'b'"),
        ("storage[1]", "no pipeline stores to 'y'"),
    ]


def test_empty_choice(problems):
    found = problems(f"{PARTS}pipelines: {{one: {{from: []}}, two: {{}}}}\n")
    assert [(problem.path, problem.message) for problem in found] == [
        ("pipelines.one.from", "expected at least one id")
    ]


def test_unknown_setting_and_name_of_a_route(problems):
    found = problems(f"{PARTS}pipelines:\n  'a b': {{}}\n  two: {{form: a}}\n  three: 5\n")
    assert [(problem.line, problem.path) for problem in found] == [
        (8, 'pipelines["a b"]'),
        (9, "pipelines.two.form"),
        (10, "pipelines.three"),
    ]
    assert found[1].hint == "did you mean 'from'?"


def test_two_of_a_type_need_ids(problems):
    text = PARTS.replace("id: a, ", "").replace("id: b, ", "").replace("id: y", "id: x")
    found = problems(text)
    assert [(problem.line, problem.path, problem.message) for problem in found] == [
        (3, "sources[1]", "sources[0] is called 'file' already; give each an `id` of its own"),
        (6, "storage[1].id", "storage[0] has this id already"),
    ]


def test_a_failing_source_is_not_reported_again_by_its_route(problems):
    text = PARTS.replace("path: a.ndjson", "pth: a.ndjson") + "pipelines: {one: {from: [a, b]}}\n"
    assert {problem.path for problem in problems(text)} == {"sources[0].pth", "sources[0].path"}


STEPS = """\
from collectors.processing.base import Processor, ProcessorConfig

class Step(Processor[ProcessorConfig]):
    def transform(self, table):
        return table
"""


def test_processors(write, problems, tmp_path):
    """Steps are numbered; a route without steps of its own takes the common ones, `[]` is none."""
    name = f"steps_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(STEPS)
    step = f'{{type: "{name}:Step"}}'
    common = f"{PARTS}processors: [{step}, {step}, {step[:-1]}, id: last}}]\n"
    (route,) = load(write(common)).routes
    assert [component.id for component in route.processors] == [name, f"{name}-2", "last"]
    assert [component.make().get_processor_name() for component in route.processors] == [
        name,
        f"{name}-2",
        "last",
    ]
    assert route.processors[1].where == "pipeline.yaml:7"
    text = f"{common}pipelines: {{one: {{}}, two: {{processors: []}}, three: {{processors: [{step}]}}}}\n"
    config = load(write(text))
    assert [[component.id for component in route.processors] for route in config.routes] == [
        [name, f"{name}-2", "last"],
        [],
        [name],
    ]
    (found,) = problems(f"{common}pipelines: {{two: {{processors: []}}}}\n")
    assert (found.path, found.line, found.column) == ("processors", 7, 1)
    (found,) = problems(f"{PARTS}processors: [{step[:-1]}, id: s}}, {step[:-1]}, id: s}}]\n")
    assert (found.path, found.message) == ("processors[1].id", "another step has this id already")
