from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import pytest

from collectors.testing.proxy import Proxy


@contextmanager
def shouting():
    """Serve: every line comes back in capitals. Yields the port and the lines that arrived."""
    listener = socket.create_server(("127.0.0.1", 0))
    lines: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            try:
                for line in reader:
                    lines.append(line)
                    connection.sendall(line.upper())
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=[connection], daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listener.getsockname()[1], lines
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.fixture
def through():
    with shouting() as (port, lines), Proxy("127.0.0.1", port) as proxy:
        proxy.lines = lines
        yield proxy


def connect(proxy: Proxy, timeout: float = 10.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout)


def ask(connection: socket.socket, line: bytes = b"hello\n") -> bytes:
    connection.sendall(line)
    return connection.recv(1000)


def wait_for(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_it_passes_and_counts(through):
    with connect(through) as one, connect(through) as two:
        assert ask(one) == b"HELLO\n"
        assert ask(two, b"you\n") == b"YOU\n"
    assert (through.connections, through.to_server, through.to_client) == (2, 10, 10)


def test_an_end_goes_through_in_both_directions(through):
    with connect(through) as one:
        one.sendall(b"last")
        one.shutdown(socket.SHUT_WR)
        assert one.recv(1000) == b"LAST"
        assert one.recv(1000) == b""


def test_a_port_that_refuses(through):
    with connect(through) as one:
        ask(one)
        through.refuses()
        with pytest.raises(ConnectionResetError):
            one.recv(1000)
    with pytest.raises(ConnectionRefusedError):
        connect(through)
    through.passes()
    with connect(through) as again:
        assert ask(again) == b"HELLO\n"


def test_a_hang_holds_everything_back_until_it_ends(through):
    with connect(through) as old:
        ask(old)
        through.hangs()
        with connect(through) as new:
            for connection in (old, new):
                connection.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    ask(connection, b"wait\n")
                connection.settimeout(10)
            assert through.lines == [b"hello\n"]
            through.passes()
            assert old.recv(1000) == new.recv(1000) == b"WAIT\n"


def test_resets_end_old_and_new_connections(through):
    with connect(through) as old:
        ask(old)
        through.resets()
        with pytest.raises(ConnectionResetError):
            old.recv(1000)
    with pytest.raises(ConnectionResetError), connect(through) as new:
        new.recv(1000)


def test_drops_end_old_connections_alone(through):
    with connect(through) as old:
        ask(old)
        through.drops()
        with pytest.raises(ConnectionResetError):
            old.recv(1000)
    with connect(through) as new:
        assert ask(new) == b"HELLO\n"


def test_a_slow_line(through):
    with connect(through) as one:
        through.slows_to(200)
        began = time.monotonic()
        one.sendall(b"x" * 39 + b"\n")
        got = b""
        while len(got) < 40:
            got += one.recv(1000)
        assert time.monotonic() - began >= 0.2
        one.sendall(b"x" * 5_000 + b"\n")
        wait_for(lambda: through.to_server > 50)
        through.passes()  # what was slow is not any more
        got = b""
        while len(got) < 5_001:
            got += one.recv(10_000)


@pytest.mark.parametrize(("moment", "arrives"), [("before", False), ("with", True), ("answered", True)])
def test_a_cut_where_a_pattern_goes_by(through, moment, arrives):
    through.cuts(b"COMMIT\n", moment, [2])
    with connect(through) as one:
        assert ask(one, b"COMMIT\n") == b"COMMIT\n"
        one.sendall(b"xCOMMIT\n")
        with pytest.raises(ConnectionResetError):
            assert one.recv(1000) == b""
    if arrives:
        wait_for(lambda: b"xCOMMIT\n" in through.lines)
    assert (b"xCOMMIT\n" in through.lines) == arrives
    assert (through.seen, through.cut) == (2, 1)
    with connect(through) as again:
        assert ask(again, b"COMMIT\n") == b"COMMIT\n"


def test_a_pattern_that_comes_in_two_pieces_is_found(through):
    through.cuts(b"COMMIT", "before", [1])
    with connect(through) as one, connect(through) as other:
        assert ask(one, b"COM\n") == b"COM\n"
        one.sendall(b"COM")
        wait_for(lambda: through.to_server == 7)
        assert ask(other, b"MIT\n") == b"MIT\n"  # of another connection: no part of it
        one.sendall(b"MIT")
        with pytest.raises(ConnectionResetError):
            one.recv(1000)
    assert through.cut == 1


def test_a_target_that_is_not_there():
    with (
        Proxy("127.0.0.1", 1) as proxy,
        pytest.raises(ConnectionResetError),  # while connecting, or at the first byte
        connect(proxy) as one,
    ):
        one.recv(1000)


def test_nothing_is_left():
    before = set(threading.enumerate())
    with shouting() as (port, _), Proxy("127.0.0.1", port) as proxy:
        one = connect(proxy)
        ask(one)
        proxy.hangs()
        two = connect(proxy)
    for connection in (one, two):
        with pytest.raises(ConnectionResetError):
            connection.recv(1000)
        connection.close()
    wait_for(lambda: set(threading.enumerate()) == before)
