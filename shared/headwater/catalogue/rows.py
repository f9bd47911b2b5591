"""Tables of the catalogue.

Visibility is a snapshot number: a reader at snapshot `n` of a source sees the loads with
`valid_from <= n` and (`valid_to` is null or `valid_to > n`), and their items and rejects.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, Text, func, text
from sqlmodel import Field, SQLModel

from headwater.db import JSON_TYPE, MOMENT

_NOW = {"server_default": func.now()}
_PATH = Text(collation="C")
_SHOWN = "valid_from is not null and emptied_at is null"


class File(SQLModel, table=True):
    """One object seen behind a source. `etag` is what was seen, `imported_etag` what was brought in.

    It is unchanged only if both agree and `imported_fingerprint` is how it would be read now.
    """

    __tablename__ = "file"
    __table_args__ = (
        CheckConstraint("state in ('new', 'changed', 'imported', 'rejected', 'missing')", name="state"),
        Index(None, "data_source_id", "state", "path"),
    )

    data_source_id: UUID = Field(primary_key=True)  # kept by triggers that ask once for a statement
    path: str = Field(primary_key=True, sa_type=_PATH)
    organization_id: UUID
    size: int | None = Field(default=None, sa_type=BigInteger)
    etag: str | None = Field(default=None, sa_type=Text)
    modified_at: datetime | None = Field(default=None, sa_type=MOMENT)
    state: str = Field(default="new", sa_type=Text)
    imported_etag: str | None = Field(default=None, sa_type=Text)
    imported_fingerprint: str | None = Field(default=None, sa_type=Text)
    load_id: int | None = Field(default=None, sa_type=BigInteger, description="the live load")
    item_count: int = Field(default=0, sa_type=BigInteger)
    error_count: int = Field(default=0, sa_type=BigInteger)
    first_seen_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    last_seen_at: datetime | None = Field(
        default=None, sa_type=MOMENT, sa_column_kwargs=_NOW, description="null: whenever its source was (`Sighting`)"
    )


class Sighting(SQLModel, table=True):
    """When a source was last listed as a whole: all its files whose `last_seen_at` is null were seen then."""

    __tablename__ = "sighting"

    data_source_id: UUID = Field(primary_key=True, sa_column_args=(ForeignKey("data_source.id", ondelete="CASCADE"),))
    organization_id: UUID
    seen_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)


class Load(SQLModel, table=True):
    """One reading of one file by one sync. `loaded` once all of it has landed; live between its snapshots."""

    __tablename__ = "load"
    __table_args__ = (
        # Dead loads stay for a long time, pending ones may be many: readers of a source walk past neither.
        Index("ix_load_path", "data_source_id", "path", "id", postgresql_where=text(_SHOWN)),
        Index(
            "ix_load_refused", "data_source_id", "path", "id", postgresql_where=text(f"{_SHOWN} and error_count > 0")
        ),
        Index("ix_load_job_refused", "job_id", "id", postgresql_where=text("error_count > 0")),
        Index("ix_load_job", "job_id", "id"),
        Index("ix_load_pending", "job_id", postgresql_where=text("valid_from is null and emptied_at is null")),
        Index("ix_load_closed", "closed_at", postgresql_where=text("closed_at is not null and emptied_at is null")),
        Index("ix_load_emptied", "job_id", postgresql_where=text("emptied_at is not null")),
        Index("ix_load_replacing", "id", postgresql_where=text("replacing_count > 0")),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BigInteger, sa_column_args=(Identity(always=True),))
    organization_id: UUID
    data_source_id: UUID = Field(sa_column_args=(ForeignKey("data_source.id", ondelete="CASCADE"),))
    job_id: UUID
    path: str = Field(sa_type=_PATH)
    etag: str | None = Field(default=None, sa_type=Text)
    fingerprint: str = Field(sa_type=Text)
    loaded: bool = False
    valid_from: int | None = None
    valid_to: int | None = None
    item_count: int = Field(default=0, sa_type=BigInteger)
    error_count: int = Field(default=0, sa_type=BigInteger, description="all rejects, kept or not")
    error_summary: list[dict[str, Any]] = Field(
        default_factory=list, sa_type=JSON_TYPE, sa_column_kwargs={"server_default": "[]"}
    )
    counters: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE, sa_column_kwargs={"server_default": "{}"})
    replacing_count: int = Field(
        default=0, sa_type=BigInteger, description="items of other loads that it replaced and that are not deleted yet"
    )
    created_at: datetime = Field(default=None, sa_type=MOMENT, nullable=False, sa_column_kwargs=_NOW)
    closed_at: datetime | None = Field(default=None, sa_type=MOMENT, description="when `valid_to` was set")
    emptied_at: datetime | None = Field(default=None, sa_type=MOMENT, description="its items are deleted")


class Item(SQLModel, table=True):
    """One record brought in. Its id is (load, record number), packed: a replay writes the same rows.

    `replaced_by` is the load that holds a later record with the same key. From the snapshot on that shows that load,
    this record is over, though its own load is live.
    """

    __tablename__ = "item"
    __table_args__ = (Index("ix_item_replaced", "replaced_by", postgresql_where=text("replaced_by is not null")),)

    load_id: int = Field(primary_key=True, sa_type=BigInteger)
    record_number: int = Field(primary_key=True, sa_type=BigInteger)
    data: Any = Field(sa_type=JSON_TYPE, nullable=False)
    replaced_by: int | None = Field(default=None, sa_type=BigInteger)


class ItemKey(SQLModel, table=True):
    """Which record of a load has which key, for sources whose records have one. Each key once in a load."""

    __tablename__ = "item_key"

    data_source_id: UUID = Field(primary_key=True)
    key: str = Field(primary_key=True, sa_type=_PATH)
    load_id: int = Field(primary_key=True, sa_type=BigInteger)
    record_number: int = Field(sa_type=BigInteger)


class Reject(SQLModel, table=True):
    """One record or file that a sync refused, with where and why. `number` counts within its load."""

    __tablename__ = "reject"

    load_id: int = Field(primary_key=True, sa_type=BigInteger)
    number: int = Field(primary_key=True, sa_type=BigInteger)
    line: int | None = Field(default=None, sa_type=BigInteger)
    record_number: int | None = Field(default=None, sa_type=BigInteger)
    code: str = Field(sa_type=Text)
    pointer: str | None = Field(default=None, sa_type=Text)
    message: str = Field(sa_type=Text)
    excerpt: str | None = Field(default=None, sa_type=Text)
