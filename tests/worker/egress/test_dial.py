import socket
import time
from ipaddress import ip_address

import pytest

from headwater.errors import Permanent, Transient
from headwater_worker.egress import Policy, connect, dial

from .conftest import Canary, Names

ONE = Policy.parse("127.0.0.1")


@pytest.fixture
def full() -> "socket.socket":
    """A listener whose backlog is full: further connects get no answer, as behind a firewall that drops."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.socket() for _ in range(4)]
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(listener.getsockname())
    yield listener
    for each in (*waiting, listener):
        each.close()


@pytest.mark.parametrize("written", ["127.0.0.1", "0x7f.1", "2130706433", "localhost", "[::ffff:127.0.0.1]"])
def test_loopback_is_denied_by_default(written: str, canary: Canary) -> None:
    """No spelling of loopback gets a packet out."""
    with pytest.raises(Permanent) as caught:
        dial(written, canary.port, 2, Policy())
    assert (caught.value.code, canary.hits()) == ("blocked_target", 0)


@pytest.mark.parametrize("written", ["127.0.0.1", "0x7f.1", "2130706433", "name.example"])
def test_an_allowed_address_is_reached(written: str, canary: Canary, names: Names) -> None:
    """The honest twin: with the network allowed, each spelling connects."""
    names["name.example"] = [["127.0.0.1"]]
    dial(written, canary.port, 2, ONE).close()
    assert canary.hits() == 1


@pytest.mark.parametrize("answers", [["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "::1"]])
def test_one_denied_answer_refuses_them_all(answers: list[str], canary: Canary, names: Names) -> None:
    """A name with a good and a bad answer is refused, in either order, without a connection to the good one."""
    names["mixed.example"] = [answers]
    with pytest.raises(Permanent) as caught:
        dial("mixed.example", canary.port, 2, ONE)
    assert (caught.value.code, canary.hits()) == ("blocked_target", 0)


def test_a_name_without_addresses_is_refused(names: Names) -> None:
    """`all()` of nothing is true; nothing is not an address to connect to."""
    names["empty.example"] = [[]]
    with pytest.raises(Permanent) as caught:
        dial("empty.example", 80, 2, ONE)
    assert caught.value.code == "blocked_target"


def test_rebinding_gains_nothing(canary: Canary, names: Names) -> None:
    """The name is asked once, and the checked answer is dialled although the next one differs."""
    names["rebind.example"] = [["127.0.0.1"], ["127.0.0.2"]]
    connection = dial("rebind.example", canary.port, 2, ONE)
    peer = connection.getpeername()[0]
    connection.close()
    assert (peer, names.asked) == ("127.0.0.1", ["rebind.example"])


def test_the_hint_names_the_setting_and_the_host_and_no_address(names: Names) -> None:
    """A refusal says the way out, and does not tell what a private name server answers."""
    names["db.internal"] = [["10.11.12.13"]]
    with pytest.raises(Permanent) as caught:
        dial("DB.internal", 5432, 2, Policy())
    told = f"{caught.value.message} {caught.value.hint}"
    assert ["HEADWATER_EGRESS_ALLOW" in told, "DB.internal" in told, "10.11.12" in told] == [
        True,
        True,
        False,
    ]


def test_a_closed_port_is_a_refused_connection(canary: Canary) -> None:
    """A host that is up and does not listen says so."""
    canary.close()
    with pytest.raises(Transient) as caught:
        dial("127.0.0.1", canary.port, 2, ONE)
    assert caught.value.code == "connection_refused"


def test_the_next_address_is_tried(canary: Canary) -> None:
    """An address that refuses does not hide one that accepts."""
    connect([ip_address("127.0.0.2"), ip_address("127.0.0.1")], canary.port, 2).close()
    assert canary.hits() == 1


def test_a_host_that_swallows_packets_is_a_timeout(full: socket.socket) -> None:
    """Nothing comes back: the dial ends at its deadline."""
    began = time.monotonic()
    with pytest.raises(Transient) as caught:
        dial("127.0.0.1", full.getsockname()[1], 0.2, ONE)
    assert (caught.value.code, time.monotonic() - began < 2) == ("timeout", True)


def test_a_swallowing_address_leaves_time_for_the_next(full: socket.socket) -> None:
    """The deadline is shared out: a broken first address does not use up the second one's part."""
    port = full.getsockname()[1]
    with socket.create_server(("127.0.0.2", port)):
        connection = connect([ip_address("127.0.0.1"), ip_address("127.0.0.2")], port, 1)
        peer = connection.getpeername()[0]
        connection.close()
    assert peer == "127.0.0.2"


def test_a_dialled_socket_keeps_a_timeout(canary: Canary) -> None:
    """A server that accepts and stays silent must not hold its caller for ever."""
    connection = dial("127.0.0.1", canary.port, 3, ONE)
    kept = connection.gettimeout()
    connection.close()
    assert kept == 3
