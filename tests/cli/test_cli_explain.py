"""`explain`: the table, the warning with its SQL, the form for machines, and exit codes."""

from __future__ import annotations

import json
import sys

import pytest
import yaml

from collectors.runtime import explaining, measuring, trying

FUNCTIONS = """
def clean(record):
    if record["status"] == "fail":
        return None
    record["fahrenheit"] = record["celsius"] * 9 / 5 + 32
    return record


def number(record):
    return {**record, "number": record["device"].split("-")[1]}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(trying, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(explaining, "WORTH_A_WARNING", 1.5)  # on a busy machine, too
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "explained_functions", raising=False)
    lines = (
        json.dumps({"device": f"d-{n}", "status": "ok" if n % 7 else "fail", "celsius": n / 2})
        for n in range(2000)
    )
    (tmp_path / "in.ndjson").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "explained_functions.py").write_text(FUNCTIONS)
    return tmp_path


@pytest.fixture
def pipeline(folder):
    """Write a pipeline with these processors and return its path."""

    def write(*processors, source=None, storage=()):
        file = folder / "p.yaml"
        config = {
            "sources": [source or {"type": "file", "id": "in", "path": "in.ndjson"}],
            "processors": list(processors),
            "storage": [*storage, {"type": "stdout"}],
        }
        file.write_text(yaml.safe_dump(config))
        return str(file)

    return write


CLEAN = {"type": "python", "function": "explained_functions:clean"}
NUMBER = {"type": "python", "function": "explained_functions:number"}


@pytest.mark.parametrize("width", [80, 120])
def test_table(call, pipeline, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, err = call("explain", pipeline({"type": "filter", "where": "celsius > 3"}, NUMBER))
    assert (code, err) == (0, "")
    table = [line.split() for line in out.splitlines()]
    assert ["step", "runs", "Python", "ns/record", "share", "bytes", "copied", "new", "columns"] in table
    steps = {line[0]: line for line in table if line[1:2] in (["columns"], ["per"], ["chunks"])}
    assert list(steps) == ["read", "decode", "filter", "python"]
    assert steps["filter"][1:3] == ["columns", "0"]
    assert steps["filter"][-3:] == ["3", "of", "3"]
    assert steps["python"][1:3] == ["per", "record"]
    assert "sample: 2,000 records" in out
    assert "store stdout: not measured; stdout has no scratch store" in out
    assert not any("…" in line for line in out.splitlines())
    assert max(len(line) for line in out.splitlines() if "%" in line) <= width


def test_warning_with_the_sql_to_put_in(call, pipeline):
    code, out, _ = call("explain", pipeline(CLEAN))
    assert code == 0
    assert "python: clean runs for every record and makes the rest " in out
    lines = out[out.index("the same for the whole sample:") :].splitlines()[1:]
    steps = yaml.safe_load("\n".join(line[2:] for line in lines if line.startswith(("  -", "   "))))
    assert [step["type"] for step in steps] == ["filter", "set"]
    assert "they would differ for celsius = null (kept, not set aside)" in out
    code, out, _ = call("explain", pipeline(*steps))
    assert code == 0
    assert "slower" not in out


def test_warning_without_sql(call, pipeline):
    _, out, _ = call("explain", pipeline(NUMBER))
    assert "python: number runs for every record" in out
    assert """no SQL to suggest: there is no plain SQL for `record['device'].split('-')[1]`""" in out


def test_for_machines(call, pipeline, folder):
    path = pipeline(CLEAN, NUMBER, storage=[{"type": "parquet", "path": "lake"}])
    code, out, err = call("explain", path, "--json")
    assert (code, err) == (0, "")
    (found,) = json.loads(out)
    assert (found["source"], found["problem"], found["records"]) == ("in", None, 2000)
    steps = {step["step"]: step for step in found["steps"]}
    assert list(steps) == ["read", "decode", "python", "python-2", "store parquet"]
    assert sum(step["share"] for step in found["steps"]) == pytest.approx(1, abs=0.001)
    assert sum(step["ns_per_record"] for step in found["steps"]) == pytest.approx(
        found["ns_per_record"], rel=0.01
    )
    assert steps["decode"]["python_lines_per_record"] == 0
    assert steps["python"]["new_columns"] == ["device", "status", "celsius", "fahrenheit"]
    assert [item["step"] for item in found["not_measured"]] == ["store stdout"]
    one, other = found["functions"]
    assert (one["function"], one["reason"]) == ("clean", None)
    # Compared with its own bound: a busy disk makes Python look cheap.
    assert one["warning"] is (one["times_slower"] >= explaining.WORTH_A_WARNING)
    assert not (folder / "lake").exists()
    assert one["processors"][0] == {"type": "filter", "where": "status is distinct from 'fail'"}
    assert other["processors"] is None
    assert "split" in other["reason"]


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"processors": [{"type": "filter", "where": "kelvin > 3"}]}, 2, "no column 'kelvin'"),
        ({"source": {"type": "file", "path": "empty.ndjson"}}, 1, "file: there is no record"),
    ],
)
def test_what_cannot_be_measured(call, pipeline, folder, settings, code, words):
    (folder / "empty.ndjson").write_text("")
    path = pipeline(*settings.get("processors", []), source=settings.get("source"))
    found, out, err = call("explain", path)
    assert (found, err) == (code, "")
    assert words in out
    assert call("explain", path, "--json")[0] == code


def test_wrong_arguments(call, pipeline):
    code, _, err = call("explain", pipeline(), "--timeout", "soon")
    assert code == 2
    assert err.startswith("--timeout: ")
    assert call("explain", "nowhere.yaml")[0] == 2
