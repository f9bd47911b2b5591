"""The one table from Azure's errors to ours.

https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes and .../blob-service-error-codes. What
Azure wrote is never repeated: it holds the string that was signed.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import parse_qs

import requests
from azure.core.exceptions import AzureError, ClientAuthenticationError, DecodeError, HttpResponseError
from urllib3.exceptions import HTTPError

from headwater.errors import ConnectorError
from headwater_worker.connectors import meaning, web
from headwater_worker.connectors.meaning import Meaning
from headwater_worker.egress import Proxy

FOREIGN: Final = (AzureError, requests.RequestException, HTTPError, ValueError, TypeError)
"""What the client raises. `ValueError` and `TypeError` where an answer is not what it takes for granted."""

_SKEW_SECONDS: Final = 15 * 60.0
# Azure says this with AuthenticationFailed, the emulator with AuthorizationFailure, which Azure keeps for firewalls.
_NOT_AUTHENTICATED: Final = "Server failed to authenticate the request"

_INVALID: Final = Meaning(
    "invalid_credentials",
    "The storage account does not accept these credentials.",
    "Check that the key or token is of this account, and that the key was not rotated.",
)
_UNUSABLE: Final = Meaning(
    "invalid_credentials", "The account key cannot be used.", "Put it as the portal shows it: it is base64."
)
_EXPIRED: Final = Meaning(
    "expired_credentials", "The shared access signature has expired.", "Make a new one and put it."
)
_NOT_YET: Final = Meaning(
    "invalid_credentials",
    "The shared access signature is not valid yet.",
    "Wait for its start, or make one without a start.",
)
_SKEW: Final = Meaning(
    "clock_skew",
    "The clocks of the worker and of Azure differ too much.",
    "Set the worker's clock, by NTP for instance; Azure refuses signatures that are 15 minutes off.",
)
_DENIED: Final = Meaning(
    "permission_denied",
    "The credentials do not have the right to do this.",
    "A shared access signature needs the rights r and l on the container; an identity needs the role Storage Blob "
    "Data Reader.",
)
_WALLED: Final = Meaning(
    "permission_denied",
    "The storage account does not let this worker in.",
    "Let the worker's address through the account's firewall, and check what the shared access signature allows.",
)
_NO_KEYS: Final = Meaning(
    "permission_denied",
    "The storage account does not allow keys.",
    "Allow shared key access on the account, or use a user delegation signature or a managed identity.",
)
_DISABLED: Final = Meaning(
    "account_disabled", "The storage account is disabled.", "Check its subscription and its billing."
)
_NO_ACCOUNT: Final = Meaning(
    "account_not_found", "The storage account does not exist there.", "Check `account` and `endpoint_url`."
)
_NO_CONTAINER: Final = Meaning(
    "container_not_found", "The container does not exist.", "Check the container's name and the account."
)
_CONFIG: Final = Meaning(
    "config_invalid", "The store cannot be asked with this config.", "Check account, container and `endpoint_url`."
)
_TWO: Final = Meaning(
    "config_invalid",
    "Both an account key and a shared access signature are set.",
    "Clear one: put it as null.",
)
_MISSING: Final = Meaning(
    "missing_credentials",
    "The worker has no managed identity.",
    "Give the machine or the container one, or use a key or a shared access signature.",
)
_UNREADABLE: Final = Meaning(
    "unreadable_name",
    "Its name has a `.` or `..` between slashes, which cannot be asked for.",
    "Rename the file.",
)
_NOT_AZURE: Final = Meaning(
    "source_error",
    "What answers does not speak the blob service's protocol.",
    "Check `endpoint_url`: it names the origin of the blob service.",
)
_VERSION: Final = Meaning(
    "source_error",
    "The store is too old for this version of the protocol.",
    "Update the store; an emulator can be told not to check the version.",
)

_BY_CODE: Final[Mapping[str, Meaning]] = {
    "AccountIsDisabled": _DISABLED,
    "AuthenticationFailed": _INVALID,
    "AuthorizationFailure": _WALLED,
    "AuthorizationPermissionMismatch": _DENIED,
    "AuthorizationProtocolMismatch": _WALLED,
    "AuthorizationResourceTypeMismatch": _DENIED,
    "AuthorizationServiceMismatch": _DENIED,
    "AuthorizationSourceIPMismatch": _WALLED,
    "BlobArchived": meaning.ARCHIVED,
    "BlobBeingRehydrated": meaning.ARCHIVED,
    "BlobNotFound": meaning.NO_FILE,
    "ConditionNotMet": meaning.CHANGED,
    "ContainerBeingDeleted": _NO_CONTAINER,
    "ContainerDisabled": _DISABLED,
    "ContainerNotFound": _NO_CONTAINER,
    "InsufficientAccountPermissions": _DENIED,
    "InvalidAuthenticationInfo": _INVALID,
    "InvalidHeaderValue": _VERSION,
    "InvalidResourceName": _CONFIG,
    "InvalidUri": _CONFIG,
    "KeyBasedAuthenticationNotPermitted": _NO_KEYS,
    "NoAuthenticationInformation": _INVALID,
    "OperationTimedOut": meaning.TIMEOUT,
    "OutOfRangeInput": _CONFIG,
    "PublicAccessNotPermitted": _DENIED,
    "ResourceNotFound": _NO_ACCOUNT,
    "ServerBusy": meaning.THROTTLED,
    "TooManyRequests": meaning.THROTTLED,
    "UnsupportedRestVersion": _VERSION,
}
_BY_STATUS: Final[Mapping[int, Meaning]] = {
    401: _INVALID, 403: _DENIED, 404: _NO_CONTAINER, 408: meaning.TIMEOUT, 412: meaning.CHANGED,
    429: meaning.THROTTLED,
}  # fmt: skip


@dataclass(frozen=True)
class Validity:
    """From when to when a shared access signature says that it is valid, by its own words. None: it does not say."""

    starts_at: datetime | None = None
    ends_at: datetime | None = None

    @classmethod
    def of(cls, sas_token: str) -> "Validity":
        """What stands in the token. A stored access policy keeps it at the account instead."""
        fields = parse_qs(sas_token)
        return cls(_told(fields.get("st")), _told(fields.get("se")))


def _told(values: list[str] | None) -> datetime | None:
    try:
        found = datetime.fromisoformat((values or [""])[0])
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def translated(error: BaseException, proxy: Proxy, validity: Validity | None) -> ConnectorError:
    """What `error` means, chained to it. `validity` is that of the SAS that was used, None for other credentials."""
    failure = _meant(error, proxy, validity)
    failure.__cause__ = error
    return failure


def not_azure() -> ConnectorError:
    """An answer that is none of Azure's."""
    return _NOT_AZURE.error()


def unusable() -> ConnectorError:
    """A config that the client cannot be made of."""
    return _CONFIG.error()


def unreadable_name() -> ConnectorError:
    """A name that does not survive in a URL."""
    return _UNREADABLE.error()


def two_credentials() -> ConnectorError:
    """Two ways to sign, and nothing says which."""
    return _TWO.error()


def no_identity() -> ConnectorError:
    """The worker's own identity is not there."""
    return _MISSING.error()


def missing_file(error: ConnectorError) -> ConnectorError:
    """`error` of a request for a file: an answer of 404 without a code is about the file."""
    cause = error.__cause__
    answer = getattr(cause, "response", None)
    is_bare = answer is not None and not answer.headers.get("x-ms-error-code")
    return meaning.NO_FILE.error() if is_bare and error.code == _NO_CONTAINER.code else error


def _meant(error: BaseException, proxy: Proxy, validity: Validity | None) -> ConnectorError:
    answer = getattr(error, "response", None)
    if isinstance(error, HttpResponseError) and answer is not None:
        return _of_answer(error, answer, proxy, validity)
    if isinstance(error, DecodeError):
        return _NOT_AZURE.error()
    if isinstance(error, ClientAuthenticationError):
        return _UNUSABLE.error()
    if isinstance(error, AzureError | requests.RequestException | HTTPError):
        return web.translated(error, proxy)
    return _NOT_AZURE.error()


def _of_answer(error: HttpResponseError, answer: Any, proxy: Proxy, validity: Validity | None) -> ConnectorError:
    headers: Mapping[str, str] = answer.headers
    if meaning.is_marked(headers) and (failure := meaning.of_proxy(proxy)):
        return failure
    status = int(answer.status_code)
    named = headers.get("x-ms-error-code") or getattr(error, "error_code", None)
    code = str(getattr(named, "value", named))
    found = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if found is _WALLED and str(error.message).startswith(_NOT_AUTHENTICATED):
        found = _INVALID
    if found is _INVALID:
        found = _why_invalid(headers, validity)
    if found is None:
        found = meaning.DOWN if status >= 500 else _NOT_AZURE if isinstance(error, DecodeError) else meaning.REFUSED
    return found.error(meaning.retry_after(headers))


def _why_invalid(headers: Mapping[str, str], validity: Validity | None) -> Meaning:
    """Azure has one code for all of it. Whose clock counts is Azure's, which stands in its answer."""
    ours = time.time()
    try:
        theirs = parsedate_to_datetime(headers.get("Date") or "").timestamp()
    except (ValueError, OverflowError):
        theirs = ours
    if validity is None:
        return _SKEW if abs(theirs - ours) > _SKEW_SECONDS else _INVALID
    if validity.ends_at is not None and validity.ends_at.timestamp() <= theirs:
        return _EXPIRED
    if validity.starts_at is not None and validity.starts_at.timestamp() > theirs:
        return _NOT_YET
    return _INVALID
