"""How one attempt at a job ended, as a value that `lifecycle.record` writes down."""

from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from headwater.errors import ConnectorError, HeadwaterError, Transient

WAITING_FOR_KEY: Final = "waiting_for_key"
"""The phase of a job that waits for the key that opens its credentials."""

Origin = Literal["source", "platform", "request"]

# A sync that ends in one of these says that the source cannot be used until somebody changes it.
FAILING_CODES: Final = frozenset(
    {
        "config_invalid", "missing_credentials", "invalid_credentials", "expired_credentials", "permission_denied",
        "bucket_not_found", "container_not_found", "path_not_found", "not_found", "wrong_region", "blocked_target",
        "cannot_unseal", "endpoint_not_found", "records_path_not_found", "account_not_found", "account_disabled",
        "billing_disabled", "requester_pays", "ambient_credentials_not_allowed",
        "reference_refused", "reference_not_found",
    }
)  # fmt: skip


@dataclass(frozen=True)
class JobFailure:
    """Why a job failed, as its `error` shows it. Never a driver's text, never a secret."""

    code: str
    message: str
    hint: str | None = None
    origin: Origin = "platform"
    retryable: bool = False

    def as_json(self) -> dict[str, Any]:
        """The `error` object of the REST contract."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "origin": self.origin,
            "retryable": self.retryable,
        }


@dataclass(frozen=True)
class Progress:
    """Where a job is. `percent` and `eta_seconds` are None while unknown."""

    phase: str
    current: int = 0
    total: int | None = None
    unit: str | None = None
    percent: int | None = None
    eta_seconds: int | None = None
    counters: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[dict[str, Any], ...] = ()
    error_summary: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Succeeded:
    """The work is done. `partially`: some of it was refused and says so."""

    result: dict[str, Any]
    partially: bool = False


@dataclass(frozen=True)
class Failed:
    """The work could not be done. A retryable failure goes back to the queue while attempts are left."""

    failure: JobFailure
    retry_after_seconds: float | None = None


@dataclass(frozen=True)
class Waiting:
    """What the work needs of the platform is away for a while; the job goes back to the queue, again and again until
    its deadline, and the attempt does not count."""

    failure: JobFailure


@dataclass(frozen=True)
class Cancelled:
    """Somebody asked for it, and the work has ended."""


@dataclass(frozen=True)
class Released:
    """The worker is stopping; the job goes back to the queue and the attempt does not count."""


Outcome: TypeAlias = Succeeded | Failed | Waiting | Cancelled | Released


def failed(error: HeadwaterError) -> Failed:
    """The failed outcome that an error of ours stands for."""
    retry_after = error.retry_after_seconds if isinstance(error, Transient) else None
    failure = JobFailure(
        code=error.code,
        message=error.message,
        hint=error.hint,
        origin="source" if isinstance(error, ConnectorError) else "platform",
        retryable=isinstance(error, Transient),
    )
    return Failed(failure, retry_after_seconds=retry_after)
