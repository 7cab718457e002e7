"""Sockets: what arrives is a record, once; what the kernel drops is counted; nobody takes more than is given to one."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import stat
import tempfile
import termios
import threading
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from _push_client import free_port
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.collection.base import LineFraming
from collectors.collection.sources._socket_frames import FramingLostError, one_line, stream_frames
from collectors.collection.sources._socket_listeners import Piece
from collectors.collection.sources.socket import SocketSource
from collectors.errors import ConfigurationError
from collectors.testing.source_contract import SourceContract

NO_POSITION = "nobody can be asked for a record again"
RMEM = Path("/proc/sys/net/core/rmem_max")
linux = pytest.mark.skipif(not RMEM.exists(), reason="needs Linux, whose kernel counts what it drops")


class TestUnixDatagrams(SourceContract):
    component = "socket"
    endless = True
    count = 12
    waive = {
        "position_survives_json": NO_POSITION,
        "resume_from_every_position": NO_POSITION,
        "read_again_from_earlier_position": NO_POSITION,
    }

    @asynccontextmanager
    async def rig(self, ids):
        """Send all records each time the socket is made anew, one when the one before has been received."""
        stop, known = threading.Event(), set()

        def send(path):
            made = Path(path).stat()
            if (made.st_ino, made.st_ctime_ns) in known:
                return
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
                client.connect(path)
                known.add((made.st_ino, made.st_ctime_ns))
                for each in ids:
                    client.send(b'{"id": %d}\n' % each)
                    while not stop.is_set() and any(fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4))):
                        stop.wait(0.0005)

        def run(path):
            while not stop.wait(0.01):
                with contextlib.suppress(OSError):
                    send(path)

        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/socket"
            thread = threading.Thread(target=run, args=(path,))
            thread.start()
            try:
                yield {"listen": f"unixgram://{path}", "format": "ndjson", "chunk_size": 1}
            finally:
                stop.set()
                await asyncio.to_thread(thread.join)


class Driver:
    """Reads a source, as the runtime does, and stops it."""

    def __init__(self, listen="udp://127.0.0.1:0", **settings):
        self.source = SocketSource(listen=listen, **settings)
        self.told, self.lost, self.chunks = [], 0, []
        self.source.tell = self.told.append
        self.source.count_lost = self.count
        self.holding = asyncio.Event()
        self.holding.set()

    def count(self, records):
        self.lost += records

    async def __aenter__(self):
        await self.source.connect()
        self.address = self.source.address
        self.task = asyncio.create_task(self.run())
        return self

    async def run(self):
        async for chunk in self.source.stream(None):
            self.chunks.append(chunk)
            await self.holding.wait()

    async def stop_reading(self):
        self.task.cancel()
        await asyncio.wait([self.task])

    async def drain(self):
        async for chunk in self.source.rest():
            self.chunks.append(chunk)

    async def __aexit__(self, *error):
        if not self.task.done():
            await self.stop_reading()
            await self.drain()
        await self.source.disconnect()

    def client(self):
        kind = socket.SOCK_DGRAM if "udp" in self.source.config.listen else socket.SOCK_STREAM
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        client = socket.socket(socket.AF_INET6 if "[" in self.source.config.listen else family, kind)
        client.settimeout(20)
        client.connect(self.address)
        return client

    @property
    def lines(self):
        good = [chunk for chunk in self.chunks if chunk.data_format != "rejected"]
        return [line for chunk in good for line in chunk.raw_data.split(b"\n") if line]

    @property
    def refused(self):
        return [chunk.metadata["reason"] for chunk in self.chunks if chunk.data_format == "rejected"]

    async def until(self, condition):
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0)


def driven(check, **settings):
    async def main():
        async with Driver(**settings) as driver:
            await check(driver)
        return driver

    return asyncio.run(main())


def test_datagrams_of_syslog_are_records_whatever_is_in_them():
    async def check(driver):
        with driver.client() as client:
            for datagram in (b"<13>one\n", b"<13>two\nlines", b"", b"\n", b"<13>nul\0", b"<13>last"):
                client.send(datagram)
        await driver.until(lambda: len(driver.lines) == 4)
        assert driver.lines == [b"<13>one", b"<13>two#012lines", b"<13>nul", b"<13>last"]
        assert driver.chunks[0].metadata["peers"].keys() == {"127.0.0.1"}

    driven(check, framing="syslog")


def test_a_burst_becomes_few_chunks():
    async def check(driver):
        with driver.client() as client:
            for n in range(2000):
                client.send(b"<13>record %d" % n)
                if n % 500 == 499:
                    await driver.until(lambda n=n: len(driver.lines) == n + 1)
        assert driver.lines == [b"<13>record %d" % n for n in range(2000)]
        assert len(driver.chunks) < 100
        assert sum(sum(chunk.metadata["peers"].values()) for chunk in driver.chunks) == 2000

    driven(check, framing="syslog")


@linux
def test_what_the_kernel_drops_is_counted_exactly():
    async def check(driver):
        with driver.client() as client:
            for _ in range(20_000):  # nobody reads meanwhile
                client.send(b"x" * 100)
        await driver.until(lambda: driver.lost)
        with driver.client() as client:
            client.send(b"last")
        await driver.until(lambda: b"last" in driver.lines)
        assert len(driver.lines) + driver.lost == 20_001
        assert driver.lost > 1000

    driven(check, framing="syslog", receive_buffer=8192)


@linux
def test_a_buffer_that_is_smaller_than_wanted_is_told(monkeypatch):
    monkeypatch.setattr("collectors.collection.sources._socket_listeners._SO_RCVBUFFORCE", 9999)

    async def check(driver):
        assert "net.core.rmem_max" in driver.told[0]

    driven(check, receive_buffer="1 GiB")


def test_the_report_of_a_run_says_what_was_lost(tmp_path):
    from collectors.runtime.ledger import FlowReport

    report = FlowReport("syslog")
    assert report.remarks() == []
    report.count_lost(1234)
    assert report.remarks() == ["syslog: 1,234 records were lost before they could be read"]
    assert report.as_dict()["lost_before_source"] == 1234


def test_a_datagram_that_is_too_long_is_refused():
    async def check(driver):
        with driver.client() as client:
            client.send(b"x" * 101)
            client.send(b"y" * 100)
        await driver.until(lambda: driver.lines)
        assert driver.lines == [b"y" * 100]
        assert driver.refused == ["a datagram is longer than max_record (100 bytes)"]

    driven(check, max_record=100)


@pytest.mark.parametrize("listen", ["tcp://127.0.0.1:0", "tcp://[::1]:0", "unix://{folder}/socket"])
def test_streams_of_several_clients(listen, tmp_path):
    async def check(driver):
        with driver.client() as one, driver.client() as two:
            one.send(b"a1\na")
            two.send(b"b1\nb2\n")
            await driver.until(lambda: len(driver.lines) == 3)
            one.send(b"2\na3")
        await driver.until(lambda: len(driver.lines) == 5)
        assert sorted(driver.lines) == [b"a1", b"a2", b"a3", b"b1", b"b2"]

    driven(check, listen=listen.format(folder=tmp_path))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"<1>one\n<2>two\r\n<3>three\n", [b"<1>one", b"<2>two\r", b"<3>three"]),
        (b"6 <1>one6 <2>two", [b"<1>one", b"<2>two"]),
        (b"10 <1>one\ntwo6 <2>two", [b"<1>one#012two", b"<2>two"]),
        (b"2024 was a line\nother\n", [b"2024 was a line", b"other"]),
        (b"7 <1>one\n7 <2>two\n", [b"<1>one", b"<2>two"]),
    ],
)
def test_syslog_over_streams(data, expected):
    async def check(driver):
        for size in (1, len(data)):
            driver.chunks.clear()
            with driver.client() as client:
                for start in range(0, len(data), size):
                    client.send(data[start : start + size])
            await driver.until(lambda: not driver.source._listener.clients and driver.lines)
            await driver.until(lambda: len(driver.lines) == len(expected))
            assert driver.lines == expected

    driven(check, listen="tcp://127.0.0.1:0", framing="syslog")


LIMIT = 64


def framed(data, cuts, *, limit=LIMIT):
    frames = stream_frames(LineFraming(), syslog=True, limit=limit)
    good, bad, start = [], [], 0
    try:
        for end in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
            for raw, reason in frames.feed(data[start:end]):
                (good if reason is None else bad).append(raw if reason is None else reason)
            start = end
        for raw, reason in frames.finish(None):
            (good if reason is None else bad).append(raw if reason is None else reason)
    except FramingLostError:
        bad.append("lost")
    return b"".join(good), bad


RECORDS = st.lists(st.binary(max_size=LIMIT - 5).map(lambda body: b"<13>" + body), min_size=1, max_size=8)


CUTS = st.lists(st.integers(0, 400), max_size=30)


@settings(max_examples=200, deadline=None)
@given(RECORDS, CUTS)
def test_counted_records_come_out_as_they_went_in_however_they_are_cut(records, cuts):
    data = b"".join(b"%d %s" % (len(record), record) for record in records)
    lines, bad = framed(data, cuts)
    assert lines == b"".join(map(one_line, records))
    assert bad == []


@settings(max_examples=200, deadline=None)
@given(RECORDS, st.integers(0, 7), CUTS)
def test_a_record_that_is_too_long_costs_itself_alone(records, place, cuts):
    place %= len(records)
    records = [record.replace(b"\r", b"").replace(b"\n", b"") for record in records]
    with_long = [*records[:place], b"<13>" + b"x" * 1000, *records[place:]]
    data = b"".join(b"%d %s" % (len(record), record) for record in with_long)
    lines, bad = framed(data, cuts)
    assert lines == b"".join(map(one_line, records))
    assert bad == [f"record of 1004 bytes is longer than max_record ({LIMIT} bytes)"]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), CUTS)
def test_hostile_bytes_never_break_the_reader(data, cuts):
    whole, _ = framed(data, [])
    cut, _ = framed(data, cuts)
    assert whole == cut


def test_a_lost_count_closes_the_connection_and_says_so():
    async def check(driver):
        with driver.client() as client:
            client.send(b"6 <1>one6 <2>twoGARBAGE")
            assert await asyncio.to_thread(client.recv, 10) == b""
        await driver.until(lambda: driver.refused)
        assert driver.lines == [b"<1>one", b"<2>two"]
        assert driver.refused == [
            "expected the length of the next record; it cannot be told where one begins"
        ]

    driven(check, listen="tcp://127.0.0.1:0", framing="syslog")


def test_a_reader_that_is_slow_holds_up_its_senders():
    async def check(driver):
        driver.holding.clear()
        with driver.client() as client:
            client.settimeout(0.5)
            sent = 0
            block = (b"x" * 99 + b"\n") * 10_000

            def fill():
                nonlocal sent
                with contextlib.suppress(TimeoutError):
                    while True:
                        sent += client.send(block)

            await asyncio.to_thread(fill)
            held = driver.source._basket._size + sum(len(chunk.raw_data) for chunk in driver.chunks)
            assert held < 20 * 2**20
            driver.holding.set()
            await driver.until(lambda: len(driver.lines) == sent // 100)

    driven(check, listen="tcp://127.0.0.1:0")


def test_what_has_arrived_is_stored_at_a_stop_and_a_torn_record_is_set_aside():
    async def main():
        driver = Driver(listen="tcp://127.0.0.1:0")
        async with driver:
            with driver.client() as client:
                client.send(b"first\n")
                await driver.until(lambda: driver.lines)
                await driver.stop_reading()
                client.send(b"second\nthi")
                await driver.drain()
        assert driver.lines == [b"first", b"second"]
        assert driver.refused == ["the receiver stopped inside this record"]

    asyncio.run(main())


def test_datagrams_that_have_arrived_are_stored_at_a_stop():
    async def main():
        driver = Driver()
        async with driver:
            await driver.stop_reading()
            with driver.client() as client:
                for n in range(100):
                    client.send(b"%d" % n)
            await driver.drain()
        assert driver.lines == [b"%d" % n for n in range(100)]

    asyncio.run(main())


def test_what_was_taken_and_not_handed_on_when_reading_stopped_comes_with_the_next_reading():
    async def main():
        source = SocketSource(listen="udp://127.0.0.1:0", chunk_size=1)
        await source.connect()
        for n in range(5):
            source._basket.put(Piece(b"%d\n" % n, {"local": 1}))
        async with asyncio.timeout(20):
            found = [(await source.collect()).raw_data, (await source.collect()).raw_data]
            found += [chunk.raw_data async for chunk in source.rest()]
        await source.disconnect()
        assert found == [b"0\n", b"1\n", b"2\n", b"3\n", b"4\n"]

    asyncio.run(main())


def test_one_connection_too_many_is_closed():
    async def main():
        async with Driver(listen="tcp://127.0.0.1:0", max_connections=3) as driver:
            with ExitStack() as stack:
                clients = [stack.enter_context(driver.client()) for _ in range(3)]
                for client in clients:
                    client.send(b"in\n")
                await driver.until(lambda: len(driver.lines) == 3)
                with driver.client() as client:
                    assert await asyncio.to_thread(client.recv, 10) == b""
        assert driver.told == ["1 connections were turned away: more than max_connections"]

    asyncio.run(main())


def test_a_silent_connection_is_closed():
    async def main():
        async with Driver(listen="tcp://127.0.0.1:0", idle_timeout=0.2) as driver:
            with driver.client() as client:
                client.send(b"one\ntw")
                assert await asyncio.to_thread(client.recv, 10) == b""
            await driver.until(lambda: driver.refused)
        assert (driver.lines, driver.refused) == ([b"one"], ["the connection was silent inside this record"])
        assert driver.told == ["1 connections were closed: they sent nothing for longer than idle_timeout"]

    asyncio.run(main())


@pytest.mark.parametrize("listen", ["udp://127.0.0.1:0", "tcp://127.0.0.1:0"])
def test_only_those_who_may_send(listen):
    async def main(allow):
        async with Driver(listen=listen, allow=allow) as driver:
            with driver.client() as client:
                with contextlib.suppress(ConnectionError):
                    client.send(b"one\n")
                await driver.until(lambda: driver.lines or "10." in str(allow))
                if "tcp" in listen and not driver.lines:
                    with contextlib.suppress(ConnectionError):
                        assert await asyncio.to_thread(client.recv, 10) == b""
        return driver

    assert asyncio.run(main(["127.0.0.0/8", "2001:db8::/32"])).lines == [b"one"]
    driver = asyncio.run(main(["10.0.0.0/8"]))
    assert driver.lines == []
    assert driver.told == ["1 datagrams or connections were refused: not of a network in `allow`"]


def test_a_unix_socket_is_for_its_owner_and_gone_at_the_end(tmp_path):
    path = tmp_path / "socket"

    async def check(driver):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    old = os.umask(0)
    try:
        driven(check, listen=f"unix://{path}")
    finally:
        os.umask(old)
    assert not path.exists()


@pytest.mark.parametrize("scheme", ["unix", "unixgram"])
def test_a_stale_socket_is_replaced_and_one_in_use_is_not(tmp_path, scheme):
    path = tmp_path / "socket"
    kind = socket.SOCK_STREAM if scheme == "unix" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_UNIX, kind) as killed:
        killed.bind(str(path))

    async def check(driver):
        with pytest.raises(ConfigurationError, match="another process listens there"):
            await SocketSource(listen=f"{scheme}://{path}").connect()
        assert path.exists()

    driven(check, listen=f"{scheme}://{path}")


def test_a_file_in_the_way_is_left_alone(tmp_path):
    path = tmp_path / "socket"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="is there and is no socket"):
        asyncio.run(SocketSource(listen=f"unix://{path}").connect())
    assert path.read_text() == "precious"


def test_an_address_that_is_taken_is_named():
    port = free_port()
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(
            ConfigurationError, match=rf"cannot listen on 127.0.0.1:{port}: Address already in use"
        ),
    ):
        asyncio.run(SocketSource(listen=f"tcp://127.0.0.1:{port}").connect())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"listen": "udp://0.0.0.0:514"}, "say in `allow` which networks may send"),
        ({"listen": "tcp://[::]:514"}, "say in `allow` which networks may send"),
        ({"listen": "127.0.0.1:514"}, "expected udp://host:port"),
        ({"listen": "unix://relative"}, "expected udp://host:port"),
        ({"listen": "http://127.0.0.1:80"}, "expected udp://host:port"),
        ({"listen": "udp://127.0.0.1:1", "tls": {"cert": "a", "key": "b"}}, "tls: only with tcp://"),
        ({"listen": "unix:///x", "mode": "rw"}, "mode"),
        ({"listen": "udp://0.0.0.0:1", "allow": ["10.0.0.0/99"]}, "allow"),
    ],
)
def test_settings_that_do_not_fit_are_refused(given, message):
    with pytest.raises(ValueError, match=".*") as error:
        SocketSource(**given)
    assert message in str(error.value)
