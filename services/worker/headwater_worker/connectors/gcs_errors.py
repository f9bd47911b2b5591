"""The one table from the errors of Google's libraries to ours.

https://cloud.google.com/storage/docs/json_api/v1/status-codes and, for the token endpoint, RFC 6749, 5.2. What Google
wrote is never repeated.
"""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson
import requests
from google.api_core.exceptions import GoogleAPICallError, from_http_response
from google.auth.exceptions import GoogleAuthError, TransportError
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import HTTPError

from headwater.errors import ConnectorError
from headwater_worker.connectors import meaning, web
from headwater_worker.connectors.meaning import Meaning
from headwater_worker.egress import Proxy

FOREIGN: Final = (
    GoogleAPICallError, GoogleAuthError, requests.RequestException, HTTPError,
    AttributeError, KeyError, TypeError, ValueError,
)  # fmt: skip
"""What the client raises. The last four, as it takes whatever answers for Google and believes its JSON."""

_SKEW_SECONDS: Final = 300.0
_LONGEST_TOKEN_SECONDS: Final = 12 * 3600

_INVALID: Final = Meaning(
    "invalid_credentials",
    "Google does not accept this service account key.",
    "The account must exist and be enabled, and the key must not be deleted: make a new key for it.",
)
_REJECTED: Final = Meaning(
    "invalid_credentials",
    "The store does not accept the token.",
    "Check that the token endpoint is the one that the store trusts.",
)
_UNUSABLE: Final = Meaning(
    "invalid_credentials", "The private key cannot be used.", "Put the key file again, whole and unchanged."
)
_SKEW: Final = Meaning(
    "clock_skew",
    "The clocks of the worker and of Google differ too much.",
    "Set the worker's clock, by NTP for instance; Google refuses signatures that are minutes off.",
)
_MISSING: Final = Meaning(
    "missing_credentials",
    "The worker has no service account of its own.",
    "Give the machine or the container one, or use a service account's key.",
)
_DENIED: Final = Meaning(
    "permission_denied",
    "The service account does not have the right to do this.",
    "Grant it roles/storage.objectViewer on the bucket: it needs storage.objects.list and storage.objects.get.",
)
_NO_API: Final = Meaning(
    "permission_denied",
    "Cloud Storage is not enabled in the service account's project.",
    "Enable the Cloud Storage API in that project.",
)
_BILLING: Final = Meaning(
    "billing_disabled",
    "The billing account of the bucket's project is disabled.",
    "Have the project's owner enable billing.",
)
_PAYS: Final = Meaning(
    "requester_pays",
    "The bucket has its readers pay for requests.",
    "Have requester pays turned off for the bucket; Headwater bills no project of its own.",
)
_NO_BUCKET: Final = Meaning(
    "bucket_not_found", "The bucket does not exist.", "Check the bucket's name: it is the same in all projects."
)
_NOT_GCS: Final = Meaning(
    "source_error",
    "What answers does not speak Cloud Storage's protocol.",
    "Check `endpoint_url`: it names the origin of the JSON API.",
)
_NOT_TOKENS: Final = Meaning(
    "source_error",
    "What answers at the token endpoint gives no token.",
    "An operator can check HEADWATER_GCS_TOKEN_URL.",
)

# By `reason` of the first error; the same reason may come with several statuses.
_BY_REASON: Final[Mapping[str, Meaning]] = {
    "accessNotConfigured": _NO_API,
    "accountDisabled": _BILLING,
    "authError": _REJECTED,
    "backendError": meaning.DOWN,
    "dailyLimitExceeded": meaning.THROTTLED,
    "invalidCredentials": _REJECTED,
    "quotaExceeded": meaning.THROTTLED,
    "rateLimitExceeded": meaning.THROTTLED,
    "userProjectAccountProblem": _BILLING,
    "userProjectMissing": _PAYS,
    "userRateLimitExceeded": meaning.THROTTLED,
}
_BY_STATUS: Final[Mapping[int, Meaning]] = {
    401: _REJECTED, 403: _DENIED, 404: _NO_BUCKET, 408: meaning.TIMEOUT, 412: meaning.CHANGED, 429: meaning.THROTTLED,
}  # fmt: skip
# `error` of RFC 6749, and what Google adds to it.
_BY_GRANT_ERROR: Final[Mapping[str, Meaning]] = {
    "access_denied": _DENIED,
    "admin_policy_enforced": _DENIED,
    "invalid_client": _INVALID,
    "invalid_grant": _INVALID,
    "org_internal": _DENIED,
    "rate_limit_exceeded": meaning.THROTTLED,
    "temporarily_unavailable": meaning.DOWN,
    "unauthorized_client": _INVALID,
}


def translated(error: BaseException, proxy: Proxy) -> ConnectorError:
    """What `error` means, chained to it. `proxy` knows why a connection was not made."""
    failure = _meant(error, proxy)
    failure.__cause__ = error
    return failure


def endless() -> ConnectorError:
    """A listing that names the page it has just given as its next one."""
    return meaning.ENDLESS.error()


def unusable_key() -> ConnectorError:
    """A private key that cannot sign."""
    return _UNUSABLE.error()


def no_identity() -> ConnectorError:
    """The worker's own identity is not there."""
    return _MISSING.error()


def missing_file(error: ConnectorError) -> ConnectorError:
    """`error` of a request for a file: what is not found there is the file."""
    return meaning.NO_FILE.error() if error.code == _NO_BUCKET.code else error


def answered(answer: requests.Response) -> GoogleAPICallError:
    """The error that an answer is, as Google's client has it."""
    error: GoogleAPICallError = from_http_response(answer)
    return error


def token_of(status: int, headers: Mapping[str, str], body: bytes, proxy: Proxy) -> tuple[str, float]:
    """The token in an answer of the token endpoint, and the seconds that it lives. Raises `ConnectorError`."""
    known = CaseInsensitiveDict(headers)
    content = _object(body)
    token, seconds = content.get("access_token"), _seconds(content.get("expires_in"))
    if status == requests.codes.ok and isinstance(token, str) and token and seconds is not None:
        return token, seconds
    if meaning.is_marked(known) and (failure := meaning.of_proxy(proxy)):
        raise failure
    raise _of_grant(status, known, content).error(meaning.retry_after(known))


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def _seconds(value: Any) -> float | None:
    text = str(value)
    # RFC 6749 makes it a number; some endpoints write a string.
    return float(min(int(text), _LONGEST_TOKEN_SECONDS)) if text.isascii() and text.isdigit() else None


def _of_grant(status: int, headers: Mapping[str, str], content: Mapping[str, Any]) -> Meaning:
    error = str(content.get("error"))
    if error == "invalid_grant" and _is_skewed(headers, str(content.get("error_description"))):
        return _SKEW
    if error in _BY_GRANT_ERROR:
        return _BY_GRANT_ERROR[error]
    if status == requests.codes.too_many_requests:
        return meaning.THROTTLED
    return meaning.DOWN if status >= 500 else _NOT_TOKENS


def _is_skewed(headers: Mapping[str, str], description: str) -> bool:
    """Google says `invalid_grant` for this too; its clock is in its answer, and its words name the two claims."""
    try:
        told = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        told = time.time()
    return abs(told - time.time()) > _SKEW_SECONDS or "iat and exp" in description


def _meant(error: BaseException, proxy: Proxy) -> ConnectorError:
    if isinstance(error, GoogleAPICallError):
        return _of_answer(error, proxy)
    if isinstance(error, requests.exceptions.JSONDecodeError):
        return _NOT_GCS.error()
    if isinstance(error, TransportError | requests.RequestException | HTTPError):
        return web.translated(error, proxy)
    return _NOT_GCS.error()


def _of_answer(error: GoogleAPICallError, proxy: Proxy) -> ConnectorError:
    answer: requests.Response | None = error.response
    headers: Mapping[str, str] = answer.headers if answer is not None else {}
    if meaning.is_marked(headers) and (failure := meaning.of_proxy(proxy)):
        return failure
    status = int(error.code or 0)
    found = _BY_REASON.get(_reason(error)) or _BY_STATUS.get(status)
    if found is None:
        found = meaning.DOWN if status >= 500 else meaning.REFUSED
    return found.error(meaning.retry_after(headers))


def _reason(error: GoogleAPICallError) -> str:
    first = next(iter(error.errors or ()), None)
    return str(first.get("reason")) if isinstance(first, dict) else ""
