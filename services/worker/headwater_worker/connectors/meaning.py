"""What foreign errors mean: the value that the tables of connectors are made of, and what all stores have in common.

What a store wrote is never repeated: it holds what was signed, keys and hosts.
"""

import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

from headwater import clock
from headwater.errors import ConnectorError, Permanent, Transient
from headwater_worker.egress import Proxy

NO_CREDENTIALS: Final = frozenset({"invalid_credentials", "expired_credentials", "clock_skew", "missing_credentials"})
"""Codes that are about the identity."""
NO_WAY: Final = frozenset(
    {
        "blocked_target", "connection_refused", "dns_not_found", "network", "network_unreachable", "timeout",
        "tls_invalid",
    }
)  # fmt: skip
"""Codes that are about the way to the store."""
NO_TARGET: Final = frozenset({"account_not_found", "bucket_not_found", "container_not_found", "wrong_region"})
"""Codes that are about the bucket or container."""

_LONGEST_RETRY_AFTER: Final = 3600.0
# The proxy's own answers bear them; it strips them from what stores answer.
_MARKS: Final = ("x-headwater-refusal", "x-headwater-failure")
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST"})


class Meaning(NamedTuple):
    """Our code, message and hint for an error, and whether trying again can help."""

    code: str
    message: str
    hint: str
    transient: bool = False

    def error(self, retry_after_seconds: float | None = None) -> ConnectorError:
        """The error to raise."""
        if self.transient:
            return Transient(self.message, code=self.code, hint=self.hint, retry_after_seconds=retry_after_seconds)
        return Permanent(self.message, code=self.code, hint=self.hint)


NO_FILE: Final = Meaning("file_not_found", "The file is gone.", "List the files again.")
CHANGED: Final = Meaning(
    "file_changed", "The file changed while it was read.", "Try again when it is at rest.", transient=True
)
ARCHIVED: Final = Meaning(
    "file_archived", "The file is archived and cannot be read.", "Restore it first, or exclude archived files."
)
THROTTLED: Final = Meaning(
    "throttled", "The store asks for fewer requests.", "Wait, or raise the store's limits.", transient=True
)
TIMEOUT: Final = Meaning(
    "timeout", "The store did not answer in time.", "Check that the store is not overloaded.", transient=True
)
BROKEN: Final = Meaning(
    "network", "The connection to the store broke off.", "Try again; check the network between.", transient=True
)
TLS: Final = Meaning(
    "tls_invalid",
    "TLS with the store failed.",
    "Check the store's certificate and its chain, or whether the endpoint speaks TLS at all.",
)
REFUSED: Final = Meaning(
    "source_error", "The store refused the request.", "Check that the store supports what was asked."
)
DOWN: Final = Meaning(
    "source_error", "The store failed to answer.", "Try again; look at the store's own state.", transient=True
)
ENDLESS: Final = Meaning(
    "source_error",
    "The store's listing does not go on.",
    "The store says that there are more files and gives no way to them: it breaks its protocol.",
)


def is_marked(headers: Mapping[str, str]) -> bool:
    """Whether an answer with these headers is the proxy's. A store cannot send them: they are stripped."""
    names = {name.lower() for name in headers}
    return any(mark in names for mark in _MARKS)


def of_proxy(proxy: Proxy) -> ConnectorError | None:
    """Why the last connection was not made, if it was not."""
    failure = proxy.last_failure
    if failure is None:
        return None
    found = failure.error
    return type(found)(found.message, code=found.code, hint=found.hint)


def of_broken_tls(error: BaseException) -> Meaning:
    """Of an error of TLS: only a handshake proves anything about trust; a connection can also just break off."""
    return TLS if any(_is_about_trust(cause) for cause in causes(error)) else BROKEN


def _is_about_trust(error: BaseException) -> bool:
    return isinstance(error, ssl.SSLCertVerificationError) or getattr(error, "reason", None) in _NOT_TLS


def causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and all that stands behind it, however its library keeps it."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        found = waiting.pop()
        if isinstance(found, BaseException) and id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting += [found.__cause__, found.__context__, getattr(found, "reason", None), *found.args]
            waiting += [getattr(found, "kwargs", {}).get("error"), getattr(found, "inner_exception", None)]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of a Retry-After header, which may be a date (RFC 9110, 10.2.3), within reason.

    `headers` knows no case.
    """
    text = headers.get("retry-after") or ""
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    left = (at.replace(tzinfo=at.tzinfo or UTC) - clock.now()).total_seconds()
    return min(max(left, 0.0), _LONGEST_RETRY_AFTER)
