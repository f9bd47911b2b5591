"""The proxy that scenarios put between processes does what its modes say."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import wire
from wire import Wire


@pytest.fixture
def line() -> Iterator[Wire]:
    """A wire to a server that says everything back."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        with wire.to(f"redis://:secret@127.0.0.1:{server.getsockname()[1]}/0") as line:
            yield line
        server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(client,), daemon=True).start()


def _echo(client: socket.socket) -> None:
    with client:
        try:
            while said := client.recv(100):
                client.sendall(said)
        except OSError:
            return


def connect(line: Wire) -> socket.socket:
    """A client of the wire."""
    host, _, port = line.url.rpartition("@")[2].removesuffix("/0").partition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def say(client: socket.socket, text: bytes = b"hello") -> bytes:
    """What comes back."""
    client.sendall(text)
    return client.recv(100)


def test_the_login_stays_in_the_url(line: Wire) -> None:
    """The process behind the wire logs in as it would without."""
    assert line.url.startswith("redis://:secret@127.0.0.1:")


def test_what_passes_is_counted(line: Wire) -> None:
    """Towards the server only."""
    with connect(line) as client:
        assert say(client) == b"hello"
        assert (line.carried, line.open) == (5, 1)


def test_a_cut_ends_what_is_open_and_nothing_else(line: Wire) -> None:
    """The client sees a reset; a new one is served."""
    with connect(line) as client:
        say(client)
        line.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(line) as client:
        assert say(client) == b"hello"


def test_a_server_that_is_down(line: Wire) -> None:
    """Resets until it is back."""
    with connect(line) as client:
        say(client)
        line.mode = "reset"
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionError), connect(line) as client:
        say(client) or _raise_closed()
    line.mode = "pass"
    with connect(line) as client:
        assert say(client) == b"hello"


def _raise_closed() -> None:
    raise ConnectionError


def test_a_black_hole_keeps_what_goes_in_until_it_opens(line: Wire) -> None:
    """Neither an answer nor an end; then the answer."""
    with connect(line) as client:
        say(client)
        line.mode = "blackhole"
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            say(client, b"dark")
        line.mode = "pass"
        client.settimeout(5)
        assert client.recv(100) == b"dark"


def test_a_slow_line_takes_its_time(line: Wire) -> None:
    """`slow_seconds` for each piece, both ways."""
    line.slow_seconds, line.mode = 0.2, "slow"
    with connect(line) as client:
        began = time.monotonic()
        assert say(client) == b"hello"
        assert time.monotonic() - began >= 2 * line.slow_seconds
