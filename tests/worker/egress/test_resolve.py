import socket
import threading
import time
from ipaddress import ip_address

import pytest

from headwater.errors import Permanent, Transient
from headwater_worker.egress import canonical_host, resolve

from .conftest import Names

SPELLINGS = {
    "Example.COM": "example.com",
    "example.com.": "example.com",
    "my_service": "my_service",
    "bücher.example": "xn--bcher-kva.example",
    "xn--bcher-kva.example": "xn--bcher-kva.example",
    "127.0.0.1": "127.0.0.1",
    "127.0.0.1.": "127.0.0.1",
    "127.1": "127.0.0.1",
    "0": "0.0.0.0",
    "2130706433": "127.0.0.1",
    "0x7f000001": "127.0.0.1",
    "0x7f.0.0.0x1": "127.0.0.1",
    "0177.0.0.01": "127.0.0.1",
    "\uff11\uff12\uff17.0.0.1": "127.0.0.1",  # full-width digits
    "127\u30020\u30020\u30021": "127.0.0.1",  # ideographic full stops
    "::1": "::1",
    "[::1]": "::1",
    "[2001:DB8::1]": "2001:db8::1",
    "::ffff:127.0.0.1": "::ffff:7f00:1",
}

NOT_HOSTS = [
    "",
    ".",
    " example.com",
    "example.com\n",
    "exa mple.com",
    "exam\0ple.com",
    "user@example.com",
    "user:secret@example.com",
    "example.com/path",
    "example.com\\evil.example",
    "example.com:443",
    "example.com#x",
    "example.com?x",
    "ex%61mple.com",
    "a..b",
    ".example.com",
    "-a.example",
    "a-.example",
    "a" * 64 + ".example",
    ".".join(["a" * 60] * 5),
    "ü" * 1000,
    "1.2.3.4.5",
    "256.1.1.1",
    "0x7f.1.1.1.1",
    "example.1",
    "08.1.1.1",
    "fe80::1%lo",
    "[localhost]",
    "[::1",
    "::1]",
    "\u2028example.com",
]


@pytest.mark.parametrize("written", SPELLINGS)
def test_a_host_has_one_form(written: str) -> None:
    """Whatever libc or a browser would make of a spelling is what we look at."""
    assert canonical_host(written) == SPELLINGS[written]


@pytest.mark.parametrize("written", NOT_HOSTS)
def test_what_is_not_a_host_is_refused_before_any_look_up(written: str, names: Names) -> None:
    """Nothing that two parsers could cut differently reaches the name server."""
    with pytest.raises(Permanent) as caught:
        resolve(written, 443)
    assert (caught.value.code, names.asked) == ("config_invalid", [])


def test_a_refusal_does_not_repeat_what_was_written(names: Names) -> None:
    """A host field with a password in it must not come back in a message."""
    with pytest.raises(Permanent) as caught:
        resolve("user:hunter2@example.com", 443)
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    """A port is a number from 1 to 65535."""
    with pytest.raises(Permanent) as caught:
        resolve("127.0.0.1", port)
    assert caught.value.code == "config_invalid"


def test_all_answers_are_given_once_and_in_order(names: Names) -> None:
    """The caller judges every answer; repeats say nothing new."""
    names["many.example"] = [["93.184.216.34", "2606:4700::1111", "93.184.216.34"]]
    assert resolve("Many.Example.", 443) == (ip_address("93.184.216.34"), ip_address("2606:4700::1111"))


def test_an_address_is_not_looked_up(names: Names) -> None:
    """An address in any spelling needs no name server."""
    assert (resolve("0x7f.1", 80), names.asked) == ((ip_address("127.0.0.1"),), [])


def test_an_unknown_name_is_permanent(names: Names) -> None:
    """A name that does not exist will not exist in two seconds either."""
    with pytest.raises(Permanent) as caught:
        resolve("missing.example", 443)
    assert caught.value.code == "dns_not_found"


def test_a_silent_name_server_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no name server answers, the name may well exist."""

    def fail(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(Transient) as caught:
        resolve("example.com", 443)
    assert caught.value.code == "dns_not_found"


def test_a_slow_look_up_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that hangs in libc does not hang its caller."""
    release = threading.Event()

    def hang(*_args: object, **_options: object) -> list[object]:
        release.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    try:
        with pytest.raises(Transient) as caught:
            resolve("slow.example", 443, timeout_seconds=0.05)
    finally:
        release.set()
    assert (caught.value.code, time.monotonic() - began < 2) == ("timeout", True)
