"""An audit hook on `socket.connect`: the second line behind the proxy and `dial`.

It catches Python code that connects by a way of its own. It does not see libraries in C or Rust, which is why
it is never the only line. An audit hook cannot be removed, so the hook reads the state of this module.
"""

import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from headwater.errors import Permanent
from headwater_worker.egress.policy import Address, Policy

_DEFAULT_PORTS: Final = {"postgresql": 5432, "redis": 6379, "rediss": 6379, "http": 80, "https": 443}


@dataclass
class _State:
    policy: Policy | None = None
    hooked: bool = False
    configured: tuple[tuple[str, int], ...] = ()
    running: list[tuple[str, int]] = field(default_factory=list)

    def own(self) -> tuple[tuple[str, int], ...]:
        return (*self.configured, *self.running)


_state = _State()


def install(policy: Policy, own_endpoints: Iterable[tuple[str, int]] = ()) -> None:
    """From now on a `connect` in this process to an address outside `policy` raises `Permanent`
    (`blocked_target`).

    `own_endpoints` are host and port of Headwater's own database and Redis: allowed wherever they are. A
    second call replaces policy and endpoints.
    """
    _state.configured = tuple(own_endpoints)
    _state.policy = policy
    if not _state.hooked:
        _state.hooked = True
        sys.addaudithook(_hook)


def endpoint(url: str) -> tuple[str, int]:
    """Host and port of one of Headwater's own URLs, for `own_endpoints`."""
    parts = urlsplit(url)
    return parts.hostname or "localhost", parts.port or _DEFAULT_PORTS[parts.scheme.partition("+")[0]]


def lift() -> None:
    """Let every `connect` pass again."""
    _state.policy = None


@contextmanager
def own_endpoint(host: str, port: int) -> Iterator[None]:
    """Within it, `host` and `port` count as Headwater's own."""
    _state.running.append((host, port))
    try:
        yield
    finally:
        _state.running.remove((host, port))


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    policy = _state.policy
    if event != "socket.connect" or policy is None:
        return
    connection, target = arguments
    if isinstance(connection, socket.socket) and connection.family == socket.AF_UNIX:
        return
    if not _passes(target, policy):
        raise Permanent(
            "This address is not one that the worker may connect to.",
            code="blocked_target",
            hint="An operator can add its network to HEADWATER_EGRESS_ALLOW.",
        )


def _passes(target: object, policy: Policy) -> bool:
    if not isinstance(target, tuple) or len(target) < 2:
        return False
    host, port = target[:2]
    if not isinstance(host, str) or not isinstance(port, int):
        return False
    try:
        address = ip_address(host)
    except ValueError:
        # A name here is looked up by the kernel's caller, after this hook: nobody has checked its addresses.
        return (host, port) in _state.own()
    return policy.permits(address) or any(
        port == own_port and _is_at(address, own_host) for own_host, own_port in _state.own()
    )


def _is_at(address: Address, host: str) -> bool:
    try:
        return address == ip_address(host)
    except ValueError:
        pass
    try:
        answers = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return any(str(answer[4][0]) == str(address) for answer in answers)
