"""`python -m bench.load`: ask a server over and over on kept connections, as fast as it answers.

A process of its own, on plain sockets, so that it costs the same whoever is asked. Takes `Order` as JSON on stdin and
tells `Load` as JSON on stdout.
"""

import json
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, cycle
from pathlib import Path
from typing import Final

NUMBER: Final = "<number>"
"""In a request, this is another number each time."""

_ROOT: Final = Path(__file__).parents[1]
_LENGTH: Final = b"content-length: "
_MOST_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Order:
    """`requests`, whole, in turns, on `connections` at once, for `seconds`. Every answer must have `status`."""

    port: int
    requests: Sequence[str]
    status: int
    connections: int
    seconds: float


@dataclass(frozen=True)
class Load:
    """What came of it: answers a second, and how long half of them and 99 of 100 took at most."""

    rate: float
    p50_seconds: float
    p99_seconds: float


def put(order: Order) -> Load:
    """Put the load on a server, from a process of its own. Raises `CalledProcessError` if it answers otherwise."""
    done = subprocess.run(
        (sys.executable, "-m", "bench.load"), cwd=_ROOT, input=json.dumps(asdict(order)), stdout=subprocess.PIPE,
        text=True, check=True, timeout=order.seconds + 60,
    )  # fmt: skip
    return Load(**json.loads(done.stdout))


class _Connection:
    """One connection, with one request at a time."""

    def __init__(self, order: Order) -> None:
        self.socket = socket.create_connection(("127.0.0.1", order.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._expected = b"HTTP/1.1 %d " % order.status
        self._received = b""
        self._sent_at = 0.0

    def send(self, request: bytes) -> None:
        self._sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> float | None:
        """Seconds from the request to the whole answer; None while it is not whole."""
        received = self._received + self.socket.recv(_MOST_BYTES)
        head, blank, body = received.partition(b"\r\n\r\n")
        if not received.startswith(self._expected[: len(received)]) or not received:
            raise SystemExit(f"unexpected answer: {received[:2000]!r}")
        if blank:
            place = head.lower().index(_LENGTH) + len(_LENGTH)
            if len(body) >= int(head[place:].partition(b"\r\n")[0]):
                self._received = b""
                return time.perf_counter() - self._sent_at
        self._received = received
        return None


def _requests(order: Order) -> Iterator[bytes]:
    begun = time.time_ns()
    for number, request in zip(count(begun), cycle(order.requests), strict=False):
        yield request.replace(NUMBER, str(number)).encode() if NUMBER in request else request.encode()


def _measure(order: Order) -> Load:
    requests = _requests(order)
    taken: list[float] = []
    with selectors.DefaultSelector() as selector:
        connections = [_Connection(order) for _ in range(order.connections)]
        began = time.perf_counter()
        until = began + order.seconds
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(next(requests))
        waiting = len(connections)
        while waiting:
            for key, _ in selector.select():
                if (seconds := key.data.receive()) is None:
                    continue
                taken.append(seconds)
                if time.perf_counter() < until:
                    key.data.send(next(requests))
                else:
                    waiting -= 1
    rate = len(taken) / (time.perf_counter() - began)
    taken.sort()
    return Load(rate, taken[len(taken) // 2], taken[len(taken) * 99 // 100])


if __name__ == "__main__":
    print(json.dumps(asdict(_measure(Order(**json.load(sys.stdin))))))
