"""Commands, run in this process."""

from __future__ import annotations

import pytest

from collectors.cli import main as cli


@pytest.fixture
def call(capsys):
    """Return a function that runs the command line and returns exit code, output and errors."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            cli.main(list(arguments))
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return run
