from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from collectors.chunks import ChunkKey
from collectors.errors import FatalError
from collectors.storage.backends.stdout import StdoutBackend
from collectors.testing.backend_contract import BackendContract


class TestStdout(BackendContract):
    component = "stdout"
    can_query = False
    can_delete = False
    survives = False

    def settings(self, folder: Path) -> dict[str, Any]:
        return {}


class TestStdoutTable(TestStdout):
    def settings(self, folder: Path) -> dict[str, Any]:
        return {"format": "table"}


def printed(data: Any, **settings: Any) -> None:
    async def main() -> None:
        backend = StdoutBackend(**settings)
        await backend.connect()
        await backend.store(data)
        await backend.disconnect()

    asyncio.run(main())


def test_each_row_is_a_json_object_with_exact_values(capfd: pytest.CaptureFixture[str]) -> None:
    printed(
        pa.table(
            {
                "big": pa.array([2**64 - 1], pa.uint64()),
                "decimal": [Decimal("1.10")],
                "time": [datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)],
                "clock": [time(1, 2, 3)],
                "day": [date(2026, 1, 2)],
                "took": [timedelta(seconds=90)],
                "bytes": [b"\x00\xff"],
                "nested": [{"a": [1, float("inf")]}],
                "float": [float("nan")],
                "text": ["a\nb\u2028é"],
                "nothing": pa.nulls(1),
                "fine": pa.array([1], pa.timestamp("ns")),
            }
        )
    )
    out = capfd.readouterr().out
    assert out.count("\n") == 1
    assert '"big":18446744073709551615' in out
    assert json.loads(out) == {
        "big": 2**64 - 1,
        "decimal": "1.10",
        "time": "2026-01-02T03:04:05.000006Z",
        "clock": "01:02:03",
        "day": "2026-01-02",
        "took": "PT90S",
        "bytes": "AP8=",
        "nested": {"a": [1, "Infinity"]},
        "float": "NaN",
        "text": "a\nb\u2028é",
        "nothing": None,
        "fine": "1970-01-01T00:00:00",
    }


def test_a_table_is_for_people_and_cannot_steer_their_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    printed([{"name": "a\x1b[31m", "n": 1}, {"name": None, "n": 20}], format="table")
    out = capfd.readouterr().out
    assert "\x1b[31m" not in out
    assert out.splitlines()[0].split() == ["name", "n"]
    assert out.splitlines()[1].split() == ["a\\x1b[31m", "1"]
    assert out.splitlines()[2].split() == ["–", "20"]


def test_what_another_owner_has_under_the_same_numbers_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Another one may have taken the flow over meanwhile, and have cut it otherwise: only a repeated key is left out."""

    async def main() -> None:
        backend = StdoutBackend()
        await backend.connect()
        for epoch, seq, rows in ((1, 5, [0, 1]), (1, 5, [0, 1]), (3, 4, [2]), (3, 5, [3]), (3, 5, [3])):
            await backend.call(backend.write, pa.table({"n": rows}), ChunkKey("p/s", epoch, seq))
        await backend.disconnect()

    asyncio.run(main())
    assert [json.loads(line)["n"] for line in capfd.readouterr().out.splitlines()] == [0, 1, 2, 3]


@pytest.mark.parametrize("buffering", [-1, 0])
def test_an_output_that_takes_a_part_at_a_time_gets_all(
    monkeypatch: pytest.MonkeyPatch, buffering: int
) -> None:
    """A pipe that does not block, which takes nothing while it is full; with `PYTHONUNBUFFERED`, too."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    rows = pa.table({"n": range(50_000)})
    found: list[bytes] = []

    def read() -> None:
        with os.fdopen(reading, "rb") as pipe:
            found.append(pipe.read())

    thread = threading.Thread(target=read)
    with io.TextIOWrapper(
        os.fdopen(writing, "wb", buffering=buffering), write_through=not buffering
    ) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        storing = threading.Thread(target=printed, args=(rows,))
        storing.start()
        thread.start()
        storing.join(20)
    thread.join(20)
    assert [json.loads(line)["n"] for line in found[0].splitlines()] == list(range(50_000))


def test_an_output_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(FatalError, match="standard output cannot be written: No space left on device"):
            printed({"n": 1})
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(FatalError, match="standard output is closed, and nothing can be printed"):
        printed({"n": 1})


def test_a_reader_that_went_away_is_told_in_one_line() -> None:
    program = """
import asyncio
from collectors.errors import FatalError
from collectors.chunks import ChunkKey
from collectors.storage.backends.stdout import StdoutBackend
async def main():
    backend = StdoutBackend()
    await backend.connect()
    try:
        while True:
            await backend.store([{"n": number} for number in range(1000)])
    finally:
        await backend.disconnect()
try:
    asyncio.run(main())
except FatalError as error:
    import sys
    print(error, file=sys.stderr)
    sys.exit(1)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline()) == {"n": 0}
        process.stdout.close()
        assert process.stderr.read() == "standard output is closed: the program that read it has ended\n"
        assert process.wait(20) == 1
