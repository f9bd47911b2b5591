"""TLS on a dialled connection, with the real name verified, in words that say what is wrong."""

import select
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Final

from headwater.errors import ConnectorError, Permanent, Transient
from headwater_worker.egress.resolve import canonical_host

_RENEW: Final = ("The server's certificate has expired.", "Renew the certificate on the server.")
_EARLY: Final = (
    "The server's certificate is not valid yet.",
    "Check the clocks of the server and of the worker.",
)
_UNKNOWN: Final = (
    "The server's certificate was not issued by an authority that the worker trusts.",
    "Use a certificate of a public authority, or give the authority's own certificate where the source takes "
    "one; check that the server sends its intermediate certificates.",
)
_SELF_SIGNED: Final = (
    "The server's certificate is self-signed.",
    "Use a certificate of a public authority, or give this one as the authority where the source takes one.",
)
_NAME: Final = (
    "The server's certificate is for another name.",
    "Use the host name that the certificate was issued for.",
)
# The codes of X509_verify_cert_error_string(3) that people can act on.
_BY_VERIFY_CODE: Final[Mapping[int, tuple[str, str]]] = {
    9: _EARLY,
    10: _RENEW,
    18: _SELF_SIGNED,
    19: _SELF_SIGNED,
    20: _UNKNOWN,
    21: _UNKNOWN,
    62: _NAME,
    64: _NAME,
}
_NOT_TLS: Final = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "UNKNOWN_PROTOCOL",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
    }
)


def handshake(
    connection: socket.socket, server_name: str, *, timeout_seconds: float, authority_pem: str | None = None
) -> ssl.SSLSocket:
    """TLS 1.2 or later over `connection`, verified for `server_name`, within `timeout_seconds` in all.

    `server_name` is the host as the user wrote it. `authority_pem` replaces the system's trusted authorities.
    `connection` belongs to the result, and is closed on failure. Raises `Permanent` (`tls_invalid`,
    `config_invalid`) or `Transient` (`timeout`).
    """
    try:
        return _shake(connection, canonical_host(server_name), timeout_seconds, _context(authority_pem))
    except (OSError, ConnectorError):
        connection.close()
        raise


def _context(authority_pem: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=authority_pem)
    except (ssl.SSLError, ValueError) as error:
        raise Permanent("The authority's certificate is not valid PEM.", code="config_invalid") from error


def _shake(connection: socket.socket, name: str, timeout_seconds: float, context: ssl.SSLContext) -> ssl.SSLSocket:
    deadline = time.monotonic() + timeout_seconds
    connection.setblocking(False)
    tls = context.wrap_socket(connection, server_hostname=name, do_handshake_on_connect=False)
    try:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                _wait(tls, select.POLLIN, deadline)
            except ssl.SSLWantWriteError:
                _wait(tls, select.POLLOUT, deadline)
    except OSError as error:
        tls.close()
        raise _failure(error) from error
    except ConnectorError:
        tls.close()
        raise
    tls.settimeout(timeout_seconds)
    return tls


def _wait(tls: ssl.SSLSocket, event: int, deadline: float) -> None:
    # A socket's own timeout starts again with each byte: one byte a second would hold it for hours.
    poll = select.poll()
    poll.register(tls, event)
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise Transient(
            "The server did not finish the TLS handshake in time.",
            code="timeout",
            hint="Check that this port speaks TLS.",
        )


def _failure(error: OSError) -> ConnectorError:
    if isinstance(error, ssl.SSLCertVerificationError):
        message, hint = _BY_VERIFY_CODE.get(
            error.verify_code,
            (
                "The server's certificate could not be verified.",
                "Check the server's certificate and its chain.",
            ),
        )
    elif isinstance(error, (ssl.SSLEOFError, ConnectionError)) or getattr(error, "reason", None) in _NOT_TLS:
        message, hint = (
            "The server does not speak TLS on this port.",
            "Check the port, or whether TLS is meant.",
        )
    else:
        message, hint = (
            "The server and the worker could not agree on TLS.",
            "The server must offer TLS 1.2 or later with a current cipher.",
        )
    return Permanent(message, code="tls_invalid", hint=hint)
