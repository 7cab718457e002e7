"""What no code here may do: wait for real time, run text as code, paste values into SQL."""

from __future__ import annotations

import ast

import pytest

MAX_POLL_SECONDS = 0.05
FORBIDDEN_IMPORTS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
QUOTING = {
    "quote",
    "quoted",
    "_quote",
    "_quoted",
    "identifier",
    "_identifier",
    "quote_name",
    "quote_identifier",
}


def calls(file):
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def sleeps(files, allowed=()):
    """Yield calls that wait for the clock on the wall.

    Allowed are `sleep(0)`, which lets others run, and a short one in a loop, which polls another process for a condition.
    """
    found = []
    for file in files:
        if file.module in allowed:
            continue
        polls = {
            node
            for loop in ast.walk(file.tree)
            if isinstance(loop, (ast.For, ast.While, ast.AsyncFor))
            for node in ast.walk(loop)
        }
        for node, name in calls(file):
            if name in {"time.sleep", "asyncio.sleep", "sleep"}:
                seconds = node.args[0].value if isinstance(node.args[0], ast.Constant) else 1.0
                if seconds != 0 and not (node in polls and seconds <= MAX_POLL_SECONDS):
                    found.append(f"{file}:{node.lineno}: {name}({ast.unparse(node.args[0])})")
    return found


def code_from_data(files, compares=()):
    """Return calls that could run what comes from outside; a module that `compares` code may compile some."""
    found = []
    for file in files:
        found += [
            f"{file}:{node.lineno}: {name}"
            for node, name in calls(file)
            if (name in FORBIDDEN_CALLS and not (name == "compile" and file.module in compares))
            or name.startswith("builtins.")
        ]
        for node in ast.walk(file.tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [
                f"{file}:{node.lineno}: {name}" for name in names if name.split(".")[0] in FORBIDDEN_IMPORTS
            ]
    return found


def pasted_sql(files):
    """Yield f-strings handed to `execute` that hold anything but constants and the result of a quoting function."""
    found = []
    for file in files:
        for node, name in calls(file):
            if name.rpartition(".")[2] not in {"execute", "executemany", "executescript"} or not node.args:
                continue
            for value in ast.walk(node.args[0]):
                if isinstance(value, ast.FormattedValue) and not is_safe(value.value):
                    found.append(f"{file}:{value.lineno}: {ast.unparse(value.value)}")
                if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mod):
                    found.append(f"{file}:{value.lineno}: {ast.unparse(value)}")
    return found


def is_safe(value):
    """Return whether this is a call of a quoting function, what one returned by its name, or a constant by its name."""
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in QUOTING
    name = ast.unparse(value).rpartition(".")[2]
    return name.lstrip("_").isupper() or "quoted" in name


def test_no_sleep_in_the_package(sources):
    simulated = (
        "collectors.testing._sim_sources",
        "collectors.testing._sim_world",
    )  # their clock is no clock
    assert sleeps(sources, allowed=("collectors.runtime.env", *simulated)) == []


def test_no_sleep_in_tests(tests):
    """Real time passes only in the tests of long runs, in front of a slow store, and between two writes of a user."""
    assert sleeps(tests, allowed={"test_long_runs", "_stores"}) == []


def test_no_code_from_data(sources):
    assert code_from_data(sources, compares=("collectors.processing.projection",)) == []


def test_no_values_in_sql(sources):
    assert pasted_sql(sources) == []


@pytest.mark.parametrize(
    "text",
    [
        "time.sleep(1)",
        "async def f():\n    await asyncio.sleep(x)",
        "sleep(0.1)",
        "while a:\n    time.sleep(0.1)",
    ],
)
def test_sleep_is_found(fake, text):
    assert sleeps([fake("x", text)])
    assert not sleeps(
        [
            fake(
                "x",
                "async def f():\n    await asyncio.sleep(0)\n    await env.sleep(1)\n    while not a:\n        await asyncio.sleep(0.02)",
            )
        ]
    )


@pytest.mark.parametrize(
    "text", ["eval(x)", "import pickle", "def f():\n    from marshal import loads", "exec('a')"]
)
def test_code_from_data_is_found(fake, text):
    assert code_from_data([fake("x", text)])
    assert not code_from_data([fake("x", "re.compile('a')")])


@pytest.mark.parametrize(
    "text", ["f'select {x}'", "f'select {name.upper()}'", "'select %s' % x", "f'a' + f'{x}'"]
)
def test_pasted_sql_is_found(fake, text):
    assert pasted_sql([fake("x", f"db.execute({text})")])


@pytest.mark.parametrize("text", ["'select ?', (x,)", "f'select {quote(x)}'", "f'select {_COLUMNS}'"])
def test_quoted_sql_is_fine(fake, text):
    assert not pasted_sql([fake("x", f"db.execute({text})")])
