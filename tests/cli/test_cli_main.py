"""The command line as a whole: help, exit codes, and messages instead of tracebacks."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import types

import pytest

from collectors.cli import _running
from collectors.cli import main as cli
from collectors.cli._running import plain_options
from collectors.errors import ConfigurationError, FatalError, FencedError, TransientError

GOOD = "sources: [{type: file, path: x.ndjson}]\nstorage: [{type: sqlite, path: x.db}]\n"


@pytest.fixture
def failing(monkeypatch):
    """A verb `fail` that raises what it is given."""
    module = types.ModuleType("failing_verb")
    monkeypatch.setitem(sys.modules, "failing_verb", module)
    monkeypatch.setitem(cli.VERBS, "fail", ("failing_verb", "Fail."))

    def with_error(error):
        def command():
            raise error

        module.command = command

    return with_error


def leaves(name, command):
    nested = getattr(command, "commands", None)
    if nested is None:
        return [(name, command)]
    return [leaf for below, each in nested.items() for leaf in leaves(f"{name} {below}", each)]


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_command_has_help_that_ends_with_an_example(verb):
    for name, command in leaves(verb, cli.load_verb(verb)):
        assert command.help, name
        assert (command.epilog or "").startswith(
            f"Example: collectors {name} "
        ) or command.epilog == f"Example: collectors {name}", name
        for parameter in command.params:
            assert parameter.help, f"{name} {parameter.name}"


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_of_a_verb(call, verb):
    code, out, err = call(verb, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: collectors {verb}" in out


def test_help_lists_the_verbs_without_importing_them():
    program = (
        "import sys\nfrom collectors.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in sys.modules if name.startswith(('collectors.', 'pyarrow', 'pydantic', 'rich'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *shown, imported = done.stdout.splitlines()
    assert all(any(line.split()[:1] == [verb] for line in shown) for verb in cli.VERBS)
    assert imported == "['collectors.cli', 'collectors.cli.main', 'collectors.cli._verbs']"


@pytest.mark.alone
def test_help_is_quick(tmp_path):
    """Less than 0.15 s of CPU, compiled as an installation is."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "collectors", "--help"]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    seconds = []
    for _ in range(7):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert statistics.median(seconds) < 0.15


@pytest.mark.parametrize(
    "words",
    [
        "p.yaml",
        "p.yaml -q",
        "--quiet p.yaml",
        "p.yaml --for 10s",
        "--drain 0 p.yaml --give-up-after 1m --for 2s",
    ],
)
def test_plain_options_of_run_are_those_of_typer(words, monkeypatch, call):
    taken = []
    monkeypatch.setattr(_running, "run", lambda *args, **options: taken.append((args, options)) or 0)
    typers = cli.load_verb("run").make_context("run", words.split()).params
    assert call("run", *words.split())[0] == 0
    assert taken == [((), plain_options(words.split()))]
    assert {**typers, **taken[0][1]} == typers
    assert all(typers[name] in {None, False, "30s"} for name in typers.keys() - taken[0][1].keys())


@pytest.mark.parametrize(
    "words",
    [
        "",
        "-q",
        "a.yaml b.yaml",
        "p.yaml --json",
        "p.yaml --for",
        "p.yaml --for -1s",
        "--for=1s p.yaml",
        "p.yaml --help",
        "p.yaml --nope",
        "-- p.yaml",
        "-",
        "-qq p.yaml",
    ],
)
def test_other_options_of_run_are_for_typer(words):
    assert plain_options(words.split()) is None


def test_version(call):
    code, out, _ = call("--version")
    assert code == 0
    assert out.startswith("collectors 0.")


def test_unknown_verb(call):
    code, _, err = call("lst")
    assert code == 2
    assert "No such command 'lst'. Did you mean 'list'?" in err


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "--nope"], ["list", "--kind", "x"], ["new", "x", "--template", "y"]]
)
def test_wrong_usage(call, arguments):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert "--help" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("the message"), 2),
        (FatalError("the message"), 1),
        (TransientError("the message"), 1),
        (FencedError("the message"), 75),
    ],
)
def test_errors_become_messages(call, failing, error, code):
    failing(error)
    assert call("fail") == (code, "", "the message\n")


def test_unexpected_error(call, failing):
    failing(KeyError("x"))
    code, _, err = call("fail")
    assert (code, err) == (
        1,
        "unexpected error: KeyError: 'x'; run it again with --debug for the traceback\n",
    )


@pytest.mark.parametrize("arguments", [["--debug", "fail"], ["fail", "--debug"]])
def test_debug_shows_the_traceback(call, failing, arguments):
    failing(KeyError("x"))
    code, _, err = call(*arguments)
    assert code == 1
    assert "Traceback (most recent call last)" in err


def test_interrupted(call, failing):
    failing(KeyboardInterrupt())
    assert call("fail")[0] == 130


def test_bad_file_is_told_with_its_places(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text("memory: x\nsources: [{type: fil}]\nstorage: [{type: sqlite}]\n")
    code, out, err = call("run", "p.yaml")
    assert (code, out) == (2, "")
    assert [line.split()[0] for line in err.splitlines()] == ["p.yaml:1:9", "p.yaml:2:18", "p.yaml:3:11"]


def test_module_is_the_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "collectors", "check", "nope.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nope.yaml  there is no such file; there is no .yaml file in '.'\n"


def test_closed_pipe_is_no_error():
    done = subprocess.run(
        f"'{sys.executable}' -m collectors schema | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("{\n", "")
