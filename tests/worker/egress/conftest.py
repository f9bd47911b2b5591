"""Fixtures of the egress tests: a hard stop before any dial beyond loopback, and listeners that count."""

import re
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

import pytest

# An audit hook cannot be removed: this one is armed by a fixture, for the tests of this folder alone.
_armed = threading.Event()


class HardStop(BaseException):
    """No test of egress may reach beyond loopback, whatever the policy under test says."""


def _hard_stop(event: str, arguments: tuple[Any, ...]) -> None:
    if not _armed.is_set():
        return
    if event == "socket.connect" and arguments[0].family != socket.AF_UNIX:
        _require_loopback(arguments[1][0])
    if event == "socket.getaddrinfo":
        _require_loopback(arguments[0])


def _require_loopback(host: object) -> None:
    try:
        loopback = ip_address(str(host)).is_loopback
    except ValueError:
        loopback = host in (None, "localhost")
    if not loopback:
        raise HardStop(f"a test was about to leave loopback for {host}")


@pytest.fixture(scope="session")
def _hooked() -> None:
    sys.addaudithook(_hard_stop)


@pytest.fixture(autouse=True)
def hard_stop(_hooked: None) -> Iterator[None]:
    _armed.set()
    yield
    _armed.clear()


class Canary:
    """A listener that counts the connections that reach it."""

    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family)
        self.address = address
        self.port: int = self._listener.getsockname()[1]

    def hits(self) -> int:
        """Connections so far. The kernel completes them in the backlog, so that none is still on its way."""
        self._listener.setblocking(False)
        count = 0
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return count
            connection.close()
            count += 1

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def canary() -> Iterator[Canary]:
    canary = Canary("127.0.0.1")
    yield canary
    canary.close()


@dataclass
class Names:
    """What a name server would say: answers by name, one list after the other; the last one stays."""

    answers: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __setitem__(self, name: str, answers: list[list[str]]) -> None:
        self.answers[name] = answers

    def getaddrinfo(self, host: str, port: int, *_args: object, **_options: object) -> list[tuple[Any, ...]]:
        found = self._answer(host)
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, port),
            )
            for address in found
        ]

    def _answer(self, host: str) -> list[str]:
        if re.fullmatch(r"[0-9.]+|[0-9a-f:]+", host):
            return [host]
        self.asked.append(host)
        if host not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        queue = self.answers[host]
        return queue.pop(0) if len(queue) > 1 else queue[0]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Stands in for the system's name servers."""
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    return names


Serve = Callable[[type[BaseHTTPRequestHandler]], int]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves early is what some tests are about."""


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start an HTTP/1.1 server with a handler class on 127.0.0.1; gives its port."""
    with ExitStack() as running:

        def start(handler: type[BaseHTTPRequestHandler]) -> int:
            server = running.enter_context(_Server(("127.0.0.1", 0), handler))
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            running.callback(thread.join)
            running.callback(server.shutdown)
            return server.server_address[1]

        yield start


Speak = Callable[[Callable[[socket.socket], None]], int]


@pytest.fixture
def speak() -> Iterator[Speak]:
    """Start a raw TCP server that hands each connection to a function; gives its port."""
    with ExitStack() as running:

        def start(talk: Callable[[socket.socket], None]) -> int:
            class Handler(socketserver.BaseRequestHandler):
                def handle(self) -> None:
                    talk(self.request)

            class Server(socketserver.ThreadingTCPServer):
                daemon_threads = True

                def handle_error(self, request: object, client_address: object) -> None:
                    """A client that leaves early is what some tests are about."""

            server = running.enter_context(Server(("127.0.0.1", 0), Handler))
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            running.callback(thread.join)
            running.callback(server.shutdown)
            return server.server_address[1]

        yield start
