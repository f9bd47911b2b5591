"""Tables of access."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, Text, Uuid, func, text
from sqlmodel import Field, SQLModel

from headwater import ids
from headwater.db import MOMENT

_NOW = {"server_default": func.now()}
_ROLES = "role in ('admin', 'operator', 'viewer')"


class Organization(SQLModel, table=True):
    """The tenant. Every row belongs to one; nothing crosses it. A limit that is None is the deployment's default."""

    __tablename__ = "organization"
    __table_args__ = (CheckConstraint("deadline_limit_seconds > 0", name="deadline_limit_seconds"),)

    id: UUID = Field(default_factory=ids.new, primary_key=True)
    name: str = Field(sa_type=Text)
    revision: int = 1
    running_limit: int | None = Field(default=None, description="jobs that run at once")
    data_source_limit: int | None = None
    live_job_limit: int | None = Field(default=None, description="jobs that have not ended")
    upload_bytes_limit: int | None = Field(default=None, sa_type=BigInteger)
    webhook_limit: int | None = None
    deadline_limit_seconds: int | None = Field(default=None, description="the longest deadline of a job")
    created_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    suspended_at: datetime | None = Field(default=None, sa_type=MOMENT)
    deleted_at: datetime | None = Field(default=None, sa_type=MOMENT, description="its rows are being deleted")


class Member(SQLModel, table=True):
    """A person, or a service, of one organization.

    `issuer` and `subject` are who the identity provider says it is, from the first sign-in on.
    """

    __tablename__ = "member"
    __table_args__ = (
        CheckConstraint(_ROLES, name="role"),
        CheckConstraint("kind in ('person', 'service')", name="kind"),
        CheckConstraint("kind = 'service' or email is not null", name="email"),
        Index(
            "uq_member_subject",
            "organization_id",
            "issuer",
            "subject",
            unique=True,
            postgresql_where=text("removed_at is null and subject is not null"),
        ),
        Index(
            "uq_member_email",
            "organization_id",
            text("lower(email)"),
            unique=True,
            postgresql_where=text("removed_at is null"),
        ),
    )

    id: UUID = Field(default_factory=ids.new, primary_key=True)
    organization_id: UUID = Field(sa_column_args=(ForeignKey("organization.id", ondelete="CASCADE"),))
    kind: str = Field(default="person", sa_type=Text)
    email: str | None = Field(default=None, sa_type=Text, description="a service may have none")
    name: str = Field(sa_type=Text)
    role: str = Field(sa_type=Text)
    revision: int = 1
    issuer: str | None = Field(default=None, sa_type=Text)
    subject: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    removed_at: datetime | None = Field(default=None, sa_type=MOMENT)


class ApiKey(SQLModel, table=True):
    """A key of a member; its secret is kept as a peppered HMAC. `id` is the key's public half."""

    __tablename__ = "api_key"
    __table_args__ = (
        CheckConstraint(_ROLES, name="role"),
        Index(None, "organization_id"),
        Index(None, "member_id"),
    )

    id: UUID = Field(default_factory=ids.new, primary_key=True)
    organization_id: UUID = Field(sa_column_args=(ForeignKey("organization.id", ondelete="CASCADE"),))
    member_id: UUID = Field(sa_column_args=(ForeignKey("member.id", ondelete="CASCADE"),))
    name: str = Field(sa_type=Text)
    role: str = Field(sa_type=Text)
    secret_hash: bytes = Field(sa_type=LargeBinary)
    project_ids: list[UUID] | None = Field(default=None, sa_type=ARRAY(Uuid))
    created_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    expires_at: datetime | None = Field(default=None, sa_type=MOMENT)
    revoked_at: datetime | None = Field(default=None, sa_type=MOMENT)
    last_used_at: datetime | None = Field(default=None, sa_type=MOMENT)
