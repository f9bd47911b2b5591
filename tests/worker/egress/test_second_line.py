import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.errors import Permanent
from headwater_worker.egress import Policy, Proxy, second_line

from .conftest import Canary, Names


@pytest.fixture(autouse=True)
def lifted() -> Iterator[None]:
    yield
    second_line.lift()


def test_a_denied_address_is_not_connected(canary: Canary) -> None:
    """Python code that connects by itself is stopped before a packet leaves."""
    second_line.install(Policy())
    with socket.socket() as connection, pytest.raises(Permanent) as caught:
        connection.connect(("127.0.0.1", canary.port))
    assert (caught.value.code, canary.hits()) == ("blocked_target", 0)


def test_an_event_loop_is_stopped_too(canary: Canary) -> None:
    """asyncio connects without `create_connection` of the socket module."""
    second_line.install(Policy())
    with pytest.raises(Permanent):
        asyncio.run(asyncio.open_connection("127.0.0.1", canary.port))
    assert canary.hits() == 0


def test_an_allowed_address_is_connected(canary: Canary) -> None:
    """The honest twin."""
    second_line.install(Policy.parse("127.0.0.1"))
    socket.create_connection(("127.0.0.1", canary.port)).close()
    assert canary.hits() == 1


def test_a_name_is_not_connected(canary: Canary) -> None:
    """A name in `connect` would be looked up after the check."""
    second_line.install(Policy.parse("127.0.0.0/8,::1"))
    with socket.socket() as connection, pytest.raises(Permanent):
        connection.connect(("localhost", canary.port))
    assert canary.hits() == 0


def test_own_endpoints_are_connected(canary: Canary) -> None:
    """Headwater's own Redis lives on a private address, and no setting for customers' hosts is needed for it."""
    second_line.install(Policy(), [("127.0.0.1", canary.port)])
    socket.create_connection(("127.0.0.1", canary.port)).close()
    assert canary.hits() == 1


def test_an_own_endpoint_by_name_is_connected_at_its_address(canary: Canary, names: Names) -> None:
    """In a compose network Redis is a name, and clients look it up before they connect."""
    names["redis"] = [["127.0.0.1"]]
    second_line.install(Policy(), [("redis", canary.port)])
    socket.socket.connect(connection := socket.socket(), ("127.0.0.1", canary.port))
    connection.close()
    assert canary.hits() == 1


def test_an_own_endpoint_opens_one_port(canary: Canary) -> None:
    """What else listens on the machine of our Redis stays closed."""
    second_line.install(Policy(), [("127.0.0.1", canary.port + 1)])
    with socket.socket() as connection, pytest.raises(Permanent):
        connection.connect(("127.0.0.1", canary.port))
    assert canary.hits() == 0


def test_a_unix_socket_is_connected(tmp_path: Path) -> None:
    """A path on the machine is not a way out."""
    second_line.install(Policy())
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as connection:
        listener.bind(path)
        listener.listen()
        connection.connect(path)
        assert connection.getpeername() == path


def test_the_proxy_is_an_own_endpoint_while_it_runs() -> None:
    """A client in the child reaches the proxy although loopback is denied, and only as long as it is ours."""
    second_line.install(Policy())
    with Proxy(Policy()) as proxy:
        port = int(proxy.url.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port)).close()
    with socket.socket() as connection, pytest.raises(Permanent):
        connection.connect(("127.0.0.1", port))


def test_an_install_leaves_a_running_proxy_open() -> None:
    """The order in which a child sets up its lines does not matter."""
    with Proxy(Policy()) as proxy:
        second_line.install(Policy())
        port = int(proxy.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            assert connection.getpeername()[1] == port


def test_a_second_install_replaces_the_first(canary: Canary) -> None:
    """The hook reads the state of the module: it can be tightened and loosened."""
    second_line.install(Policy())
    second_line.install(Policy.parse("127.0.0.1"))
    socket.create_connection(("127.0.0.1", canary.port)).close()
    assert canary.hits() == 1
