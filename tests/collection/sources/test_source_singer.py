"""Singer taps: what is handed to them, what becomes of what they write and say, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
import sys
import tempfile
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from collectors import registry
from collectors.collection.sources.singer import SingerSource
from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError, FatalError, TransientError
from collectors.programs.private_folder import private_folder
from collectors.runtime.guarantee import Level, guarantees
from collectors.settings import check_settings
from collectors.testing.deliveries import NOON
from collectors.testing.faults import Census, leaks
from collectors.testing.source_contract import SourceContract

HERE = Path(__file__).parent
TAP = [sys.executable, "-S", str(HERE / "_tap.py")]


class TestSinger(SourceContract):
    """A tap that says often where it can go on."""

    component = "singer"
    config = {"state_every": 7}

    @asynccontextmanager
    async def rig(self, ids):
        with tempfile.TemporaryDirectory() as folder:
            yield {
                "command": TAP,
                "tap_config": {"table": table(Path(folder), ids), **self.config},
                "streams": ["numbers"],
                "chunk_size": 500,
            }


class TestWithoutState(TestSinger):
    """A tap that never says where it can go on: it is known again by what it gives."""

    config = {}


class TestWithOverlap(TestSinger):
    """A tap that begins with the record of its bookmark."""

    config = {"state_every": 3, "exact": False}


class TestBeginsAnew(TestSinger):
    """A tap whose STATE says nothing of where it can go on."""

    config = {"state_every": 3, "once": True}


def table(folder, ids):
    """Write the rows of a table; return its path."""
    path = folder / "table"
    path.write_text("".join(json.dumps({"id": n, "pad": "x" * 40}) + "\n" for n in ids))
    return str(path)


def script(folder, text):
    """Write a program that is no real tap; return the command."""
    path = folder / "tap.py"
    path.write_text(text)
    return [sys.executable, str(path)]


async def outcome(source, since=None):
    """Return the chunks, what was told, and the error with which reading ended."""
    told, chunks = [], []
    source.tell = told.append
    try:
        await source.connect()
        async with contextlib.aclosing(source.stream(since)) as stream:
            async for chunk in stream:
                chunks.append(chunk)
    except Exception as error:
        return chunks, told, error
    finally:
        await source.disconnect()
    return chunks, told, None


def run(since=None, **given):
    async def main():
        before = Census.take()
        found = await outcome(SingerSource(check_settings(SingerSource.config_class, given)), since)
        assert await leaks(before) == []
        return found

    return asyncio.run(main())


def ids_of(chunks):
    return [
        json.loads(line)["id"]
        for chunk in chunks
        if chunk.data_format == "ndjson"
        for line in chunk.raw_data.splitlines()
    ]


ECHO = """
import json, os, stat, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
files = {name: [path, oct(os.stat(path).st_mode), open(path).read()] for name, path in given.items()}
folder = oct(os.stat(os.path.dirname(given["--config"])).st_mode)
record = {"id": 1, "files": files, "folder": folder, "name": os.environ.get("NAME"), "cwd": os.getcwd()}
print(json.dumps({"type": "RECORD", "stream": "s", "record": record}))
"""


def test_files_are_only_for_this_user_and_gone_afterwards(tmp_path):
    chunks, _, error = run(
        since={"state": '{"at": 1.10}'},
        command=script(tmp_path, ECHO),
        tap_config={"api_key": "k-123456", "page": {"size": 5}, "tokens": ["t-123456"]},
        catalog={"streams": [{"tap_stream_id": "s", "schema": {}}]},
        env={"NAME": "value"},
        cwd=str(tmp_path),
    )
    assert error is None
    (record,) = [json.loads(chunk.raw_data) for chunk in chunks]
    files = record["files"]
    assert json.loads(files["--config"][2]) == {
        "api_key": "k-123456",
        "page": {"size": 5},
        "tokens": ["t-123456"],
    }
    assert files["--state"][2] == '{"at": 1.10}'
    assert json.loads(files["--catalog"][2]) == {"streams": [{"tap_stream_id": "s", "schema": {}}]}
    assert {mode for _, mode, _ in files.values()} == {oct(stat.S_IFREG | 0o600)}
    assert record["folder"] == oct(stat.S_IFDIR | 0o700)
    assert (record["name"], record["cwd"]) == ("value", str(tmp_path))
    assert not [path for path, _, _ in files.values() if Path(path).parent.exists()]


def test_what_a_killed_process_left_behind_is_deleted_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "collectors-tap-left"
    left.mkdir()
    (left / "config.json").write_text("secret")
    (tmp_path / "other").mkdir()
    (tmp_path / "collectors-tap-link").symlink_to(tmp_path / "other")
    with private_folder("collectors-tap-") as first, private_folder("collectors-tap-") as second:
        assert first.is_dir()
        assert second.is_dir()
        assert not left.exists()
        assert (tmp_path / "other").is_dir()
    assert not first.exists()
    assert not second.exists()


def test_streams_are_selected_in_the_catalog_of_the_tap(tmp_path):
    given = {"table": table(tmp_path, [1, 2]), "state_every": 1}
    chunks, _, error = run(command=TAP, tap_config=given, discover=True)
    records = [json.loads(line) for chunk in chunks for line in chunk.raw_data.splitlines()]
    assert error is None
    assert [(each["id"], each["_stream"]) for each in records] == [
        (1, "numbers"),
        (2, "numbers"),
        (1, "letters"),
        (2, "letters"),
    ]
    assert chunks[-1].metadata["key_properties"] == {"numbers": ["id"], "letters": ["id"]}
    chunks, told, _ = run(command=TAP, tap_config=given, discover=True, streams=["letters"])
    assert ids_of(chunks) == [1, 2]
    assert told == []


def test_a_stream_that_there_is_not_is_named(tmp_path):
    _, _, error = run(
        command=TAP, tap_config={"table": table(tmp_path, [1])}, discover=True, streams=["leters"]
    )
    assert isinstance(error, ConfigurationError)
    assert "has no stream 'leters'; did you mean 'letters'?" in str(error)


def test_metadata_of_streams_are_set_in_the_catalog(tmp_path):
    catalog = {
        "streams": [
            {
                "tap_stream_id": "public-s",
                "stream": "s",
                "schema": {},
                "metadata": [
                    {"breadcrumb": [], "metadata": {"selected": False}},
                    {"breadcrumb": ["properties", "a"], "metadata": {"inclusion": "available"}},
                    {"breadcrumb": ["properties", "b"], "metadata": {"selected": False}},
                    {"breadcrumb": ["properties", "c"], "metadata": {"inclusion": "unsupported"}},
                ],
            },
            {"tap_stream_id": "t", "metadata": None},
        ]
    }
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    incremental = {"replication-method": "INCREMENTAL", "replication-key": "id"}
    chunks, _, _ = run(
        command=script(tmp_path, ECHO),
        tap_config={},
        catalog=str(tmp_path / "catalog.json"),
        streams={"public-s": incremental},
    )
    (record,) = [json.loads(chunk.raw_data) for chunk in chunks]
    first, second = json.loads(record["files"]["--catalog"][2])["streams"]
    assert [item["metadata"].get("selected") for item in first["metadata"]] == [True, True, False, None]
    assert first["metadata"][0]["metadata"] == {"selected": True} | incremental
    assert (first["replication_method"], first["replication_key"]) == ("INCREMENTAL", "id")
    assert second["metadata"] == [{"breadcrumb": [], "metadata": {"selected": False}}]


SCHEMA = {
    "properties": {
        "id": {"type": ["null", "integer"]},
        "price": {"type": ["number", "null"]},
        "mixed": {"type": ["number", "integer"]},
        "ok": {"type": "boolean"},
        "name": {"type": "string"},
        "at": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
        "day": {"type": "string", "format": "date"},
        "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "several": {"type": ["integer", "string"]},
        "object": {"type": "object"},
        "any": {},
        "odd": True,
    }
}


def test_types_are_those_of_the_catalog():
    catalog = {"streams": [{"tap_stream_id": "s", "schema": SCHEMA}, {"tap_stream_id": "t"}]}
    types = {
        "id": "int",
        "price": "float",
        "mixed": "float",
        "ok": "bool",
        "name": "string",
        "at": "timestamp",
        "day": "date",
    }
    given = {"command": "tap", "catalog": catalog, "streams": ["s"]}
    assert SingerSource(**given).format() == {"type": "ndjson", "columns": types}
    more = SingerSource(**given, columns={"price": "decimal(12, 2)"}, metadata=True).format()
    assert more["columns"] == types | {
        "_sdc_extracted_at": "timestamp",
        "_sdc_table_version": "int",
        "price": "decimal(12, 2)",
    }
    assert SingerSource(command="tap", catalog=catalog).format() == "ndjson"
    assert SingerSource(command="tap", catalog=catalog, streams=["t"]).format() == "ndjson"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"command": ""}, "expected a command, got nothing"),
        ({"command": "tap | target"}, "'|' is for a shell; give the command as a list of words"),
        ({"command": "tap 'x"}, "cannot be split into words"),
        ({"command": ["tap", "--state", "s.json"]}, "'--state' is added by the source"),
        ({"command": ["tap", "--config=c.json"], "tap_config": {}}, "'--config' is added by the source"),
        ({"command": "tap", "discover": True, "catalog": {}}, "discover: there is a `catalog` already"),
        ({"command": "tap", "streams": "users"}, "streams"),
        ({"command": "tap", "columns": {"a": "strng"}}, "did you mean 'string'?"),
    ],
)
def test_wrong_settings_are_refused(given, message):
    with pytest.raises(ConfigurationError) as caught:
        check_settings(SingerSource.config_class, given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"command": "no-such-tap"}, "there is no program 'no-such-tap'"),
        ({"command": TAP, "cwd": "/no/such/folder"}, "cwd: there is no folder"),
        ({"command": TAP, "catalog": "/no/such/file"}, "catalog: cannot read '/no/such/file': No such file"),
        ({"command": TAP, "catalog": {"stream": []}}, "catalog: expected a Singer catalog"),
        ({"command": ["echo"], "discover": True}, "answer to --discover: expected a Singer catalog in JSON"),
    ],
)
def test_what_is_missing_is_named_before_the_tap_runs(given, message):
    chunks, _, error = run(**given)
    assert (chunks, type(error)) == ([], ConfigurationError)
    assert message in str(error)


def test_a_catalog_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("collectors.collection.sources.singer._CATALOG_BYTES", 1000)
    _, _, error = run(command=["sh", "-c", "yes"], discover=True)
    assert isinstance(error, ConfigurationError)
    assert "longer than 0 MiB" in str(error)


def test_a_failing_tap_goes_on_behind_its_last_state(tmp_path):
    """What it wrote behind that is not handed on: it comes again. Its last words are told, without secrets."""
    switch = tmp_path / "failing"
    switch.touch()
    given = {
        "command": TAP,
        "streams": ["numbers"],
        "tap_config": {
            "table": table(tmp_path, range(1, 11)),
            "state_every": 4,
            "fail_after": 6,
            "fail_while": str(switch),
            "token": "hush-hush",
        },
    }
    chunks, told, error = run(**given)
    assert ids_of(chunks) == [1, 2, 3, 4]
    assert isinstance(error, TransientError)
    assert str(error) == f"'{sys.executable}' ended with exit code 3: CRITICAL no access with ***"
    assert told == ["the tap says: CRITICAL no access with ***"]
    switch.unlink()
    assert ids_of(run(since=chunks[-1].position, **given)[0]) == [5, 6, 7, 8, 9, 10]


def test_a_secret_on_standard_output_is_not_in_the_dead_letter(tmp_path):
    command = script(tmp_path, "print('logging in with k-123456 and id 7')")
    chunks, _, _ = run(
        command=command, tap_config={"api_key": "k-123456", "key": "i", "primary_keys": ["in"]}
    )
    assert [chunk.raw_data for chunk in chunks] == [b"logging in with *** and id 7"]


def test_a_tap_that_is_killed_is_said_to_be(tmp_path):
    (tmp_path / "failing").touch()
    config = {"table": table(tmp_path, [1]), "fail_after": 1, "fail_while": str(tmp_path / "failing")}
    chunks, _, error = run(command=TAP, tap_config=config | {"killed": True})
    assert (chunks, type(error)) == ([], TransientError)
    assert "was ended by SIGKILL" in str(error)


def test_arguments_that_a_tap_does_not_take_are_no_passing_failure(tmp_path):
    _, _, error = run(command=[*TAP, "--no-such-option"])
    assert isinstance(error, FatalError)
    assert "unrecognized arguments" in str(error)


def test_a_tap_that_takes_too_long_is_ended():
    _, _, error = run(command=["sh", "-c", "exec sleep 1000", "tap"], timeout="300ms")
    assert isinstance(error, TransientError)
    assert "'sh' did not end within 0.3 s" in str(error)


def test_other_records_behind_the_last_state_are_stored_and_told(tmp_path):
    given = {
        "command": TAP,
        "tap_config": {"table": table(tmp_path, range(1, 6))},
        "streams": ["numbers"],
        "chunk_size": 100,
    }
    chunks, _, _ = run(**given)
    since = chunks[0].position
    assert (ids_of(chunks[:1]), since["state"], since["records"]) == ([1, 2], None, 2)
    table(tmp_path, range(2, 8))
    chunks, told, error = run(since=since, **given)
    assert error is None
    assert ids_of(chunks) == [2, 3, 4, 5, 6, 7]
    (line,) = told
    assert line == (
        "the tap does not repeat the 2 records that it gave behind its last STATE; what it gives now is stored, of "
        "which some may be there already"
    )


def test_long_lines_and_lines_that_are_no_messages_are_set_aside(tmp_path):
    lines = [
        '{"type": "RECORD", "stream": "s", "record": {"id": 1}}',
        "hello",
        '{"type": "RECORD", "stream": "s", "record": {"id": 2, "pad": "%s"}}' % ("x" * 2000),
        '{"type": "RECORD", "stream": "s", "record": {"id": 3}}',
    ]
    (tmp_path / "lines").write_text("\n".join(lines))
    chunks, _, error = run(
        command=script(tmp_path, f"import sys; sys.stdout.write(open({str(tmp_path / 'lines')!r}).read())"),
        max_record=1000,
    )
    assert error is None
    assert [chunk.data_format for chunk in chunks] == ["ndjson", "rejected", "rejected", "ndjson"]
    assert chunks[1].raw_data == b"hello"
    assert "no Singer message" in chunks[1].metadata["reason"]
    assert "longer than max_record (1000 bytes)" in chunks[2].metadata["reason"]
    assert ids_of(chunks) == [1, 3]


NOISE = """2026-01-01 INFO hello
2026-01-01 WARNING careful, hush-hush
  at line 3
{"level": "info", "event": "ERROR is a word in it"}
{"level": "error", "event": "postgres://me:hush@host/db"}
"""


@pytest.mark.parametrize(("level", "count"), [("debug", 5), ("info", 5), ("warning", 3), ("error", 1)])
def test_what_a_tap_says_is_told_from_a_level_on(tmp_path, level, count):
    config = {"table": table(tmp_path, [1]), "noise": NOISE, "password": "hush-hush"}
    _, told, _ = run(command=TAP, tap_config=config, log_level=level)
    assert len(told) == count
    assert "hush" not in str(told)
    assert told[-1] == 'the tap says: {"level": "error", "event": "postgres://***@host/db"}'


def test_what_a_tap_says_has_an_end(tmp_path):
    config = {"table": table(tmp_path, [1]), "noise": "WARNING again\n" * 200 + "x" * 10_000}
    source = SingerSource(command=TAP, tap_config=config)

    async def main():
        told = []
        source.tell = told.append
        await source.connect()
        for now in (NOON, NOON, NOON + timedelta(hours=1)):
            source.now = lambda now=now: now
            async with contextlib.aclosing(source.stream(None)) as stream:
                assert [chunk async for chunk in stream]
        await source.disconnect()
        return told

    told = asyncio.run(main())
    assert told.count("the tap says: WARNING again") == 100
    assert [line for line in told if "not shown" in line] == [
        "the tap says 356 lines more, which are not shown",
        "the tap says 153 lines more, which are not shown",
    ]


def test_secrets_are_not_printed():
    config = {"access_token": "hush", "nested": {"client_secret": ["hush"]}, "page": 1, "name": "shown"}
    source = SingerSource(command="tap", tap_config=config)
    assert "hush" not in repr(source.config)
    assert "shown" in repr(source.config)


def pipeline(folder, *storage):
    return from_mapping(
        {
            "name": "p",
            "sources": [{"type": "singer", "command": "tap", "tap_config": {"password": "hush"}}],
            "storage": list(storage),
        },
        folder=folder,
    )


def test_a_secret_in_the_file_is_not_in_its_version(tmp_path):
    store = {"type": "sqlite", "path": "out.db", "table": "t"}
    assert pipeline(tmp_path, store).version == pipeline(tmp_path, store).version
    assert "hush" not in repr(pipeline(tmp_path, store))


def test_the_promise_is_at_least_once(tmp_path):
    (one,) = guarantees(pipeline(tmp_path, {"type": "sqlite", "path": "out.db", "table": "t"}))
    assert one.level is Level.AT_LEAST_ONCE
    assert not one.may_lose
    assert "is stored again" in one.promise
    assert "may give records again" in one.why[0]
    assert one.power_cut.startswith("as a crash")


def test_it_is_found_by_its_name():
    assert registry.find("source", "singer") is SingerSource
