"""Tables of projects and data sources.

A `DataSource` row changes only by users. What jobs learn stands in `DataSourceTotals`.
"""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Identity,
    Index,
    Text,
    func,
    text,
)
from sqlmodel import Field, SQLModel

from headwater import ids
from headwater.db import JSON_TYPE, MOMENT

_NOW = {"server_default": func.now()}
_LIVE = text("deleted_at is null")


class Project(SQLModel, table=True):
    """A folder of data sources. `revision` is its ETag."""

    __tablename__ = "project"
    __table_args__ = (
        Index("uq_project_name", "organization_id", "name", unique=True, postgresql_where=_LIVE),
        Index("ix_project_page", "organization_id", "created_at", "id", postgresql_where=_LIVE),
    )

    id: UUID = Field(default_factory=ids.new, primary_key=True)
    organization_id: UUID = Field(sa_column_args=(ForeignKey("organization.id", ondelete="CASCADE"),))
    name: str = Field(sa_type=Text)
    description: str = Field(default="", sa_type=Text)
    revision: int = 1
    created_by: UUID | None = Field(default=None, sa_column_args=(ForeignKey("member.id"),))
    updated_by: UUID | None = Field(default=None, sa_column_args=(ForeignKey("member.id"),))
    created_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    updated_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    deleted_at: datetime | None = Field(default=None, sa_type=MOMENT)


# What a search compares, by the database's own idea of lower case. Never shown, so that no row brings it along.
SEARCHED: Final = tuple(
    Column(f"{name}_lowered", Text, Computed(f"lower({name})", persisted=True)) for name in ("name", "description")
)


class DataSource(SQLModel, table=True):
    """A registered place where data lives.

    `revision` is its ETag and counts every change that a user makes; `version` names the config that counts now;
    `access_revision` counts changes of target or credentials, so that a test's verdict is known to be stale.
    """

    __tablename__ = "data_source"
    __mapper_args__ = {"exclude_properties": [column.name for column in SEARCHED]}
    __table_args__ = (
        *SEARCHED,
        Index("uq_data_source_name", "project_id", "env", "name", unique=True, postgresql_where=_LIVE),
        Index("ix_data_source_page", "organization_id", "created_at", "id", postgresql_where=_LIVE),
        Index("ix_data_source_project", "project_id", "created_at", "id", postgresql_where=_LIVE),
        # In the order of bytes, `collate "C"`, which is not compared.
        Index("ix_data_source_name", "organization_id", "name", "id", postgresql_where=_LIVE),
        Index("ix_data_source_updated_at", "organization_id", "updated_at", "id", postgresql_where=_LIVE),
        Index("ix_data_source_tags", "tags", postgresql_using="gin", postgresql_where=_LIVE),
        Index("ix_data_source_type", "organization_id", "type", "created_at", "id", postgresql_where=_LIVE),
        Index("ix_data_source_env", "organization_id", "env", "created_at", "id", postgresql_where=_LIVE),
        Index("ix_data_source_deleted", "id", postgresql_where=text("deleted_at is not null")),
    )

    id: UUID = Field(default_factory=ids.new, primary_key=True)
    organization_id: UUID = Field(sa_column_args=(ForeignKey("organization.id", ondelete="CASCADE"),))
    project_id: UUID = Field(sa_column_args=(ForeignKey("project.id", ondelete="CASCADE"),))
    name: str = Field(sa_type=Text)
    description: str = Field(default="", sa_type=Text)
    env: str = Field(default="production", sa_type=Text)
    tags: list[str] = Field(default_factory=list, sa_type=ARRAY(Text), sa_column_kwargs={"server_default": "{}"})
    owner_id: UUID | None = Field(default=None, sa_column_args=(ForeignKey("member.id"),))
    type: str = Field(sa_type=Text)
    is_active: bool = True
    version: int = 1
    revision: int = 1
    access_revision: int = 1
    created_by: UUID | None = Field(default=None, sa_column_args=(ForeignKey("member.id"),))
    updated_by: UUID | None = Field(default=None, sa_column_args=(ForeignKey("member.id"),))
    created_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    updated_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    deleted_at: datetime | None = Field(default=None, sa_type=MOMENT)


class DataSourceVersion(SQLModel, table=True):
    """One immutable, numbered config: how the source is reached and how its records are read. Jobs pin one."""

    __tablename__ = "data_source_version"

    data_source_id: UUID = Field(primary_key=True, sa_column_args=(ForeignKey("data_source.id", ondelete="CASCADE"),))
    version: int = Field(primary_key=True)
    organization_id: UUID = Field(sa_column_args=(ForeignKey("organization.id", ondelete="CASCADE"),))
    config: dict[str, Any] = Field(sa_type=JSON_TYPE)
    validation: dict[str, Any] = Field(sa_type=JSON_TYPE)
    reading: dict[str, Any] = Field(sa_type=JSON_TYPE)
    created_by: UUID | None = None
    created_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)


class DataSourceTotals(SQLModel, table=True):
    """What jobs found out, written in the transaction of what it counts, as its last statement.

    `snapshot` says which loads are live. `status` is None or the verdict at `status_access_revision`; it holds only
    while that is the source's `access_revision`.
    """

    __tablename__ = "data_source_totals"
    __table_args__ = (
        CheckConstraint("status in ('ready', 'failing')", name="status"),
        *(
            Index(f"ix_data_source_totals_{column}", "organization_id", column, "data_source_id")
            for column in ("item_count", "error_count", "last_sync_at")
        ),
        # Backwards, that of last_sync_at has those without a value first.
        Index(
            "ix_data_source_totals_newest_sync",
            "organization_id",
            text("last_sync_at desc nulls last"),
            text("data_source_id desc"),
        ),
    )

    data_source_id: UUID = Field(primary_key=True, sa_column_args=(ForeignKey("data_source.id", ondelete="CASCADE"),))
    organization_id: UUID = Field(sa_column_args=(ForeignKey("organization.id", ondelete="CASCADE"),))
    snapshot: int = 0
    item_count: int = Field(default=0, sa_type=BigInteger)
    error_count: int = Field(default=0, sa_type=BigInteger)
    last_sync_at: datetime | None = Field(default=None, sa_type=MOMENT)
    status: str | None = Field(default=None, sa_type=Text)
    status_reason: str | None = Field(default=None, sa_type=Text)
    status_access_revision: int | None = None
    last_test_success: bool | None = None
    last_test_job_id: UUID | None = None
    last_test_at: datetime | None = Field(default=None, sa_type=MOMENT)


class Event(SQLModel, table=True):
    """One line in a data source's history, and the event stream of a job (ordered by `number`)."""

    __tablename__ = "event"
    __table_args__ = (
        Index(None, "data_source_id", "number"),
        Index("ix_event_job_id_number", "job_id", "number", postgresql_where=text("job_id is not null")),
    )

    id: UUID = Field(default_factory=ids.new, primary_key=True)
    number: int | None = Field(
        default=None, sa_type=BigInteger, nullable=False, sa_column_args=(Identity(always=True),)
    )
    organization_id: UUID = Field(sa_column_args=(ForeignKey("organization.id", ondelete="CASCADE"),))
    data_source_id: UUID | None = Field(
        default=None, sa_column_args=(ForeignKey("data_source.id", ondelete="CASCADE"),)
    )
    job_id: UUID | None = None
    act: str = Field(sa_type=Text, description="`noun.verb_past`, such as job.submitted or data_source.updated")
    actor_id: UUID | None = None
    details: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE, sa_column_kwargs={"server_default": "{}"})
    created_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
