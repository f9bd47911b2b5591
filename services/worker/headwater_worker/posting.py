"""One POST to a customer's server: through egress, within a time, and whatever it answers is let go of."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from headwater.errors import ConnectorError, Permanent
from headwater_worker import egress
from headwater_worker.connectors import meaning
from headwater_worker.egress import Policy

_PORTS: Final = {"http": 80, "https": 443}
_MOST_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """What came of it. `error_code` is None for a success (2xx), `status_code` where nothing was answered."""

    status_code: int | None
    error_code: str | None
    duration_ms: int
    retry_after_seconds: float | None = None


def post(url: str, *, headers: Mapping[str, str], body: bytes, policy: Policy, timeout_seconds: float) -> Answer:
    """Send `body` to `url`. Ends within `timeout_seconds`, from the look-up of the host to the answer's end.

    Redirects are not followed. `http` is for the operator's own networks: it reaches what `policy` allows by name.
    """
    began = time.monotonic()
    try:
        status_code, answered = _exchange(urlsplit(url), headers, body, policy, began + timeout_seconds)
    except ConnectorError as error:
        return Answer(None, error.code, _milliseconds_since(began))
    except (OSError, http.client.HTTPException, ValueError):
        late = time.monotonic() - began >= timeout_seconds
        return Answer(None, "timeout" if late else "network", _milliseconds_since(began))
    return Answer(status_code, _error_code(status_code), _milliseconds_since(began), meaning.retry_after(answered))


def _error_code(status_code: int) -> str | None:
    if 200 <= status_code < 300:
        return None
    if 300 <= status_code < 400:
        return "redirected"
    return "gone" if status_code == http.client.GONE else "refused"


def _exchange(
    url: SplitResult, headers: Mapping[str, str], body: bytes, policy: Policy, deadline: float
) -> tuple[int, Mapping[str, str]]:
    """Status and Retry-After of the answer."""
    host, port = url.hostname or "", url.port or _PORTS[url.scheme]
    with _dialled(url.scheme, host, port, policy, deadline) as connected, _cut_off(connected, deadline):
        connection = http.client.HTTPConnection(host, port)
        connection.sock = connected
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request("POST", path, body, {"Host": url.netloc, **headers, "Connection": "close"})
        response = connection.getresponse()
        if time.monotonic() >= deadline:
            # Headers that were cut off look like headers that have ended.
            raise TimeoutError
        with suppress(OSError, http.client.HTTPException):
            # Read so that the server is not cut off; what it is, or whether all of it comes, changes nothing.
            response.read(_MOST_BYTES)
        return response.status, {"retry-after": response.headers.get("Retry-After", "")}


def _dialled(scheme: str, host: str, port: int, policy: Policy, deadline: float) -> socket.socket:
    addresses = egress.resolve(host, port, timeout_seconds=_left(deadline))
    egress.require_permitted(host, addresses, policy)
    if scheme == "http" and not all(policy.is_operators(address) for address in addresses):
        raise Permanent("Only https reaches a public address.", code="https_required")
    connected = egress.connect(addresses, port, _left(deadline))
    if scheme == "https":
        connected = egress.handshake(connected, host, timeout_seconds=_left(deadline))
    connected.settimeout(_left(deadline))
    return connected


@contextmanager
def _cut_off(connected: socket.socket, deadline: float) -> Iterator[None]:
    """At `deadline` the connection ends, whoever reads it: its own timeout starts again with each byte."""
    timer = threading.Timer(_left(deadline), _shut, (connected,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut(connected: socket.socket) -> None:
    with suppress(OSError):
        # The socket's own: that of TLS would take its state away from the thread that is reading.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _milliseconds_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
