"""The storage `singer`: what targets are told, what counts as stored, and targets that misbehave."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
import sys
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from collectors.chunks import ChunkKey
from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError, DataError, FatalError, TransientError
from collectors.runtime.guarantee import Level, guarantees
from collectors.settings import check_settings
from collectors.storage.backends._singer_schema import properties_of, records_of, schema_line
from collectors.storage.backends.singer import SingerBackend
from collectors.testing.backend_cases import as_typed_table, stored_and_asked
from collectors.testing.backend_contract import BackendContract
from collectors.testing.faults import Census, leaks

TARGET = [sys.executable, "-S", str(Path(__file__).with_name("_target.py"))]


class TestSinger(BackendContract):
    """A target that acknowledges at the end of its input."""

    component = "singer"
    can_query = False
    can_delete = False
    survives = False
    ack = "end"

    def settings(self, folder: Path) -> dict[str, Any]:
        return given_settings(folder, ack=self.ack)


class TestPromptSinger(TestSinger):
    """One that acknowledges each STATE."""

    ack = "each"


def given_settings(folder: Path, *, timeout: str = "20s", **target: Any) -> dict[str, Any]:
    return {"command": TARGET, "target_config": {"out": str(folder / "out"), **target}, "timeout": timeout}


def stored(folder: Path) -> list[dict[str, Any]]:
    path = folder / "out"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def counted(folder: Path) -> Counter[int]:
    return Counter(row["n"] for row in stored(folder))


def numbers(first: int, last: int) -> pa.Table:
    return pa.table({"n": list(range(first, last))})


def key(seq: int, flow: str = "p/numbers@singer", epoch: int = 1) -> ChunkKey:
    return ChunkKey(flow, epoch, seq)


def run(scenario: Any, **given: Any) -> Any:
    """Run a scenario with a connected backend, and see that nothing stays."""

    async def main() -> Any:
        before = Census.take()
        backend = SingerBackend(check_settings(SingerBackend.config_class, given))
        try:
            await backend.connect()
            result = await scenario(backend)
        finally:
            await backend.disconnect()
        assert await leaks(before) == []
        return result

    return asyncio.run(main())


async def stored_whole(backend: SingerBackend, table: pa.Table, key: ChunkKey) -> None:
    """Write and flush."""
    await backend.write(table, key)
    await backend.flush()


async def until(condition: Any) -> None:
    """Let other tasks work until the condition holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def messages(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_a_target_is_told(tmp_path: Path) -> None:
    """STATE, SCHEMA, records, STATE; a SCHEMA again only with another column; the next target is told all of it anew."""

    async def scenario(backend: SingerBackend) -> None:
        await backend.write(numbers(0, 2), key(1))
        await backend.write(numbers(2, 3), key(2))
        await backend.write(pa.table({"n": [3], "text": ["x"]}), key(3))
        await backend.write(numbers(4, 5), key(4))
        await backend.flush()
        await backend.write(numbers(5, 6), key(5))
        await backend.flush()

    run(scenario, **given_settings(tmp_path, ack="end", log=str(tmp_path / "log")), key_properties="n")
    told = messages(tmp_path / "log")
    first = ["STATE", "SCHEMA", "RECORD", "RECORD", "STATE", "RECORD", "STATE"]
    assert [each["type"] for each in told] == [
        *first,
        *["SCHEMA", "RECORD", "STATE", "RECORD", "STATE"],
        *["STATE", "SCHEMA", "RECORD", "STATE"],
    ]
    assert told[0] == {"type": "STATE", "value": {"bookmarks": {}}}
    assert told[1] == {
        "type": "SCHEMA",
        "stream": "numbers",
        "schema": {"type": "object", "properties": {"n": {"type": ["integer"]}}},
        "key_properties": ["n"],
    }
    assert told[2] == {"type": "RECORD", "stream": "numbers", "record": {"n": 0}}
    assert list(told[7]["schema"]["properties"]) == ["n", "text"]
    assert told[13]["schema"] == told[7]["schema"]
    assert counted(tmp_path) == Counter(range(6))


def test_columns_are_json_schema_and_keep_every_digit() -> None:
    table = pa.table(
        {
            "flag": [True],
            "int": pa.array([2**64 - 1], pa.uint64()),
            "float": [0.5],
            "exact": [Decimal("1.10")],
            "time": [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)],
            "clock": [datetime(2026, 1, 2, 3, 4, 5)],
            "day": [date(2026, 1, 2)],
            "at": [time(1, 2, 3)],
            "took": [timedelta(seconds=90)],
            "raw": [b"\xff"],
            "code": pa.array(["x"]).dictionary_encode(),
            "list": [[1]],
            "inner": [{"a": 1, "b": "x"}],
            "nothing": pa.nulls(1),
        }
    )
    properties = properties_of(table)
    assert {name: (each["type"][-1], each.get("format")) for name, each in properties.items()} == {
        "flag": ("boolean", None),
        "int": ("integer", None),
        "float": ("number", None),
        "exact": ("string", "x-singer.decimal"),
        "time": ("string", "date-time"),
        "clock": ("string", "date-time"),
        "day": ("string", "date"),
        "at": ("string", "time"),
        "took": ("string", "duration"),
        "raw": ("string", None),
        "code": ("string", None),
        "list": ("array", None),
        "inner": ("object", None),
        "nothing": ("string", None),
    }
    assert properties["list"]["items"] == {"type": ["null", "integer"]}
    record = json.loads(records_of(table, 'a "stream"'))
    assert record["stream"] == 'a "stream"'
    values = record["record"]
    assert (values["int"], values["exact"], values["raw"]) == (2**64 - 1, "1.10", "/w==")
    assert (values["time"], values["clock"]) == ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z")


@hypothesis_settings(max_examples=100, deadline=None, database=None)
@given(stored_and_asked())
def test_records_are_what_their_schema_says(case: tuple[list[list[dict[str, Any]]], Any]) -> None:
    for rows in case[0]:
        table = as_typed_table(rows)
        schema = json.loads(schema_line("s", properties_of(table), []))["schema"]
        told = records_of(table, "s").splitlines()
        assert len(told) == len(rows)
        for line in told:
            jsonschema.validate(json.loads(line)["record"], schema)


def test_what_an_acknowledgement_covers(tmp_path: Path) -> None:
    """Nothing before it is there; with the end of the input all is."""

    async def scenario(backend: SingerBackend) -> None:
        await backend.write(numbers(0, 5), key(1))
        await backend.write(numbers(5, 9), key(2))
        assert await backend.pending("p/numbers@singer") == 1
        assert stored(tmp_path) == []
        await backend.flush()
        assert await backend.pending("p/numbers@singer") is None
        assert counted(tmp_path) == Counter(range(9))

    run(scenario, **given_settings(tmp_path, ack="end"))


def test_what_was_taken_is_known_however_many_flows_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collectors.storage.backends.singer._MOST_FLOWS", 2)

    async def scenario(backend: SingerBackend) -> None:
        for _ in range(2):
            for number in range(5):
                await backend.write(numbers(number, number + 1), key(1, f"p/{number}@singer"))
        for number in range(5, 9):
            await backend.write(numbers(number, number + 1), key(1, f"store-{number}", epoch=0))
        assert len(backend._stores) == 2
        await backend.flush()

    run(scenario, **given_settings(tmp_path, ack="end"))
    assert counted(tmp_path) == Counter(range(9))


def test_a_target_that_acknowledges_on_the_way(tmp_path: Path) -> None:
    async def scenario(backend: SingerBackend) -> None:
        await backend.write(numbers(0, 5), key(1))
        await until(lambda: not backend._waiting.given)
        assert counted(tmp_path) == Counter(range(5))
        await backend.write(numbers(5, 9), key(2))
        target = backend._target
        await until(lambda: not backend._waiting.given)
        await backend.flush()
        assert backend._target is target, "it was ended although it had stored everything"

    run(scenario, **given_settings(tmp_path, ack="each"))


def test_a_state_that_is_put_together_acknowledges_only_its_own_streams(tmp_path: Path) -> None:
    """The other stream's rows are still held back, though its bookmark is among those that were told."""

    async def scenario(backend: SingerBackend) -> None:
        await backend.write(numbers(0, 3), key(1, "p/a@singer"))
        await backend.write(numbers(10, 14), key(1, "p/b@singer"))
        await backend.write(numbers(14, 24), key(2, "p/b@singer"))
        await until(lambda: backend._waiting.given[-1].key.seq == 2 and len(backend._waiting.given) == 2)
        assert await backend.pending("p/a@singer") == 1
        assert await backend.pending("p/b@singer") == 2
        assert {row["stream"] for row in stored(tmp_path)} == {"b"}
        await backend.flush()
        assert await backend.pending("p/a@singer") is None

    run(scenario, **given_settings(tmp_path, ack="pieced", batch=5))
    assert counted(tmp_path) == Counter([*range(3), *range(10, 24)])


@pytest.mark.parametrize("code", [1, None])
def test_a_target_that_dies_is_started_again_with_what_it_had_not_acknowledged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, code: int | None
) -> None:
    (tmp_path / "die").touch()
    settings = given_settings(
        tmp_path, ack="each", die_after=8, die_while=str(tmp_path / "die"), code=code, password="hush-hush"
    )

    async def scenario(backend: SingerBackend) -> None:
        await backend.write(numbers(0, 5), key(1))
        await until(lambda: not backend._waiting.given)
        with pytest.raises(TransientError) as failure:
            await stored_whole(backend, numbers(5, 9), key(2))
        how = "was ended by SIGKILL" if code is None else "ended with exit code 1"
        assert str(failure.value) == f"the target '{sys.executable}' {how}: CRITICAL no room for ***"
        assert await backend.write(numbers(5, 9), key(2)) == 0
        await backend.flush()
        assert await backend.pending("p/numbers@singer") is None

    with caplog.at_level(logging.WARNING, "collectors.singer"):
        run(scenario, **settings)
    assert counted(tmp_path) == Counter(range(9))
    assert "no room for ***" in caplog.text
    assert "hush" not in caplog.text


def test_a_target_that_never_acknowledges(tmp_path: Path) -> None:
    """It stops the flow: its rows may be there, but nobody has said so."""

    async def scenario(backend: SingerBackend) -> None:
        await backend.write(numbers(0, 5), key(1))
        with pytest.raises(FatalError, match="has ended well and not acknowledged"):
            await backend.flush()
        assert await backend.pending("p/numbers@singer") == 1

    run(scenario, **given_settings(tmp_path, ack="never"))


RUBBISH = [
    "hello\n",
    "{}\n[]\n1\nnull\n",
    '{"bookmarks": 1}\n{"bookmarks": {"numbers": 1}}\n{"bookmarks": {"numbers": {"delivery": 9}}}\n',
    '{"bookmarks": {"numbers": {"run": "x", "delivery": 1}}}\n',
    "[" * 100_000 + "\n",
    "x" * 3_000_000,
    "\\ud800\x00\n\n\n",
]


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_a_target_that_prints_rubbish(tmp_path: Path, caplog: pytest.LogCaptureFixture, rubbish: str) -> None:
    """It is told once, and acknowledges nothing."""

    async def scenario(backend: SingerBackend) -> None:
        await backend.write(numbers(0, 5), key(1))
        await until(lambda: backend._rubbish)
        assert await backend.pending("p/numbers@singer") == 1
        await backend.flush()
        assert await backend.pending("p/numbers@singer") is None

    with caplog.at_level(logging.WARNING, "collectors.singer"):
        run(
            scenario,
            **given_settings(tmp_path, ack="end", rubbish=rubbish + ("" if rubbish[-1] == "\n" else "\n")),
        )
    assert len([each for each in caplog.messages if "no STATE of ours" in each]) == 1
    assert len(caplog.text) < 2000


def test_an_acknowledgement_of_what_was_never_given_counts_for_nothing(tmp_path: Path) -> None:
    async def scenario(backend: SingerBackend) -> None:
        await backend.write(numbers(0, 5), key(1))
        target = backend._target
        assert target is not None
        for number in (2, 0, -1, "1", 1.0, None):
            mark = {"run": target._token, "delivery": number}
            target._take(json.dumps({"bookmarks": {"numbers": mark, "others": mark}}).encode())
        assert await backend.pending("p/numbers@singer") == 1
        await backend.flush()

    run(scenario, **given_settings(tmp_path, ack="end"))


def test_a_target_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    settings = given_settings(tmp_path, ack="end", hang_after=1, child=True, timeout="300ms")

    async def scenario(backend: SingerBackend) -> None:
        with pytest.raises(TransientError, match="did not take more rows within 0.3 s; it was ended"):
            await backend.write(numbers(0, 200_000), key(1))
        with pytest.raises(TransientError, match="did not (end|take more rows) within 0.3 s"):
            await backend.flush()

    run(scenario, **settings)
    mine = [each.cmdline() for each in psutil.Process().children(recursive=True)]
    assert not [words for words in mine if words[:1] == ["sleep"]]


@pytest.mark.parametrize("deaf", [False, True])
def test_a_target_that_does_not_end_is_killed_and_its_rows_are_given_again(
    tmp_path: Path, deaf: bool
) -> None:
    """That is a failure to try again: not a silent end of the flow, and not one that waits for ever."""
    settings = given_settings(tmp_path, ack="never", stays=True, deaf=deaf, child=True, timeout="500ms")

    others = set(psutil.Process().children(recursive=True))

    async def scenario(backend: SingerBackend) -> None:
        await backend.write(numbers(0, 5), key(1))
        for _ in range(2):
            with pytest.raises(TransientError, match=r"did not end within 0.5 s; it was ended"):
                await backend.flush()
            assert set(psutil.Process().children(recursive=True)) <= others
            assert await backend.pending("p/numbers@singer") == 1

    run(scenario, **settings, grace="100ms")


def test_a_target_that_acknowledged_and_does_not_end_is_killed_without_a_word(tmp_path: Path) -> None:
    others = set(psutil.Process().children(recursive=True))

    async def scenario(backend: SingerBackend) -> None:
        await backend.write(numbers(0, 5), key(1))
        await until(lambda: not backend._waiting.given)

    run(scenario, **given_settings(tmp_path, ack="each", stays=True, deaf=True), grace="100ms")
    assert set(psutil.Process().children(recursive=True)) <= others


def test_what_a_target_says_when_it_is_ended_counts(tmp_path: Path) -> None:
    """It had stored everything, said so, and went on living."""

    async def scenario(backend: SingerBackend) -> None:
        await backend.write(numbers(0, 5), key(1))
        with pytest.raises(TransientError, match="did not end"):
            await backend.flush()
        assert await backend.pending("p/numbers@singer") is None

    run(scenario, **given_settings(tmp_path, ack="end", stays=True, timeout="500ms"), grace="100ms")
    assert counted(tmp_path) == Counter(range(5))


def test_what_a_target_has_started_apart_is_not_waited_for(tmp_path: Path) -> None:
    """It is in no group of ours, and holds the pipes of the target for as long as it likes."""
    settings = given_settings(tmp_path, ack="end", child_apart=str(tmp_path / "child"), timeout="500ms")

    async def scenario(backend: SingerBackend) -> None:
        await backend.write(numbers(0, 5), key(1))
        async with asyncio.timeout(20):
            with pytest.raises(TransientError, match="did not end within"):
                await backend.flush()
        assert await backend.pending("p/numbers@singer") is None

    try:
        run(scenario, **settings, grace="100ms")
    finally:
        psutil.Process(int((tmp_path / "child").read_text())).kill()


def test_a_target_that_does_not_take_its_arguments(tmp_path: Path) -> None:
    async def scenario(backend: SingerBackend) -> None:
        with pytest.raises(FatalError, match="exit code 2 means that it does not take its arguments"):
            await stored_whole(backend, numbers(0, 200_000), key(1))

    run(scenario, command=[*TARGET, "--no-such-option"])


def test_a_target_that_is_stopped_while_it_works_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(backend: SingerBackend) -> None:
        await backend.write(numbers(0, 5), key(1))
        writing = asyncio.ensure_future(backend.write(numbers(5, 60_000), key(2)))
        await until(lambda: backend._target is not None and backend._target._torn)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert backend._target is None
        await backend.write(numbers(5, 60_000), key(2))
        await backend.flush()

    run(scenario, **given_settings(tmp_path, ack="end", wait=False))
    assert set(counted(tmp_path)) == set(range(60_000))


def test_much_that_waits_is_stored_at_once(tmp_path: Path) -> None:
    """And the files with it are given back."""

    async def scenario(backend: SingerBackend) -> None:
        for seq in range(1, 9):
            await backend.write(pa.table({"n": [seq], "pad": ["x" * 2_000_000]}), key(seq))
        assert await backend.pending("p/numbers@singer") == 7
        await backend.flush()
        assert backend._waiting.size == 0

    run(scenario, **given_settings(tmp_path, ack="end"), max_bytes="5 MB")
    assert counted(tmp_path) == Counter(range(1, 9))


def test_files_of_what_was_acknowledged_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectors.storage.backends._singer_waiting._FILE_BYTES", 1000)

    async def scenario(backend: SingerBackend) -> None:
        for seq in range(1, 30):
            await backend.write(numbers(100 * seq, 100 * seq + 100), key(seq))
            await until(lambda: not backend._waiting.given)
        assert len(backend._waiting._files) <= 2

    run(scenario, **given_settings(tmp_path, ack="each"))
    assert counted(tmp_path) == Counter(range(100, 3000))


def test_a_flow_that_is_claimed_anew_gives_its_rows_again(tmp_path: Path) -> None:
    """What the owner before had given and nobody acknowledged is forgotten: it is read again."""

    async def scenario(backend: SingerBackend) -> None:
        await backend.write(numbers(0, 5), key(1))
        await backend.write(numbers(0, 3), key(1, epoch=2))
        await backend.write(numbers(7, 9), key(1, "p/other@singer"))
        assert len(backend._waiting.given) == 2
        await backend.flush()
        assert await backend.pending("p/numbers@singer") is None

    run(scenario, **given_settings(tmp_path, ack="end"))
    assert set(counted(tmp_path)) == {*range(5), 7, 8}


def test_rows_that_no_target_can_take_are_named(tmp_path: Path) -> None:
    async def scenario(backend: SingerBackend) -> None:
        with pytest.raises(DataError, match="rows have no key") as refused:
            await backend.write(pa.table({"n": [1, None, 3]}), key(1))
        assert refused.value.rows == {
            1: "column 'n': it is null, and rows are told apart by it (`key_properties`)"
        }
        with pytest.raises(DataError, match="JSON has no NaN") as refused:
            await backend.write(pa.table({"n": [1, 2], "x": [1.0, float("nan")]}), key(1))
        assert list(refused.value.rows) == [1]
        assert await backend.pending("p/numbers@singer") is None

    run(scenario, **given_settings(tmp_path), key_properties=["n"])


def test_secrets_are_only_for_the_target(tmp_path: Path) -> None:
    config = check_settings(
        SingerBackend.config_class, given_settings(tmp_path, password="hush-hush", ack="end")
    )
    assert "hush" not in repr(config)

    async def scenario(backend: SingerBackend) -> None:
        path = Path(backend._files[1])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert json.loads(path.read_text())["password"] == "hush-hush"
        folders.append(path.parent)

    folders: list[Path] = []
    run(scenario, **given_settings(tmp_path, password="hush-hush", ack="end"))
    assert not folders[0].exists()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"command": []}, "expected a command"),
        ({"command": "target | cat"}, "is for a shell"),
        (
            {"command": ["t", "--config", "x"], "target_config": {}},
            "'--config' is added for the `target_config`",
        ),
        ({"command": ["t"], "key_properties": ["a", "a"]}, "a column twice: a"),
        ({"command": ["t"], "stream": ""}, "expected the name of a stream"),
        ({"command": ["t"], "log_level": "loud"}, "log_level"),
    ],
)
def test_settings_that_do_not_fit(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        check_settings(SingerBackend.config_class, given)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match="there is no program 'no-such-target'"):
        run(None, command=["no-such-target"])


def test_check_shows_the_stream_and_its_columns() -> None:
    backend = SingerBackend(command=["/opt/target-x", "--flag"], stream="raw_{source}", key_properties=["id"])
    table = pa.table({"n": [1], "at": [datetime(2026, 1, 2, tzinfo=UTC)]})
    assert backend.preview(table, "p/numbers") == [
        "+ stream raw_numbers",
        "+ n integer",
        "+ at string, date-time",
        "! id: rows have no such column, and are told apart by it (`key_properties`)",
    ]
    assert backend.describe() == "target-x"


def test_what_is_promised(tmp_path: Path) -> None:
    (tmp_path / "x.ndjson").write_text("{}\n")
    config = from_mapping(
        {
            "name": "p",
            "sources": [{"type": "file", "id": "s", "path": "x.ndjson"}],
            "storage": [{"type": "singer", "command": TARGET}],
        },
        folder=tmp_path,
    )
    (edge,) = guarantees(config)
    assert edge.level is Level.AT_LEAST_ONCE
    assert (
        edge.promise
        == "at least once (a crash stores again what the storage had taken and not acknowledged yet)"
    )
