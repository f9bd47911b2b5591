"""What an API's answers and httpx2's errors mean. What an API wrote is never repeated: it may hold what was sent."""

import ssl
from typing import Final

import httpx2

from headwater.errors import ConnectorError
from headwater_worker.connectors import meaning
from headwater_worker.connectors.meaning import Meaning
from headwater_worker.egress import Proxy
from headwater_worker.sync import answers

FOREIGN: Final = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError)
"""What a client raises."""

NO_ACCESS: Final = meaning.NO_CREDENTIALS | meaning.NO_WAY | {"permission_denied"}
"""Codes that say who may not in, or that there is no way."""

_CREDENTIALS: Final = Meaning(
    "invalid_credentials",
    "The API does not accept the credentials.",
    "Check `auth_type`, the credentials, and the header that takes the key.",
)
_RIGHTS: Final = Meaning(
    "permission_denied",
    "The credentials are known and may not read this endpoint.",
    "Give them the right to read it, or use others.",
)
_NOWHERE: Final = Meaning(
    "endpoint_not_found", "The API has nothing at this path.", "Check the path of `endpoint`, and its query."
)
_THROTTLED: Final = Meaning(
    "throttled", "The API asks for fewer requests.", "Wait, or have the API's limits raised.", transient=True
)
_TIMEOUT: Final = Meaning(
    "timeout", "The API did not answer in time.", "Check that it is not overloaded, or ask for smaller pages.", True
)
_BROKEN: Final = Meaning(
    "network", "The connection to the API broke off.", "Try again; check the network between.", transient=True
)
_TLS: Final = Meaning(
    "tls_invalid",
    "TLS with the API failed.",
    "Check its certificate and its chain, or whether the endpoint speaks TLS at all.",
)
_REFUSED: Final = Meaning(
    "source_error", "The API refused the request.", "Check the endpoint's parameters and `pagination`."
)
_DOWN: Final = Meaning(
    "source_error", "The API failed to answer.", "Try again; look at the API's own state.", transient=True
)
GARBLED: Final = Meaning(
    "invalid_answer", "The API's answer cannot be decoded.", "Check that the endpoint answers in HTTP, and in UTF-8."
)
SENT_AWAY: Final = Meaning(
    "blocked_target",
    "The API sends the worker to another origin, where the credentials must not go.",
    "Point `endpoint` to where the API really is; redirects and links are followed on its own origin alone.",
)
RUNS_IN_CIRCLES: Final = Meaning(
    "pagination_loop", "The API's pages run in circles.", "Check that `pagination` is how the API pages."
)
NOT_JSON: Final = Meaning(
    "invalid_answer", "The API's answer is not valid JSON.", "Check that the endpoint is the API's, and not a web page."
)
TOO_LARGE: Final = Meaning(
    "page_too_large",
    "A JSON answer is larger than 64 MiB.",
    "Ask for smaller pages, or for NDJSON or CSV, which have no limit.",
)
UNKNOWN_TYPE: Final = Meaning(
    "unsupported_content_type",
    "The API answers neither in JSON nor in NDJSON nor in CSV.",
    "Ask for one of them with an `Accept` header, or say which it is in `reading.format`.",
)
NEEDS_JSON: Final = Meaning(
    "unsupported_content_type",
    "This kind of pagination needs JSON answers, and the API gives others.",
    "Ask for JSON with an `Accept` header, or choose another `pagination`.",
)
NO_RECORDS: Final = Meaning(
    "records_path_not_found",
    "The API's answer has no list of records where it should.",
    "Check `records_path`: the names of the members that lead to the list, joined by dots.",
)
BAD_LINK: Final = Meaning(
    "invalid_answer", "The API names a next page that cannot be asked for.", "Check that `pagination` fits the API."
)

_TOO_MUCH_AROUND: Final = Meaning(
    "page_too_large",
    "What stands around the records of a JSON answer is larger than 16 MiB.",
    "Ask for smaller pages, or for answers without what is not wanted.",
)

_BY_FAULT: Final = {
    answers.GARBLED: GARBLED,
    answers.NOT_JSON: NOT_JSON,
    answers.NO_RECORDS: NO_RECORDS,
    answers.TOO_LARGE: TOO_LARGE,
    answers.TOO_MUCH_AROUND: _TOO_MUCH_AROUND,
}
_BY_STATUS: Final = {
    401: _CREDENTIALS,
    403: _RIGHTS,
    404: _NOWHERE,
    408: _TIMEOUT,
    410: _NOWHERE,
    425: _THROTTLED,
    429: _THROTTLED,
    # Not today's trouble, but how the API is made.
    501: _REFUSED,
    505: _REFUSED,
}


def of_answer(response: httpx2.Response, proxy: Proxy) -> ConnectorError | None:
    """What an answer that is no success means; None for a success."""
    if meaning.is_marked(response.headers):
        return meaning.of_proxy(proxy) or _BROKEN.error()
    if response.is_success:
        return None
    fallback = _DOWN if response.is_server_error else _REFUSED
    return _BY_STATUS.get(response.status_code, fallback).error(meaning.retry_after(response.headers))


def of_fault(code: str) -> ConnectorError | None:
    """What it means that a reader could not take an answer apart; None for what is about its records."""
    meant = _BY_FAULT.get(code)
    return None if meant is None else meant.error()


def translated(error: BaseException, proxy: Proxy) -> ConnectorError:
    """What an error of httpx2 means; chained to it."""
    failure = _meant(error, proxy)
    failure.__cause__ = error
    return failure


def _meant(error: BaseException, proxy: Proxy) -> ConnectorError:
    behind = list(meaning.causes(error))
    if any(isinstance(cause, ssl.SSLError) for cause in behind):
        return (_TLS if meaning.of_broken_tls(error) is meaning.TLS else _BROKEN).error()
    if isinstance(error, httpx2.ConnectError | httpx2.ProxyError) and (failure := meaning.of_proxy(proxy)):
        return failure
    if isinstance(error, httpx2.TimeoutException):
        return _TIMEOUT.error()
    if isinstance(error, httpx2.DecodingError):
        return GARBLED.error()
    if isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol):
        return BAD_LINK.error()
    return _BROKEN.error()


def too_slow() -> ConnectorError:
    """A page that does not come to its end."""
    return _TIMEOUT.error()
