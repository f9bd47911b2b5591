"""From a host as a user wrote it to its addresses, looked up once."""

import re
import socket
import threading
from concurrent.futures import Future
from ipaddress import IPv4Address, ip_address
from typing import Final

from headwater.errors import Permanent, Transient
from headwater_worker.egress.policy import Address

LOOKUP_SECONDS: Final = 10.0

_LONGEST_NAME: Final = 253
_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
# A name whose last label is a number is an IPv4 address to `inet_aton`, and so to libc, curl and browsers
# (https://url.spec.whatwg.org/#ends-in-a-number-checker).
_ENDS_IN_NUMBER: Final = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
_BAD_PORT: Final = "The port must be a number from 1 to 65535."
_HOST_HINT: Final = "Write a host name such as db.example.com, or an IP address; no user, path, blanks or backslashes."


def canonical_host(host: str) -> str:
    """`host` in the one form that is looked up, dialled and verified: lower-case A-labels, or an address.

    Every spelling of an IPv4 address that libc knows (octal, hexadecimal, fewer than four parts) becomes the
    address that it stands for. Brackets around IPv6 and one final dot are dropped. Raises `Permanent`
    (`config_invalid`), which does not repeat what was written.
    """
    bracketed = host.startswith("[") and host.endswith("]")
    text = host[1:-1] if bracketed else host
    literal = _address(text)
    if literal is not None:
        return str(literal)
    if bracketed:
        raise _invalid_host()
    name = _ascii(text).lower().removesuffix(".")
    if _NAME.fullmatch(name) is None or len(name) > _LONGEST_NAME:
        raise _invalid_host()
    return _legacy_ipv4(name) if _ENDS_IN_NUMBER.fullmatch(name) else name


def resolve(host: str, port: int, *, timeout_seconds: float = LOOKUP_SECONDS) -> tuple[Address, ...]:
    """All addresses of `host`, in the system's order and without repeats. Judges none of them.

    Raises `Permanent` (`config_invalid`, `dns_not_found`) or `Transient` (`dns_not_found` when no name
    server answered, `timeout`).
    """
    found = start_lookup(host, port)
    try:
        return found.result(timeout_seconds)
    except TimeoutError:
        raise lookup_timed_out() from None


def start_lookup(host: str, port: int) -> Future[tuple[Address, ...]]:
    """What `resolve` waits for. An address is ready at once.

    A lookup cannot be interrupted, so that it gets a daemon thread of its own: nobody waits for it longer
    than they want to, and it does not hold up the end of the process.
    """
    if not 0 < port < 65536:
        raise Permanent(_BAD_PORT, code="config_invalid")
    name = canonical_host(host)
    found: Future[tuple[Address, ...]] = Future()
    literal = _address(name)
    if literal is not None:
        found.set_result((literal,))
    else:
        threading.Thread(target=_look_up, args=(name, port, found), name="egress-lookup", daemon=True).start()
    return found


def lookup_timed_out() -> Transient:
    return Transient(
        "The host name was not looked up in time.",
        code="timeout",
        hint="Check the name servers that the worker uses.",
    )


def _look_up(name: str, port: int, found: Future[tuple[Address, ...]]) -> None:
    if not found.set_running_or_notify_cancel():
        return
    try:
        answers = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        found.set_exception(_lookup_failure(error))
        return
    addresses = (ip_address(str(answer[4][0])) for answer in answers)
    found.set_result(tuple(dict.fromkeys(addresses)))


def _lookup_failure(error: OSError | UnicodeError) -> Permanent | Transient:
    hint = "Check the spelling of the host, and that the worker's name servers know it."
    failure: Permanent | Transient
    if isinstance(error, socket.gaierror) and error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
        failure = Permanent("The host name does not exist.", code="dns_not_found", hint=hint)
    else:
        failure = Transient("The host name could not be looked up.", code="dns_not_found", hint=hint)
    failure.__cause__ = error
    return failure


def _address(text: str) -> Address | None:
    # A zone (`fe80::1%eth0`) would name one of the worker's own interfaces.
    if "%" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def _ascii(text: str) -> str:
    # Long names first: the codec takes quadratic time.
    if len(text) > _LONGEST_NAME + 1:
        raise _invalid_host()
    if text.isascii():
        return text
    try:
        return text.encode("idna").decode("ascii")
    except UnicodeError:
        raise _invalid_host() from None


def _legacy_ipv4(name: str) -> str:
    try:
        return str(IPv4Address(socket.inet_aton(name)))
    except OSError:
        raise _invalid_host() from None


def _invalid_host() -> Permanent:
    return Permanent("The host is not valid.", code="config_invalid", hint=_HOST_HINT)
