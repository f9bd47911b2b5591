"""What starting a job takes, and the job as the API reference shows it."""

from typing import Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from headwater.jobs.kinds import CONNECTION_TEST, FILE_LISTING, SYNC, TABLE_DISCOVERY
from headwater_api.jobs.rendering import Reason

Status = Literal["queued", "running", "cancelling", "succeeded", "partially_succeeded", "failed", "cancelled"]
KindName = Literal["connection_test", "file_listing", "table_discovery", "sync"]

_PREFIX = Field(default="", max_length=1024, description="Only paths that start with this.", examples=["2026/"])


class Start(BaseModel):
    """What every body that starts a job takes, each optional."""

    model_config = ConfigDict(extra="forbid", strict=True)

    # What concerns the run and not the work itself.
    RUN: ClassVar[frozenset[str]] = frozenset({"deadline_seconds", "priority"})

    deadline_seconds: int | None = Field(default=None, ge=1, description="The job fails when it runs longer.")
    priority: int = Field(default=0, ge=-10, le=10, description="Higher runs sooner, within your organization.")

    def params(self) -> dict[str, Any]:
        """What the work is, without what is left at its default: equal work has equal params."""
        return self.model_dump(exclude=set(self.RUN), exclude_defaults=True)


class ConnectionTestStart(Start):
    """A connection test."""

    deadline_seconds: int | None = Field(default=None, ge=1, le=CONNECTION_TEST.longest_seconds)


class FileListingStart(Start):
    """A listing: with `limit` a preview, without one the whole catalogue."""

    prefix: str = _PREFIX
    limit: int | None = Field(default=None, ge=1, le=1000, description="List at most this many.")
    deadline_seconds: int | None = Field(default=None, ge=1, le=FILE_LISTING.longest_seconds)


class TableDiscoveryStart(Start):
    """A discovery of tables."""

    deadline_seconds: int | None = Field(default=None, ge=1, le=TABLE_DISCOVERY.longest_seconds)


class SyncStart(Start):
    """A sync."""

    full: bool = Field(default=False, description="Read unchanged files again, too.")
    prefix: str = _PREFIX
    deadline_seconds: int | None = Field(default=None, ge=1, le=SYNC.longest_seconds)


class RetryStart(Start):
    """A retry: the same work again; what is not sent is taken from the job."""

    priority: int | None = Field(default=None, ge=-10, le=10)  # type: ignore[assignment]


class UnsavedTestStart(ConnectionTestStart):
    """A test of a config that is not saved. Its credentials are sealed into the job and destroyed when it ends."""

    RUN: ClassVar[frozenset[str]] = frozenset({"deadline_seconds", "priority", "type", "config", "credentials"})

    type: str = Field(max_length=64, examples=["s3"])
    config: dict[str, Any] = Field(examples=[{"bucket": "my-bucket", "region": "eu-central-1"}])
    credentials: dict[str, Any] | None = Field(default=None, examples=[{"access_key_id": "AKIA..."}])


class CancelRequest(BaseModel):
    """Why, if you like to say."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: str | None = Field(default=None, max_length=500, examples=["wrong bucket"])


class JobMember(BaseModel):
    """Who started it."""

    id: str = Field(examples=["user_01h455vb4pex5vsknk084sn02q"])
    name: str
    email: str | None


class JobCancel(BaseModel):
    """Who asked to cancel it."""

    requested_by: str | None
    requested_at: AwareDatetime


class JobProgress(BaseModel):
    """Where it is; what is unknown is null. `percent` never goes down."""

    phase: str | None = Field(examples=["reading"])
    current: int
    total: int | None
    unit: str | None = Field(examples=["files"])
    percent: int | None = Field(ge=0, le=100)
    eta_seconds: int | None


class JobWarning(BaseModel):
    """Something that did not stop it."""

    code: str
    message: str


class JobError(BaseModel):
    """Why it failed. `origin` says where the cause lies, `retryable` whether trying again can help."""

    code: str = Field(examples=["invalid_credentials"])
    message: str
    hint: str | None
    origin: Literal["source", "platform", "request"]
    retryable: bool


class JobErrorCount(BaseModel):
    """How often records were refused for one reason, with up to five examples."""

    code: str
    count: int
    samples: list[Any] = Field(max_length=5)


class JobLinks(BaseModel):
    """Where to go from here."""

    self: str
    events: str
    source: str | None
    rejects: str


class JobRead(BaseModel):
    """A job. Watch it by `GET /jobs/{job_id}?wait=25` until `done`."""

    id: str = Field(examples=["job_01h455vb4pex5vsknk084sn02q"])
    kind: KindName
    status: Status
    done: bool = Field(description="Whether the status is final.")
    project_id: str
    data_source_id: str | None = Field(description="null for the test of an unsaved config")
    config_version: int | None
    queue: str
    queue_position: int | None = Field(description="Its place among your queued jobs, from 1; null once it runs.")
    reason_waiting: Reason | None = Field(description="What keeps it from running; null once it runs.")
    created_by: JobMember | None
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    heartbeat_at: AwareDatetime | None
    deadline_at: AwareDatetime | None
    attempt: int
    max_attempts: int
    next_attempt_at: AwareDatetime | None = Field(description="When it is tried again, while it waits for that.")
    retry_of: str | None
    cancel: JobCancel | None
    progress: JobProgress
    counters: dict[str, Any] = Field(examples=[{"listed": 12, "landed": 4711, "skipped_by": {}}])
    warnings: list[JobWarning]
    result: dict[str, Any] | None
    error: JobError | None
    error_summary: list[JobErrorCount]
    links: JobLinks


class JobList(BaseModel):
    """A page of jobs."""

    data: list[JobRead]
    next_cursor: str | None
    has_more: bool


class AttemptRead(BaseModel):
    """One attempt. `outcome` is null while it runs, else a final status, `retried`, `released` or `lost`."""

    attempt: int
    worker: str
    started_at: AwareDatetime
    ended_at: AwareDatetime | None
    outcome: str | None
    error: JobError | None


class AttemptList(BaseModel):
    """Every attempt, the first one first."""

    data: list[AttemptRead]
    next_cursor: str | None
    has_more: bool
