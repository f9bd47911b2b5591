"""Tables of the job engine. Postgres is the truth about jobs; Redis only rings."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, SmallInteger, Text, false, func, text
from sqlmodel import Field, SQLModel

from headwater import ids
from headwater.db import JSON_TYPE, MOMENT

_NOW = {"server_default": func.now()}
_STATUSES = "'queued', 'running', 'cancelling', 'succeeded', 'partially_succeeded', 'failed', 'cancelled'"
_EMPTY_MAP = {"server_default": "{}"}
_NO = {"server_default": false()}
_EMPTY_LIST = {"server_default": "[]"}


class Job(SQLModel, table=True):
    """One piece of work. A final status is written once; a trigger holds every change to the permitted ones."""

    __tablename__ = "job"
    __table_args__ = (
        CheckConstraint(f"status in ({_STATUSES})", name="status"),
        CheckConstraint("data_source_id is not null or draft is not null", name="source"),
        Index("ix_job_page", "organization_id", "created_at", "id"),
        Index("ix_job_source", "data_source_id", "created_at", "id"),
        Index("ix_job_project", "project_id", "created_at", "id"),
        Index("ix_job_filter", "organization_id", "status", "kind", "created_at", "id"),
        Index(
            "ix_job_queued", "queue", "organization_id", text("priority desc"), "created_at", "id",
            postgresql_where=text("status = 'queued'"),
        ),
        Index(
            "ix_job_waiting", "queue", "organization_id",
            text("coalesce(data_source_id, '00000000-0000-0000-0000-000000000000')"),
            text("priority desc"), "created_at", "id",
            postgresql_where=text("status = 'queued'"),
        ),
        Index("ix_job_live", "organization_id", "queue", postgresql_where=text("status in ('running', 'cancelling')")),
        Index("ix_job_live_source", "data_source_id", postgresql_where=text("status in ('running', 'cancelling')")),
        Index("ix_job_finished", "finished_at", postgresql_where=text("finished_at is not null")),
        Index("ix_job_untallied", "finished_at", postgresql_where=text("finished_at is not null and not tallied")),
        Index(
            "uq_job_one_live_sync", "data_source_id", unique=True,
            postgresql_where=text("kind = 'sync' and status in ('queued', 'running', 'cancelling')"),
        ),
    )  # fmt: skip

    id: UUID = Field(default_factory=ids.new, primary_key=True)
    organization_id: UUID = Field(sa_column_args=(ForeignKey("organization.id", ondelete="CASCADE"),))
    project_id: UUID = Field(sa_column_args=(ForeignKey("project.id", ondelete="CASCADE"),))
    data_source_id: UUID | None = Field(
        default=None, sa_column_args=(ForeignKey("data_source.id", ondelete="CASCADE"),)
    )
    kind: str = Field(sa_type=Text)
    queue: str = Field(sa_type=Text)
    params: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE, sa_column_kwargs=_EMPTY_MAP)
    draft: dict[str, Any] | None = Field(default=None, sa_type=JSON_TYPE, description="{type, config}, unsaved")
    config_version: int | None = None
    access_revision: int | None = None
    status: str = Field(default="queued", sa_type=Text)
    priority: int = Field(default=0, sa_type=SmallInteger)
    run_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    rung_at: datetime | None = Field(default=None, sa_type=MOMENT)
    attempt: int = Field(default=0, sa_type=SmallInteger)
    max_attempts: int = Field(sa_type=SmallInteger)
    crashes: int = Field(default=0, sa_type=SmallInteger, description="leases lost")
    interruptions: int = Field(default=0, sa_type=SmallInteger, description="attempts handed back by a stopping worker")
    deadline_seconds: int
    deadline_at: datetime | None = Field(default=None, sa_type=MOMENT)
    created_by: UUID | None = Field(default=None, sa_column_args=(ForeignKey("member.id"),))
    request_id: str | None = Field(default=None, sa_type=Text)
    retry_of: UUID | None = None
    cancel_requested_by: UUID | None = Field(default=None, sa_column_args=(ForeignKey("member.id"),))
    cancel_requested_at: datetime | None = Field(default=None, sa_type=MOMENT)
    cancel_reason: str | None = Field(default=None, sa_type=Text)
    result: dict[str, Any] | None = Field(default=None, sa_type=JSON_TYPE)
    error: dict[str, Any] | None = Field(default=None, sa_type=JSON_TYPE)
    created_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    started_at: datetime | None = Field(default=None, sa_type=MOMENT)
    finished_at: datetime | None = Field(default=None, sa_type=MOMENT)
    tallied: bool = Field(default=False, sa_column_kwargs=_NO, description="its end is in the tallies of monitoring")


class JobSummary(SQLModel, table=True):
    """What stays of a job that was pruned."""

    __tablename__ = "job_summary"
    __table_args__ = (Index(None, "organization_id"),)

    id: UUID = Field(primary_key=True)
    organization_id: UUID = Field(sa_column_args=(ForeignKey("organization.id", ondelete="CASCADE"),))
    project_id: UUID
    data_source_id: UUID | None = None
    kind: str = Field(sa_type=Text)
    status: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=MOMENT)
    finished_at: datetime = Field(sa_type=MOMENT)


class JobLease(SQLModel, table=True):
    """Exists exactly while its job runs. Whoever holds `token` may write the job's effects."""

    __tablename__ = "job_lease"
    __table_args__ = (Index(None, "until"),)

    job_id: UUID = Field(primary_key=True, sa_column_args=(ForeignKey("job.id", ondelete="CASCADE"),))
    organization_id: UUID
    # The unique constraint makes KEY SHARE on this row conflict with a change of owner, and with nothing else.
    token: UUID = Field(unique=True)
    worker: str = Field(sa_type=Text)
    until: datetime = Field(sa_type=MOMENT)
    beat_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    cancel: bool = False


class JobAttempt(SQLModel, table=True):
    """One attempt at a job. `outcome` is None while it runs, else a status, `retried`, `released` or `lost`."""

    __tablename__ = "job_attempt"
    __table_args__ = (
        Index(None, "token", unique=True),
        Index(None, "started_at"),
        Index("ix_job_attempt_untallied", "ended_at", postgresql_where=text("ended_at is not null and not tallied")),
    )

    job_id: UUID = Field(primary_key=True, sa_column_args=(ForeignKey("job.id", ondelete="CASCADE"),))
    attempt: int = Field(primary_key=True, sa_type=SmallInteger)
    organization_id: UUID
    token: UUID
    worker: str = Field(sa_type=Text)
    started_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    ended_at: datetime | None = Field(default=None, sa_type=MOMENT)
    outcome: str | None = Field(default=None, sa_type=Text)
    error: dict[str, Any] | None = Field(default=None, sa_type=JSON_TYPE)
    tallied: bool = Field(default=False, sa_column_kwargs=_NO)


class JobProgress(SQLModel, table=True):
    """Where a job is, off its own row. `percent` never goes down."""

    __tablename__ = "job_progress"

    job_id: UUID = Field(primary_key=True, sa_column_args=(ForeignKey("job.id", ondelete="CASCADE"),))
    organization_id: UUID
    phase: str = Field(sa_type=Text)
    current: int = Field(default=0, sa_type=BigInteger)
    total: int | None = Field(default=None, sa_type=BigInteger)
    unit: str | None = Field(default=None, sa_type=Text)
    percent: int | None = Field(default=None, sa_type=SmallInteger)
    eta_seconds: int | None = None
    counters: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE, sa_column_kwargs=_EMPTY_MAP)
    warnings: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON_TYPE, sa_column_kwargs=_EMPTY_LIST)
    error_summary: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON_TYPE, sa_column_kwargs=_EMPTY_LIST)
    updated_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)


class Worker(SQLModel, table=True):
    """A worker process that is alive: seen every few seconds. The scheduler counts slots here."""

    __tablename__ = "worker"

    name: str = Field(primary_key=True, sa_type=Text)
    queue: str = Field(sa_type=Text)
    slots: int
    version: str = Field(sa_type=Text)
    started_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    seen_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
