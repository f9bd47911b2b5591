"""Connect to an address that was checked."""

import errno
import socket
import time
from collections.abc import Iterator, Sequence

from headwater.errors import ConnectorError, Permanent, Transient
from headwater_worker.egress.policy import Address, Policy
from headwater_worker.egress.resolve import resolve


def dial(host: str, port: int, timeout_seconds: float, policy: Policy) -> socket.socket:
    """A TCP connection to `host`, which is looked up once, or a `ConnectorError` within `timeout_seconds`.

    The socket keeps `timeout_seconds` as the timeout of each of its operations; the caller closes it. Raises
    what `resolve`, `require_permitted` and `connect` raise.
    """
    deadline = time.monotonic() + timeout_seconds
    addresses = resolve(host, port, timeout_seconds=timeout_seconds)
    require_permitted(host, addresses, policy)
    connection = connect(addresses, port, max(0.0, deadline - time.monotonic()))
    connection.settimeout(timeout_seconds)
    return connection


def require_permitted(host: str, addresses: Sequence[Address], policy: Policy) -> None:
    """Raise `Permanent` (`blocked_target`) if there is no address, or **any** is not permitted.

    One bad answer refuses them all: who mixes them may have the next connection take the other one. The hint
    names `host` as it was written and never an address, which would show what a private name server answers.
    """
    if not addresses or not all(policy.permits(address) for address in addresses):
        raise Permanent(
            "This host is not one that the worker may connect to.",
            code="blocked_target",
            hint=f"{host} leads to an address that is not public. If it is yours, an operator can add its "
            "network to HEADWATER_EGRESS_ALLOW; metadata services of clouds are never allowed.",
        )


def connect(addresses: Sequence[Address], port: int, timeout_seconds: float) -> socket.socket:
    """A connection to the first of `addresses` that accepts, tried in turn, within `timeout_seconds` in all.

    The addresses must have passed `require_permitted`. Raises `Transient`: `connection_refused`, `timeout` or
    `network_unreachable`.
    """
    failures: list[OSError] = []
    for address, seconds in attempts(addresses, time.monotonic() + timeout_seconds):
        try:
            return _connect_one(address, port, seconds)
        except OSError as error:
            failures.append(error)
    raise connect_failure(failures)


def _connect_one(address: Address, port: int, timeout_seconds: float) -> socket.socket:
    # Not `socket.create_connection`: it looks its host up once more.
    connection = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
    try:
        connection.settimeout(timeout_seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect((str(address), port))
    except OSError:
        connection.close()
        raise
    return connection


def attempts(addresses: Sequence[Address], deadline: float) -> Iterator[tuple[Address, float]]:
    """Each address with the seconds that it may take: an even share of what is left until `deadline`.

    `deadline` is of `time.monotonic`. A share keeps one address that swallows packets from using up the
    others'.
    """
    for position, address in enumerate(addresses):
        left = deadline - time.monotonic()
        if left <= 0:
            return
        yield address, left / (len(addresses) - position)


def connect_failure(failures: Sequence[OSError]) -> ConnectorError:
    """What to say when every address failed: the answer that tells most. Chains that one."""
    refused = [error for error in failures if isinstance(error, ConnectionRefusedError)]
    late = [error for error in failures if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT]
    if refused:
        failure = Transient(
            "The host refused the connection.",
            code="connection_refused",
            hint="Check the port, and that the server is running.",
        )
    elif late or not failures:
        failure = Transient(
            "The host did not answer in time.",
            code="timeout",
            hint="Check host and port, and that firewalls let the worker through.",
        )
    else:
        failure = Transient(
            "There is no way from the worker to the host.",
            code="network_unreachable",
            hint="Check the worker's network, its routes and its firewall.",
        )
    failure.__cause__ = next(iter((*refused, *late, *failures)), None)
    return failure
