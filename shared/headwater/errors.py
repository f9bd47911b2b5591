"""Every error that Headwater raises on purpose.

    HeadwaterError
    ├── RequestError             the caller must change something, or wait
    │   ├── Unauthenticated      no credentials, or bad ones
    │   ├── Forbidden            known, but without the right
    │   ├── NotFound             unknown, deleted, malformed or another organization's
    │   ├── Gone                 pruned; its summary is kept
    │   ├── InvalidRequest       body or query; names each field
    │   ├── Conflict             the state of things forbids it
    │   ├── PreconditionRequired If-Match is missing
    │   ├── StaleRevision        If-Match names an older revision
    │   ├── RequestTimeout       the body did not come in time
    │   ├── PayloadTooLarge
    │   ├── UnsupportedMediaType
    │   ├── IdempotencyMismatch  the key was used for another request
    │   ├── TooManyRequests
    │   │   └── QuotaExceeded    the organization has as many as it may have
    │   └── Unavailable          Postgres is away
    ├── ConnectorError           a customer's system, or the way to it
    │   ├── Transient            worth trying again: network, timeout, throttled
    │   └── Permanent            not worth it: auth, not found, config, blocked target
    ├── JobError                 a job that cannot do its work, for a reason of its own
    ├── JobInterrupted           raised out of `checkpoint()`: the handler stops at once
    │   ├── CancelRequested
    │   ├── DeadlineExceeded
    │   ├── LeaseLost            somebody else owns the job now; write nothing
    │   └── Draining             the worker is stopping; the job goes back to the queue
    ├── VaultError
    │   ├── CannotUnseal         wrong key, or the ciphertext stands where it was not sealed for
    │   ├── KeyUnavailable       the key provider did not answer
    │   │   └── WeakKey          a master key that could be guessed
    │   └── KeyRefused           the key provider does not let us use its key
    └── StorageError             where uploads are kept did not do what was asked
        └── ObjectMissing        nothing is kept under this key

`code` is stable and for programs; `message` says what happened and `hint` the way out, for people. None of them
ever holds a secret, a body or a record that was refused, or the text of a driver's exception: that one is chained for
the log. A host or a field may be named as its user wrote it.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class HeadwaterError(Exception):
    """The root. `message` and `hint` are shown to people as they stand."""

    code = "internal_error"
    message = "Something went wrong on our side."
    hint: str | None = None

    def __init__(self, message: str | None = None, *, code: str | None = None, hint: str | None = None) -> None:
        self.code = code or type(self).code
        self.message = message or type(self).message
        self.hint = hint or type(self).hint
        super().__init__(self.message)


@dataclass(frozen=True)
class FieldError:
    """One field that was refused. `pointer` is a JSON Pointer (RFC 6901) into the body, or a query parameter."""

    pointer: str
    code: str
    detail: str


class RequestError(HeadwaterError):
    """A request that cannot be granted as it is."""

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        hint: str | None = None,
        errors: Sequence[FieldError] = (),
        retry_after_seconds: int | None = None,
        links: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.errors = tuple(errors)
        self.retry_after_seconds = retry_after_seconds
        self.links = links or {}


class Unauthenticated(RequestError):
    code = "unauthenticated"
    message = "A valid API key is required: `Authorization: Bearer hw_...`."


class Forbidden(RequestError):
    code = "forbidden"
    message = "Your role does not allow this."


class NotFound(RequestError):
    code = "not_found"
    message = "There is nothing here that you can see."


class Gone(RequestError):
    code = "gone"
    message = "This job was pruned; only its summary is kept."


class InvalidRequest(RequestError):
    code = "invalid_request"
    message = "The request is not valid; each refused field is named in `errors`."


class Conflict(RequestError):
    code = "conflict"
    message = "The current state does not allow this."


class PreconditionRequired(RequestError):
    code = "precondition_required"
    message = "This change needs an `If-Match` header with the ETag of what you read."


class StaleRevision(RequestError):
    code = "stale_revision"
    message = "Somebody changed this since you read it. Read it again, then repeat your change."


class RequestTimeout(RequestError):
    code = "request_timeout"
    message = "The body did not come in time."


class PayloadTooLarge(RequestError):
    code = "payload_too_large"
    message = "The body is larger than this route accepts."


class UnsupportedMediaType(RequestError):
    code = "unsupported_media_type"
    message = "Send the body as `Content-Type: application/json`."


class IdempotencyMismatch(RequestError):
    code = "idempotency_key_reused"
    message = "This Idempotency-Key was used for another request. Use a new key for a new request."


class TooManyRequests(RequestError):
    code = "too_many_requests"
    message = "Too many requests. Wait, then try again."


class QuotaExceeded(TooManyRequests):
    """`quota` names it: data_sources, live_jobs, upload_bytes or webhooks; `limit` is how many there may be."""

    code = "quota_exceeded"

    def __init__(self, message: str, *, quota: str, limit: int, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.quota = quota
        self.limit = limit


class Unavailable(RequestError):
    code = "unavailable"
    message = "The database does not answer. Try again in a moment."


class ConnectorError(HeadwaterError):
    """A customer's system, or the way to it, did not do what was asked."""

    code = "source_error"
    message = "The source did not do what was asked."


class Transient(ConnectorError):
    """Worth trying again. `retry_after_seconds` is what the source asked for, if it did."""

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        hint: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class Permanent(ConnectorError):
    """Trying again cannot help: somebody must change the source, its credentials or its config."""


class JobError(HeadwaterError):
    """A job that cannot do its work, for a reason that is neither the source's answer nor a fault of ours."""


class JobInterrupted(HeadwaterError):
    """Raised out of `checkpoint()`; handlers let it pass."""


class CancelRequested(JobInterrupted):
    code = "cancelled"
    message = "The job was cancelled."


class DeadlineExceeded(JobInterrupted):
    code = "deadline_exceeded"
    message = "The job did not end within its deadline."
    hint = "Ask for less at once, or submit it with a larger `deadline_seconds`."


class LeaseLost(JobInterrupted):
    code = "lease_lost"
    message = "Another attempt owns this job now."


class Draining(JobInterrupted):
    code = "draining"
    message = "The worker is stopping; the job goes back to the queue."


class VaultError(HeadwaterError):
    code = "vault_error"
    message = "The vault could not be used."


class CannotUnseal(VaultError):
    code = "cannot_unseal"
    message = "The stored credentials cannot be opened for this target."
    hint = "Put the credentials again: they were sealed for another target, or with a key that is gone."


class KeyUnavailable(VaultError):
    code = "key_unavailable"
    message = "The key that opens the credentials is not available to this worker."


class WeakKey(KeyUnavailable):
    code = "weak_key"
    message = "A master key could be guessed."


class KeyRefused(VaultError):
    code = "key_refused"
    message = "The key provider does not let this worker use its key."


class StorageError(HeadwaterError):
    code = "upload_storage_unavailable"
    message = "The place where uploads are kept does not answer."


class ObjectMissing(StorageError):
    code = "file_not_found"
    message = "The file is gone."
