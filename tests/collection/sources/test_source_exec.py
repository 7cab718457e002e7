"""The output of commands, how they fail, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager

import psutil
import pytest
from _stopping import stored_when_stopped

from collectors.collection.sources.exec import ExecSource
from collectors.errors import ConfigurationError, TransientError
from collectors.testing.faults import Census, leaks
from collectors.testing.source_contract import SourceContract

NO_POSITION = "what a command has written cannot be asked for again"


class TestExec(SourceContract):
    component = "exec"
    waive = {
        "position_survives_json": NO_POSITION,
        "resume_from_every_position": NO_POSITION,
        "read_again_from_earlier_position": NO_POSITION,
        "nothing_twice_at_the_end": "reading again runs the command again",
    }

    @asynccontextmanager
    async def rig(self, ids):
        yield {
            "command": f"""for n in {" ".join(map(str, ids))}; do echo "{{\\"id\\": $n}}"; done""",
            "shell": True,
        }


class TestRunning(SourceContract):
    """A command that does not end, and still runs when it is read again."""

    component = "exec"
    endless = True
    waive = {"position_survives_json": NO_POSITION, "resume_from_every_position": NO_POSITION}

    @asynccontextmanager
    async def rig(self, ids):
        lines = " ".join(map(str, ids))
        yield {
            "command": f"""for n in {lines}; do echo "{{\\"id\\": $n}}"; done; exec sleep 1000""",
            "shell": True,
            "grace": 5,
        }


async def outcome(source):
    """Return the chunks and the error with which reading ended."""
    await source.connect()
    chunks = []
    try:
        async for chunk in source.collect_stream():
            chunks.append(chunk)
    except Exception as error:
        return chunks, error
    finally:
        await source.disconnect()
    return chunks, None


async def ended(pid):
    """Return whether a process that was sent SIGKILL is gone, or waits for init to bury it."""
    for _ in range(200):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        await asyncio.sleep(0.01)
    return False


def run(**settings):
    async def main():
        before = Census.take()
        found = await outcome(ExecSource(**settings))
        assert await leaks(before) == []
        return found

    return asyncio.run(main())


def test_a_list_is_started_without_a_shell():
    chunks, error = run(command=["printf", "%s\\n", "$HOME; ls"], format="lines")
    assert (b"".join(chunk.raw_data for chunk in chunks), error) == (b"$HOME; ls\n", None)
    assert {chunk.data_format for chunk in chunks} == {"lines"}


def test_a_text_is_split_with_quotes():
    chunks, _ = run(command="printf '%s' 'two words'", format="lines")
    assert b"".join(chunk.raw_data for chunk in chunks) == b"two words"


@pytest.mark.parametrize("command", ["ls | wc", "ls > out", "ls && ls", "ls 2>&1"])
def test_what_only_a_shell_understands_is_refused(command):
    with pytest.raises(ValueError, match="shell: true"):
        ExecSource(command=command)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"command": "no-such-program-here --flag"}, "no program 'no-such-program-here'"),
        ({"command": ["./no-such-script"]}, "no program './no-such-script', or it is not executable"),
        ({"command": "ls", "cwd": "/no/such/folder"}, "no folder '/no/such/folder'"),
    ],
)
def test_what_is_missing_is_named_before_the_start(settings, message):
    async def main():
        with pytest.raises(ConfigurationError, match=message):
            await ExecSource(**settings).connect()

    asyncio.run(main())


def test_environment_and_folder_are_handed_to_the_command(tmp_path):
    chunks, _ = run(command="echo $GREETING; pwd", shell=True, env={"GREETING": "hello"}, cwd=str(tmp_path))
    assert b"".join(chunk.raw_data for chunk in chunks) == f"hello\n{tmp_path}\n".encode()


def test_a_failing_command_says_its_code_and_last_words():
    chunks, error = run(command="echo '{}'; echo first >&2; echo 'no such table' >&2; exit 3", shell=True)
    assert b"".join(chunk.raw_data for chunk in chunks) == b"{}\n"
    assert isinstance(error, TransientError)
    assert str(error) == "'/bin/sh' ended with exit code 3: first | no such table"


def test_a_code_that_is_declared_to_be_fine_is_fine():
    chunks, error = run(command="echo '{}'; exit 3", shell=True, ok_codes=[0, 3])
    assert (len(chunks), error) == (1, None)


def test_half_a_record_of_a_failing_command_is_set_aside():
    chunks, error = run(command="""printf '{"id": 1}\n{"id": 2'; exit 1""", shell=True)
    assert isinstance(error, TransientError)
    assert [chunk.data_format for chunk in chunks] == ["ndjson", "rejected"]
    assert chunks[1].raw_data == b'{"id": 2'
    assert "exit code 1" in chunks[1].metadata["reason"]


def test_a_killed_command_says_by_which_signal():
    async def main():
        others = set(psutil.Process().children())
        source = ExecSource(command="echo '{}'; exec sleep 1000", shell=True)
        await source.connect()
        await source.collect()
        (child,) = set(psutil.Process().children()) - others
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(TransientError, match="was ended by SIGKILL"):
            await source.collect()
        await source.disconnect()

    asyncio.run(main())


def test_a_command_that_takes_too_long_is_ended():
    chunks, error = run(command="echo '{}'; exec sleep 1000", shell=True, timeout=0.3)
    assert len(chunks) == 1
    assert str(error) == "'/bin/sh' did not end within 0.3 s"


def test_grandchildren_and_those_who_ignore_sigterm_are_ended_too():
    async def main():
        before, others = Census.take(), set(psutil.Process().children(recursive=True))
        command = "trap '' TERM; sleep 1000 & sleep 1000 & echo '{}'; while :; do sleep 1000; done"
        source = ExecSource(command=command, shell=True, grace=0.1)
        await source.connect()
        await source.collect()
        family = set(psutil.Process().children(recursive=True)) - others
        assert len(family) >= 3
        await source.disconnect()
        assert await leaks(before) == []
        assert all([await ended(each.pid) for each in family])

    asyncio.run(main())


def test_what_a_finished_command_left_running_is_ended():
    async def main():
        source = ExecSource(command="sleep 1000 >/dev/null 2>&1 & echo $!", shell=True, format="lines")
        chunks, error = await outcome(source)
        assert error is None
        assert await ended(int(chunks[0].raw_data))

    asyncio.run(main())


def test_much_output_and_many_complaints_are_read_in_bounded_memory():
    program = (
        "import sys\n"
        "for n in range(20000):\n"
        "    sys.stderr.write('complaint ' * 10 + '\\n')\n"
        "    sys.stdout.write('{\"id\": %d}\\n' % n)\n"
    )
    chunks, error = run(command=[sys.executable, "-c", program], chunk_size="64 KiB")
    assert error is None
    assert max(len(chunk.raw_data) for chunk in chunks) <= 2 * 64 * 1024
    data = b"".join(chunk.raw_data for chunk in chunks)
    assert data == b"".join(b'{"id": %d}\n' % n for n in range(20000))


def test_it_is_run_again_on_a_schedule_only():
    assert ExecSource(command="ls").poll_interval() is None
    assert ExecSource(command="ls", every="5s").poll_interval() == 5.0


def test_secrets_in_arguments_are_not_in_messages():
    _, error = run(command=["sh", "-c", "exit 1", "hunter2"])
    assert "hunter2" not in str(error)


def test_what_it_has_written_is_stored_when_it_stops(tmp_path):
    done = tmp_path / "done"
    os.mkfifo(done)
    script = f"seq -f '{{\"id\": %.0f}}' 3000; echo yes > {done}; exec sleep 60"
    source = ExecSource(command=script, shell=True, chunk_size="1 KiB")
    assert stored_when_stopped(source, tmp_path, done.read_text) == Counter(range(1, 3001))
