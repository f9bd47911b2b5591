"""Tables of webhooks."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Index, Text, Uuid, func, text
from sqlmodel import Field, SQLModel

from headwater import ids
from headwater.db import JSON_TYPE, MOMENT

_NOW = {"server_default": func.now()}


class Webhook(SQLModel, table=True):
    """Where an organization is told that a job has ended. Its secrets are sealed credentials, `signing.field` each.

    The row stays after its deletion until its deliveries are gone: a job that ends at that moment must not fail.
    """

    __tablename__ = "webhook"
    __table_args__ = (
        CheckConstraint("disabled_reason in ('gone', 'failing')", name="disabled_reason"),
        Index("ix_webhook_page", "organization_id", "created_at", "id", postgresql_where=text("deleted_at is null")),
        Index(
            "ix_webhook_previous_secret", "previous_secret_until",
            postgresql_where=text("previous_secret_until is not null"),
        ),
        Index("ix_webhook_deleted", "deleted_at", postgresql_where=text("deleted_at is not null")),
    )  # fmt: skip

    id: UUID = Field(default_factory=ids.new, primary_key=True)
    organization_id: UUID = Field(sa_column_args=(ForeignKey("organization.id", ondelete="CASCADE"),))
    url: str = Field(sa_type=Text)
    description: str = Field(default="", sa_type=Text)
    event_types: list[str] | None = Field(default=None, sa_type=ARRAY(Text), description="None: all")
    project_ids: list[UUID] | None = Field(default=None, sa_type=ARRAY(Uuid), description="None: all")
    enabled: bool = True
    disabled_reason: str | None = Field(default=None, sa_type=Text, description="None where a user did it")
    failing_since: datetime | None = Field(default=None, sa_type=MOMENT, description="no delivery arrived since")
    secret_number: int = Field(default=1, description="of the newest secret; the one before signs too for a while")
    previous_secret_until: datetime | None = Field(default=None, sa_type=MOMENT)
    revision: int = 1
    created_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    updated_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    deleted_at: datetime | None = Field(default=None, sa_type=MOMENT)


class WebhookDelivery(SQLModel, table=True):
    """One event on its way to one webhook; `id` is what the receiver knows it by, however often it is sent.

    `attempt` counts all of them, `tries` those since it was last asked for. `token` and `leased_until` say whose it is
    while its status is `delivering`; without an end, it is taken back then.
    """

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        CheckConstraint("status in ('pending', 'delivering', 'succeeded', 'failed')", name="status"),
        Index("ix_webhook_delivery_page", "webhook_id", "created_at", "id"),
        Index("ix_webhook_delivery_job", "job_id", postgresql_where=text("job_id is not null")),
        Index(
            "ix_webhook_delivery_undelivered", "webhook_id", "created_at", "id",
            postgresql_where=text("status <> 'succeeded'"),
        ),
        Index(
            "ix_webhook_delivery_pending", "webhook_id", "next_at", "id", postgresql_where=text("status = 'pending'")
        ),
        Index("ix_webhook_delivery_leased", "leased_until", postgresql_where=text("status = 'delivering'")),
        Index(None, "created_at"),
    )  # fmt: skip

    id: UUID = Field(default_factory=ids.new, primary_key=True)
    organization_id: UUID
    webhook_id: UUID = Field(sa_column_args=(ForeignKey("webhook.id", ondelete="CASCADE"),))
    type: str = Field(sa_type=Text, description="`job.` and the status it ended in, or `webhook.test`")
    job_id: UUID | None = None
    data: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE, sa_column_kwargs={"server_default": "{}"})
    status: str = Field(default="pending", sa_type=Text, sa_column_kwargs={"server_default": "pending"})
    attempt: int = 0
    tries: int = 0
    next_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    token: UUID | None = None
    leased_until: datetime | None = Field(default=None, sa_type=MOMENT)
    status_code: int | None = Field(default=None, description="of the last answer, if there was one")
    error_code: str | None = Field(default=None, sa_type=Text, description="of the last attempt, if it failed")
    created_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    ended_at: datetime | None = Field(default=None, sa_type=MOMENT)


class WebhookAttempt(SQLModel, table=True):
    """One request of a delivery. Neither a code nor an error: it is under way."""

    __tablename__ = "webhook_attempt"

    delivery_id: UUID = Field(primary_key=True, sa_column_args=(ForeignKey("webhook_delivery.id", ondelete="CASCADE"),))
    attempt: int = Field(primary_key=True)
    organization_id: UUID
    started_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    duration_ms: int | None = None
    status_code: int | None = None
    error_code: str | None = Field(default=None, sa_type=Text)
