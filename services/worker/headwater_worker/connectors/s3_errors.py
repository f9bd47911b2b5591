"""The one table from botocore's errors to ours.

https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and what compatible stores send. What a store
wrote is never repeated: it holds the string that was signed, keys and hosts. The one exception is the name of a
region, after a check of its form.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from headwater.errors import ConnectorError
from headwater_worker.connectors import meaning
from headwater_worker.connectors.meaning import Meaning
from headwater_worker.egress import Proxy

# Beside botocore's own trees: its parsers raise `ResponseParserError`, and `ValueError` for a number that is none; a
# body that breaks off may show urllib3's errors.
FOREIGN: Final = (BotoCoreError, ClientError, ResponseParserError, HTTPError, ValueError)
Foreign: TypeAlias = BotoCoreError | ClientError | ResponseParserError | HTTPError | ValueError

_REGION: Final = re.compile(r"[a-z0-9-]{1,40}")

_INVALID: Final = Meaning(
    "invalid_credentials",
    "The store does not accept these credentials.",
    "Check access key and secret: the key must exist and be active, the secret must be the one that belongs to it.",
)
_UNTRUSTED: Final = Meaning(
    "invalid_credentials",
    "AWS does not accept the worker's own identity.",
    "The role must trust the cluster's identity provider, and this service account of it.",
)
_EXPIRED: Final = Meaning(
    "expired_credentials", "The credentials have expired.", "Put fresh ones; temporary keys live for hours."
)
_SKEW: Final = Meaning(
    "clock_skew",
    "The clocks of the worker and of the store differ too much.",
    "Set the worker's clock, by NTP for instance; the store refuses signatures that are 15 minutes off.",
)
_DENIED: Final = Meaning(
    "permission_denied",
    "The credentials do not have the right to do this.",
    "Grant s3:ListBucket on the bucket and s3:GetObject on its objects, and check that no policy denies them.",
)
_NO_BUCKET: Final = Meaning("bucket_not_found", "The bucket does not exist.", "Check the bucket's name and account.")
_REGION_UNKNOWN: Final = Meaning(
    "wrong_region", "The bucket is in another region.", "Look up the bucket's region and set it."
)
_CONFIG: Final = Meaning("config_invalid", "The store cannot be asked with this config.", "Check bucket and region.")
_MISSING: Final = Meaning(
    "missing_credentials", "There are no credentials for the store.", "Put them, or give the worker a role."
)
_NOT_S3: Final = Meaning(
    "source_error",
    "What answers is not a store that speaks S3's protocol.",
    "Check `endpoint_url`: it names the origin of the S3 API, not of the store's web console.",
)

_BY_CODE: Final[Mapping[str, Meaning]] = {
    "InvalidAccessKeyId": _INVALID,
    "InvalidClientTokenId": _INVALID,
    "InvalidSecurity": _INVALID,
    "InvalidToken": _INVALID,
    "SignatureDoesNotMatch": _INVALID,
    "UnrecognizedClientException": _INVALID,
    "AuthorizationHeaderMalformed": _INVALID,  # with a region in it, it is `wrong_region`
    "IDPRejectedClaim": _UNTRUSTED,
    "InvalidIdentityToken": _UNTRUSTED,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": _SKEW,
    "RequestExpired": _SKEW,
    "RequestInTheFuture": _SKEW,
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "AccountProblem": _DENIED,
    "AllAccessDisabled": _DENIED,
    "NotSignedUp": _DENIED,
    "UnauthorizedAccess": _DENIED,
    "NoSuchBucket": _NO_BUCKET,
    "NoSuchKey": meaning.NO_FILE,
    "NoSuchVersion": meaning.NO_FILE,
    "PermanentRedirect": _REGION_UNKNOWN,
    "TemporaryRedirect": _REGION_UNKNOWN,
    "IllegalLocationConstraintException": _REGION_UNKNOWN,
    "301": _REGION_UNKNOWN,
    "307": _REGION_UNKNOWN,
    "BandwidthLimitExceeded": meaning.THROTTLED,
    "RequestLimitExceeded": meaning.THROTTLED,
    "RequestThrottled": meaning.THROTTLED,
    "SlowDown": meaning.THROTTLED,
    "Throttling": meaning.THROTTLED,
    "ThrottlingException": meaning.THROTTLED,
    "TooManyRequests": meaning.THROTTLED,
    "TooManyRequestsException": meaning.THROTTLED,
    "RequestTimeout": meaning.TIMEOUT,
    "InvalidObjectState": meaning.ARCHIVED,
    "PreconditionFailed": meaning.CHANGED,
    "InvalidBucketName": _CONFIG,
    "NotImplemented": meaning.REFUSED,
}
_BY_STATUS: Final[Mapping[int, Meaning]] = {
    401: _INVALID, 403: _DENIED, 404: _NO_BUCKET, 408: meaning.TIMEOUT, 412: meaning.CHANGED, 429: meaning.THROTTLED,
}  # fmt: skip
# In the order of asking: some are subclasses of others.
_BY_CLASS: Final[tuple[tuple[type[Exception], Meaning], ...]] = (
    (ResponseParserError, _NOT_S3),
    (ConnectTimeoutError, meaning.TIMEOUT),
    (ReadTimeoutError, meaning.TIMEOUT),
    (HTTPClientError, meaning.BROKEN),
    (NoConnection, meaning.BROKEN),
    (HTTPError, meaning.BROKEN),
    (ValueError, _NOT_S3),
    (IncompleteReadError, meaning.BROKEN),
    (ResponseStreamingError, meaning.BROKEN),
    (NoCredentialsError, _MISSING),
    (CredentialRetrievalError, _MISSING),
)


def translated(error: Foreign, proxy: Proxy) -> ConnectorError:
    """What `error` means, chained to it. `proxy` knows why a connection was not made."""
    failure = _from_proxy(error, proxy) or (
        _from_answer(error) if isinstance(error, ClientError) else _from_class(error)
    )
    failure.__cause__ = error
    return failure


def not_s3() -> ConnectorError:
    """An answer that is well-formed but none of S3's."""
    return _NOT_S3.error()


def unusable() -> ConnectorError:
    """A config that the SDK can make no client of."""
    return _CONFIG.error()


def _from_proxy(error: Foreign, proxy: Proxy) -> ConnectorError | None:
    if isinstance(error, ClientError):
        # Behind TLS it is not the proxy that answers.
        is_proxys = meaning.is_marked(_headers(error))
    else:
        is_proxys = isinstance(error, (HTTPClientError, NoConnection))
    return meaning.of_proxy(proxy) if is_proxys else None


def _from_answer(error: ClientError) -> ConnectorError:
    details: Mapping[str, Any] = error.response.get("Error", {})
    code = str(details.get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    region = _region(error)
    found = _BY_CODE.get(code) or _by_status(status, error.operation_name)
    if region is not None and (code == "AuthorizationHeaderMalformed" or found is _REGION_UNKNOWN):
        found = _REGION_UNKNOWN._replace(hint=f"The bucket is in {region}: set `region` to that.")
    return found.error(meaning.retry_after(_headers(error)))


def _by_status(status: int, operation: str) -> Meaning:
    if status == 404 and operation == "GetObject":
        return meaning.NO_FILE
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return meaning.DOWN if status >= 500 else meaning.REFUSED


def _from_class(error: Foreign) -> ConnectorError:
    if isinstance(error, SSLError):
        return meaning.of_broken_tls(error).error()
    return next((found for kind, found in _BY_CLASS if isinstance(error, kind)), _CONFIG).error()


def _headers(error: ClientError) -> Mapping[str, str]:
    headers: Mapping[str, str] = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers


def _region(error: ClientError) -> str | None:
    told = _headers(error).get("x-amz-bucket-region") or error.response.get("Error", {}).get("Region")
    return told if isinstance(told, str) and _REGION.fullmatch(told) else None
