"""Standard input as a pipe and as a file object."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import asynccontextmanager, suppress

from _stopping import stored_when_stopped

from collectors.collection.sources.stdin import StdinSource
from collectors.testing.source_contract import SourceContract

NO_POSITION = "what was read from a pipe cannot be read again"


class TestStdin(SourceContract):
    component = "stdin"
    waive = {
        "position_survives_json": NO_POSITION,
        "resume_from_every_position": NO_POSITION,
        "read_again_from_earlier_position": NO_POSITION,
    }

    @asynccontextmanager
    async def rig(self, ids):
        reader, writer = os.pipe()
        stop = threading.Event()

        def write():
            with suppress(BrokenPipeError), os.fdopen(writer, "wb", buffering=0) as file:
                file.writelines(b'{"id": %d}\n' % each for each in ids)

        thread = threading.Thread(target=write)
        with os.fdopen(reader, "rb") as file:
            self.file = file
            thread.start()
            thread.join()
            yield {"chunk_size": 64}
            stop.set()

    def make(self, settings):
        source = super().make(settings)
        source._file = self.file
        return source


def read(file, **settings):
    async def main():
        source = StdinSource(file=file, **settings)
        await source.connect()
        try:
            return [chunk async for chunk in source.collect_stream()]
        finally:
            await source.disconnect()

    return asyncio.run(main())


def test_the_last_line_may_lack_its_newline():
    chunks = read(io.BytesIO(b'{"id": 1}\n{"id": 2}'))
    assert b"".join(chunk.raw_data for chunk in chunks) == b'{"id": 1}\n{"id": 2}'


def test_an_empty_input_ends_at_once():
    assert read(io.BytesIO(b"")) == []


def test_a_line_that_is_too_long_is_refused_and_the_rest_goes_on():
    data = b'{"id": 1}\n' + b"x" * 5000 + b'\n{"id": 2}\n'
    chunks = read(io.BytesIO(data), max_record=1024, chunk_size=100)
    refused = [chunk for chunk in chunks if chunk.data_format == "rejected"]
    assert [chunk.metadata["reason"] for chunk in refused] == [
        "record of 5000 bytes is longer than max_record (1 KiB)"
    ]
    assert b"".join(chunk.raw_data for chunk in chunks if chunk not in refused) == b'{"id": 1}\n{"id": 2}\n'
    assert [chunk.metadata["offset"] for chunk in refused] == [10]


def test_lines_are_handed_on_as_they_come_and_nothing_is_lost_when_reading_stops_between():
    async def main():
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb") as file, os.fdopen(writer, "wb", buffering=0) as out:
            source = StdinSource(file=file)
            await source.connect()
            out.write(b'{"id": 1}\n{"id"')
            assert (await source.collect()).raw_data == b'{"id": 1}\n'
            waiting = asyncio.ensure_future(source.collect())
            for _ in range(20):  # let it take the half line
                await asyncio.to_thread(int)
            waiting.cancel()
            await asyncio.wait([waiting])
            out.write(b": 2}\n")
            assert (await source.collect()).raw_data == b'{"id": 2}\n'
            await source.disconnect()

    asyncio.run(main())


def test_a_waiting_read_does_not_keep_the_process_alive():
    program = (
        "import asyncio\n"
        "from collectors.collection.sources.stdin import StdinSource\n"
        "async def main():\n"
        "    source = StdinSource()\n"
        "    await source.connect()\n"
        "    try:\n"
        "        await asyncio.wait_for(source.collect(), 0.2)\n"
        "    except TimeoutError:\n"
        "        print('timed out')\n"
        "    await source.disconnect()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.read() == b"timed out\n"
        assert process.wait(10) == 0


class Header:
    """One record a line, below a header line that each chunk needs."""

    def preamble(self, head):
        return head.find(b"\n") + 1

    def cut(self, data, *, final):
        return len(data) if final else data.rfind(b"\n") + 1


def test_each_chunk_has_the_header_line_in_front():
    async def main():
        source = StdinSource(file=io.BytesIO(b"a,b\n1,2\n3,4\n5,6\n"), format="csv", chunk_size=8)
        source.framing = Header()
        await source.connect()
        chunks = [chunk async for chunk in source.collect_stream()]
        await source.disconnect()
        return chunks

    chunks = asyncio.run(main())
    assert [chunk.raw_data for chunk in chunks] == [b"a,b\n1,2\n", b"a,b\n3,4\n5,6\n"]
    assert [chunk.metadata["offset"] for chunk in chunks] == [0, 4]
    assert {chunk.data_format for chunk in chunks} == {"csv"}


def test_what_is_in_the_pipe_is_stored_when_it_stops(tmp_path):
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as file, os.fdopen(writer, "wb", buffering=0) as pipe:
        pipe.write(b"".join(b'{"id": %d}\n' % n for n in range(3000)))
        source = StdinSource(file=file, chunk_size="1 KiB")
        assert stored_when_stopped(source, tmp_path) == Counter(range(3000))
